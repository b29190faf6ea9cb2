"""Readouts against loops over samples, positions and channels."""

import pytest
import torch
from torch import Tensor, nn

from lightning_mmnas.fusion.readout import (
    BranchReadout,
    FlattenReadout,
    LateBranch,
    LateFeatures,
    NeckReadout,
    PoolReadout,
    build_readout,
    mean_max_pool,
)

B, L, C = 5, 3, 4


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def batch_norm(values: Tensor) -> Tensor:
    """Batch norm in train mode with its initial weights, column by column."""
    columns = []
    for column in values.unbind(1):
        centred = column - column.sum() / len(column)
        columns.append(centred / ((centred**2).sum() / len(column) + 1e-5).sqrt())
    return torch.stack(columns, dim=1)


def pooled(cells: Tensor) -> Tensor:
    rows = []
    for sample in cells:
        means = [sum(float(v) for v in sample[:, ch]) / len(sample) for ch in range(sample.shape[1])]
        maxima = [max(float(v) for v in sample[:, ch]) for ch in range(sample.shape[1])]
        rows.append(means + maxima)
    return torch.tensor(rows, dtype=torch.float64)


def test_flatten_is_channel_by_channel_after_norm_and_relu() -> None:
    cells = random(B, L, C)
    readout = FlattenReadout(C, L).double()
    readout.norm.weight.data += torch.rand(L, C)
    readout.norm.bias.data += torch.rand(L, C)
    out = readout(cells)
    assert out.shape == (B, readout.out_features) == (B, L * C)
    for b in range(B):
        mean = cells[b].sum() / (L * C)
        variance = ((cells[b] - mean) ** 2).sum() / (L * C)
        for ch in range(C):
            for position in range(L):
                value = (cells[b, position, ch] - mean) / (variance + 1e-5).sqrt()
                value = value * readout.norm.weight[position, ch] + readout.norm.bias[position, ch]
                wanted = max(0.0, value.item())
                assert out[b, ch * L + position].item() == pytest.approx(wanted, abs=1e-12)


def test_pool_is_batch_norm_of_mean_and_maximum() -> None:
    cells = random(B, L, C)
    readout = PoolReadout(C).double()
    assert readout.out_features == 2 * C
    torch.testing.assert_close(readout(cells), batch_norm(pooled(cells)))


def test_neck_is_one_hidden_layer_on_cells_and_late_features() -> None:
    readout = build_readout("neck", C, L, 6)
    assert isinstance(readout, NeckReadout)
    cells, late = torch.randn(5, L, C), torch.randn(5, 6)
    pooled = torch.cat([cells.mean(1), cells.amax(1)], 1)
    normalised = (pooled - pooled.mean(0)) / (pooled.var(0, unbiased=False) + 1e-5).sqrt()
    hidden = torch.cat([normalised, late], 1) @ readout.neck[0].weight.T + readout.neck[0].bias  # type: ignore[operator]
    expected = torch.relu((hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt())
    torch.testing.assert_close(readout(cells, late), expected, rtol=1e-4, atol=1e-5)


def test_branch_is_pooled_cells_beside_a_late_fusion_neck() -> None:
    cells, late = random(B, L, C), random(B, 6)
    readout = BranchReadout(C, late_features=6, width=7).double()
    assert readout.out_features == 2 * C + 7
    linear = readout.late[0]
    assert isinstance(linear, nn.Linear)
    neck = torch.stack([linear.weight @ sample + linear.bias for sample in late])
    wanted = torch.cat([batch_norm(pooled(cells)), batch_norm(neck).clamp(min=0)], dim=1)
    torch.testing.assert_close(readout(cells, late), wanted)


def test_mean_max_pool_of_every_kind_of_feature() -> None:
    sequence, image, vector = random(B, C, L), random(B, C, 2, 3), random(B, C)
    torch.testing.assert_close(mean_max_pool(sequence), pooled(sequence.transpose(1, 2)))
    torch.testing.assert_close(mean_max_pool(image), pooled(image.flatten(2).transpose(1, 2)))
    assert torch.equal(mean_max_pool(vector), torch.cat([vector, vector], dim=1))


def test_late_features_are_chosen_by_name_and_joined() -> None:
    features = {"image/0": random(B, 2, 3, 3), "image/1": random(B, 5, 2, 2), "text": random(B, 4)}
    late = LateFeatures(["image/1", "text"], {name: tuple(f.shape[1:]) for name, f in features.items()})
    assert late.out_features == 2 * (5 + 4)
    wanted = torch.cat([mean_max_pool(features["image/1"]), mean_max_pool(features["text"])], dim=1)
    assert torch.equal(late(features), wanted)


def test_late_features_of_inputs_that_are_channels_last() -> None:
    features = {"a": random(B, L, C), "b": random(B, L, C) + 1}
    late = LateFeatures(["a", "b"], None, channels=C)
    assert late.out_features == 4 * C
    torch.testing.assert_close(late(features), torch.cat([pooled(features["a"]), pooled(features["b"])], dim=1))


def test_readouts_by_name() -> None:
    assert isinstance(build_readout("flatten", C, L, 6), FlattenReadout)
    assert isinstance(build_readout("pool", C, L, 6), PoolReadout)
    branch = build_readout("branch", C, L, 6)
    assert isinstance(branch, BranchReadout)
    assert branch.out_features == 2 * C + 128
    assert LateBranch(6).out_features == 128
    for readout in (build_readout("flatten", C, L, 6), build_readout("pool", C, L, 6)):
        cells = random(B, L, C).float()
        torch.testing.assert_close(readout(cells, None), readout(cells))
