"""Partial channels (PC-DARTS) against a cell written out channel by channel."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.pairing import Pairing
from lightning_mmnas.fusion.relaxation import GumbelHard

PRIMITIVES = ("sum", "attention", "linear_glu", "concat_fc")
SPACE = FusionSpace(
    inputs=("a/0", "b/0", "c/0"), cells=1, steps=2, step_outputs=2, channels=6, length=2, primitives=PRIMITIVES
)


def tensors(count: int) -> Tensor:
    return torch.randn(count, 5, 2, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("pairing", ["tied", "independent"])
@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_cell_equals_one_written_out(k: int, pairing: Pairing) -> None:
    torch.manual_seed(0)
    supernet = FusionSupernet(SPACE, pairing=pairing, partial_channels=k).double()
    for parameter in supernet.architecture_parameters():
        parameter.normal_()
    logits, part = supernet.logits, 6 // k
    cell: Any = supernet.cells[0]
    x, y = tensors(2) if pairing == "independent" else (tensors(1)[0],) * 2
    step_weights = [logits.step_weights(0, t) for t in range(2)]
    found = cell(x, y, step_weights, logits.primitive_weights(0))

    states = [x, y]
    for t in range(2):
        rows = step_weights[t]
        mixed = [x, y]
        if rows is not None:
            stacked = torch.stack(states)
            mixed = [(row[:, None, None, None] * stacked).sum(0) for row in rows]
        first, second = mixed[0], mixed[-1]
        out = torch.zeros(5, 2, 6, dtype=torch.float64)
        for weight, primitive, (_, swapped) in zip(
            logits.primitive_weights(0)[t], cell.steps[t], logits.variants, strict=True
        ):
            u, v = first[..., :part], second[..., :part]
            out[..., :part] += weight * (primitive(v, u) if swapped else primitive(u, v))
        out[..., part:] = (first[..., part:] + second[..., part:]) / 2
        shuffled = torch.empty_like(out)
        for group in range(k):
            for j in range(part):
                shuffled[..., j * k + group] = out[..., group * part + j]
        states.append(shuffled)
    torch.testing.assert_close(found, cell.output(states[2:], x))


def test_primitives_are_of_a_part_of_the_channels() -> None:
    cells: list[Any] = [FusionSupernet(SPACE, partial_channels=k).cells[0] for k in (1, 3)]
    sizes = [[p.linear.weight_x.numel() for p in cell.steps[0] if hasattr(p, "linear")] for cell in cells]
    assert sizes == [[72, 36], [8, 4]]


def test_one_path_of_a_part_of_the_channels() -> None:
    supernet = FusionSupernet(SPACE, relaxation=GumbelHard(), partial_channels=2).double()
    cell: Any = supernet.cells[0]
    widths: list[int] = []
    for step in cell.steps:
        for primitive in step:
            primitive.register_forward_hook(lambda module, inputs, out: widths.append(out.shape[-1]))
    supernet(dict(zip(SPACE.inputs, tensors(3), strict=True)))
    assert widths == [3, 3]


@pytest.mark.parametrize("k", [0, -1, 4])
def test_parts_must_divide_the_channels(k: int) -> None:
    with pytest.raises(GenotypeError, match=rf"partial_channels={k} must be at least 1 and divide the 6 channels"):
        FusionSupernet(SPACE, partial_channels=k)


def test_weights_of_parts_are_not_inherited() -> None:
    supernet = FusionSupernet(SPACE, partial_channels=3)
    with pytest.raises(GenotypeError, match=r"primitives of 2 channels, the network of 6.*partial_channels=1"):
        supernet.inherit(FusionNetwork(supernet.decode()))
