"""Late fusion: which features it reads, and its numbers against the formula."""

import pytest
import torch
from torch import Tensor, nn

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.fusion.readout import LateBranch, mean_max_pool

SHAPES = {"image/0": (3, 4, 4), "image/1": (5, 2, 2), "audio/0": (2, 9), "text": (6,)}


def features() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(7, *shape, generator=generator) for name, shape in SHAPES.items()}


@pytest.mark.parametrize(
    ("arguments", "read"),
    [
        ({}, ["image/1", "audio/0", "text"]),
        ({"all_levels": True}, ["image/0", "image/1", "audio/0", "text"]),
        ({"modalities": ["image"]}, ["image/1"]),
        ({"modalities": ["image"], "all_levels": True}, ["image/0", "image/1"]),
        ({"modalities": ["text"]}, ["text"]),
        ({"modalities": ["text", "audio"]}, ["audio/0", "text"]),
    ],
)
def test_features_read_and_width(arguments: dict[str, object], read: list[str]) -> None:
    fusion = LateFusion(SHAPES, hidden=None, **arguments)  # type: ignore[arg-type]
    width = sum(2 * SHAPES[name][0] for name in read)
    assert fusion.pooled.names == tuple(read)
    assert fusion.out_features == width
    given = features()
    joined = torch.cat([mean_max_pool(given[name]) for name in read], dim=1)
    deviation = (joined.var(0, unbiased=False) + 1e-5).sqrt()
    out = fusion(given)
    assert out.shape == (7, width)
    torch.testing.assert_close(out, (joined - joined.mean(0)) / deviation)
    for name in SHAPES.keys() - set(read):  # what is not read cannot matter
        given[name] = given[name] + 1
    torch.testing.assert_close(fusion(given), out)


def test_hidden_layer_is_linear_batch_norm_relu() -> None:
    torch.manual_seed(0)
    fusion = LateFusion(SHAPES, hidden=9)
    assert fusion.out_features == 9
    given = features()
    joined = torch.cat([mean_max_pool(given[name]) for name in ("image/1", "audio/0", "text")], dim=1)
    assert isinstance(fusion.neck, LateBranch)
    linear = fusion.neck[0]
    assert isinstance(linear, nn.Linear)
    hidden = joined @ linear.weight.T + linear.bias
    wanted = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(fusion(given), wanted.clamp(min=0))


def test_unknown_modality_is_named() -> None:
    with pytest.raises(ConfigError, match=r"modalities \['txet'\] are not in \['audio', 'image', 'text'\]"):
        LateFusion(SHAPES, modalities=["txet", "image"])
