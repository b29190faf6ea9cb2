"""The supernet: one-hot logits equal the network, inheritance, decoding, sampling, logits that stay apart."""

import itertools

import pytest
import torch
from torch import Tensor

from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet, Genotype
from lightning_mmnas.errors import GenotypeError

SHAPES = {
    "image/0": (3, 8, 8),
    "image/1": (5, 4, 4),
    "audio/0": (4, 9),
    "text/0": (6,),
}


def space_of(**changes: object) -> FusionSpace:
    settings: dict[str, object] = {"inputs": tuple(SHAPES), "cells": 2, "steps": 1, "channels": 8, "length": 4}
    return FusionSpace(**{**settings, **changes})  # type: ignore[arg-type]


def features_of(batch: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(batch, *shape, generator=generator) for name, shape in SHAPES.items()}


SPACES = [
    space_of(),
    space_of(cells=3, steps=2),
    space_of(cells=3, cell_outputs=1, steps=3, step_outputs=2),
    space_of(cells=1, steps=2, step_outputs=1, primitives=("zero", "sum", "attention")),
    space_of(inputs=("text/0",), cells=3, steps=1),
]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("readout", ["flatten", "pool", "branch", "neck"])
def test_one_hot_supernet_equals_network(space: FusionSpace, readout: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    for _ in range(4):
        genotype = space.sample(generator)
        supernet = FusionSupernet(space, SHAPES, readout=readout).double()  # type: ignore[arg-type]
        network = FusionNetwork(genotype, SHAPES, readout=readout).double()  # type: ignore[arg-type]
        for buffer in supernet.buffers():  # running statistics that are not the initial ones
            if buffer.is_floating_point():
                buffer.add_(torch.rand_like(buffer))
        supernet.set_architecture(genotype)
        supernet.inherit(network)
        assert supernet.decode(coverage=False, distinct=False) == genotype
        for mode in (True, False):
            supernet.train(mode)
            network.train(mode)
            features = {name: feature.double() for name, feature in features_of().items()}
            torch.testing.assert_close(supernet(features), network(features), rtol=0, atol=1e-11)


def test_inputs_in_either_order_choose_the_asymmetric_variant() -> None:
    space = space_of(cells=1, primitives=("attention",))
    supernet = FusionSupernet(space, SHAPES)
    assert supernet.logits.variants == [("attention", False), ("attention", True)]
    supernet.logits.gamma[0].data[0, 1] = 1.0
    assert supernet.decode().cells[0].steps[0].inputs == ("y", "x")


def test_tied_pairing_feeds_one_sum_twice() -> None:
    supernet = FusionSupernet(space_of(), SHAPES, pairing="tied")
    seen: list[bool] = []
    for cell in supernet.cells:
        cell.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0] is inputs[1]))
    supernet(features_of())
    assert seen == [True, True]


def test_logits_are_parameters_without_gradient_and_in_the_state() -> None:
    supernet = FusionSupernet(space_of(steps=2), SHAPES)
    logits = supernet.architecture_parameters()
    assert logits
    assert not any(p.requires_grad for p in logits)
    assert {name for name in supernet.state_dict() if name.startswith("logits.")} == {
        f"logits.{name}" for name, _ in supernet.logits.named_parameters()
    }


@pytest.mark.parametrize("pairing", ["tied", "independent"])
@pytest.mark.parametrize("space", SPACES)
def test_decoding_is_legal_deterministic_and_covers(space: FusionSpace, pairing: str) -> None:
    supernet = FusionSupernet(space, SHAPES, pairing=pairing)  # type: ignore[arg-type]
    ties = supernet.decode()
    space.validate(ties)
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        for logits in supernet.architecture_parameters():
            logits.copy_(torch.randn(logits.shape, generator=generator))
        genotype = supernet.decode()
        space.validate(genotype)
        assert supernet.decode().model_dump() == genotype.model_dump()
        assert len(genotype.modalities_read()) == min(2 * space.cells, len(space.modalities))
        if len(space.inputs) > 1:
            assert len({cell.inputs for cell in genotype.cells}) == len(genotype.cells)
        drawn = supernet.sample(torch.Generator().manual_seed(seed))
        space.validate(drawn)


def test_zeros_leave_no_cell_that_nothing_can_read() -> None:
    space = FusionSpace(inputs=("a", "b"), cells=2, cell_outputs=1, primitives=("zero", "sum"), channels=4, length=2)
    supernet = FusionSupernet(space)
    for gamma in supernet.logits.gamma:
        gamma.data[:, 0] = 5.0  # zero
    genotype = supernet.decode()
    space.validate(genotype)
    assert "cell0" in genotype.cells[1].inputs


def brute_force(supernet: FusionSupernet) -> Genotype:
    """The best of all genotypes, one by one, for a space with one step and all cells as outputs."""
    space, scores = supernet.space, supernet.logits.scores()

    def score(genotype: Genotype) -> float:
        total = 0.0
        for i, cell in enumerate(genotype.cells):
            names = space.candidates(i)
            total += scores.cells[i][(names.index(cell.inputs[0]), names.index(cell.inputs[1]))]
            total += scores.variants[i][0][supernet.logits.variant_of(cell.steps[0])]
        return total

    pairs = [space.pairs(i) for i in range(space.cells)]
    best: tuple[float, Genotype] | None = None
    for chosen in itertools.product(*pairs):
        for variants in itertools.product(supernet.logits.variants, repeat=space.cells):
            cells = [
                {
                    "inputs": pair,
                    "steps": [{"inputs": ("y", "x") if swapped else ("x", "y"), "primitive": primitive}],
                }
                for pair, (primitive, swapped) in zip(chosen, variants, strict=True)
            ]
            genotype = Genotype(space=space, cells=cells)  # type: ignore[arg-type]
            if len(genotype.modalities_read()) < len(space.modalities) or len(set(chosen)) < len(chosen):
                continue
            if best is None or score(genotype) > best[0] + 1e-12:
                best = (score(genotype), genotype)
    assert best is not None
    return best[1]


def test_decoding_equals_brute_force() -> None:
    space = space_of(primitives=("sum", "attention"))
    supernet = FusionSupernet(space, SHAPES)
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        for logits in supernet.architecture_parameters():
            logits.copy_(3 * torch.randn(logits.shape, generator=generator))
        assert supernet.decode().model_dump() == brute_force(supernet).model_dump()


def test_decoding_can_pick_earlier_cells_and_leave_out_a_modality_when_asked() -> None:
    space = space_of()
    supernet = FusionSupernet(space, SHAPES)
    supernet.logits.alpha[0].data[0, 0] = 9.0  # x = image/0
    supernet.logits.alpha[0].data[1, 0] = 9.0  # y = image/1
    supernet.logits.alpha[1].data[0, 0] = 9.0
    supernet.logits.alpha[1].data[1, -1] = 9.0  # y = cell0
    free = supernet.decode(coverage=False)
    assert [cell.inputs for cell in free.cells] == [("image/0", "image/1"), ("image/0", "cell0")]
    assert free.modalities_read() == {"image"}
    assert supernet.decode().modalities_read() == {"image", "audio", "text"}


def test_sampling_follows_the_weights() -> None:
    space = space_of(inputs=("image/0", "image/1"), cells=1, primitives=("sum", "linear_glu"))
    supernet = FusionSupernet(space, SHAPES)
    supernet.logits.gamma[0].data[0] = torch.tensor([0.0, 1.0])
    generator = torch.Generator().manual_seed(0)
    drawn = [supernet.sample(generator).cells[0].steps[0].primitive for _ in range(2000)]
    assert abs(drawn.count("linear_glu") / 2000 - torch.sigmoid(torch.tensor(1.0)).item()) < 0.03


def test_published_rule_names_its_limits() -> None:
    with pytest.raises(GenotypeError, match="needs pairing='tied'"):
        FusionSupernet(space_of(), SHAPES).decode("bmnas")
    crowded = space_of(inputs=("image/0", "text/0"), cells=2)
    with pytest.raises(GenotypeError, match="no inputs for cell 1"):
        FusionSupernet(crowded, SHAPES, pairing="tied").decode("bmnas")


def test_another_space_is_refused() -> None:
    genotype = space_of(channels=16).sample(torch.Generator().manual_seed(0))
    with pytest.raises(GenotypeError, match="channels"):
        FusionSupernet(space_of(), SHAPES).set_architecture(genotype)
    with pytest.raises(GenotypeError, match="'text/0'"):
        FusionSupernet(space_of(), {"image/0": (3,), "image/1": (3,), "audio/0": (4,)})
