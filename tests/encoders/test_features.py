"""Encoders of vectors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.features import FeatureEncoder, Maxout, MaxoutEncoder
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.modules.frozen import FrozenEncoders

SPEC = ModalitySpec("features", (10,))


def test_layers_build_on_each_other() -> None:
    encoder = FeatureEncoder(SPEC, widths=(7, 5)).eval()
    x = torch.randn(4, 10)
    first, second = encoder(x)
    assert encoder.feature_shapes == [(7,), (5,)]
    torch.testing.assert_close(first, encoder.blocks[0](x))
    torch.testing.assert_close(second, encoder.blocks[1](first))


def test_maxout_is_the_largest_of_its_pieces() -> None:
    assert Maxout(2)(torch.tensor([[1.0, 5.0, 7.0, -2.0]])).tolist() == [[5.0, 7.0]]
    encoder = MaxoutEncoder(SPEC, widths=(6, 4), pieces=3, norm_input=True).eval()
    x = torch.randn(5, 10)
    first, second = encoder(x)
    assert (first.shape, second.shape) == ((5, 6), (5, 4))
    norm, _, linear, _ = encoder.blocks[0].children()
    reference = torch.stack([linear(norm(x))[:, piece::3] for piece in range(3)]).amax(0)
    torch.testing.assert_close(first, reference)


def test_maxout_is_by_default_that_of_bm_nas() -> None:
    """Maxout(300, 64, 5), batch norm, dropout of a half, Maxout(64, 128, 5); both maxima are features."""
    encoder = MaxoutEncoder(ModalitySpec("features", (300,)))
    assert encoder.feature_shapes == [(64,), (128,)]
    shapes = [tuple(weight.shape) for weight in encoder.parameters()]
    assert shapes == [(320, 300), (320,), (64,), (64,), (640, 64), (640,)]
    x = torch.randn(7, 300)
    torch.manual_seed(0)
    first, second = encoder(x)
    (linear, _), (norm, dropout, deeper, _) = (block.children() for block in encoder.blocks)
    torch.testing.assert_close(first, linear(x).view(7, 64, 5).max(dim=2).values)
    normal = (first - first.mean(0)) / (first.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(norm(first), normal)
    assert isinstance(dropout, torch.nn.Dropout)
    assert dropout.p == 0.5
    torch.manual_seed(0)
    torch.testing.assert_close(second, deeper(dropout(normal)).view(7, 128, 5).max(dim=2).values)


def test_layers_of_the_mlp_are_linear_norm_relu() -> None:
    encoder = FeatureEncoder(SPEC, widths=(7,))
    x = torch.randn(6, 10)
    linear = next(encoder.blocks[0].children())
    y = linear(x)
    y = (y - y.mean(0)) / (y.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(encoder(x)[0], y.relu())


@pytest.mark.parametrize("make", [FeatureEncoder, MaxoutEncoder])
def test_frozen_encoders_keep_their_statistics_and_take_bfloat16(
    make: type[FeatureEncoder] | type[MaxoutEncoder],
) -> None:
    encoder = make(SPEC)
    frozen = FrozenEncoders({"vector": encoder})
    frozen.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        features = frozen({"vector": torch.randn(4, 10)})
    assert all(value.isfinite().all() and not value.requires_grad for value in features.values())
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_weights_come_back(tmp_path: Path) -> None:
    encoder = MaxoutEncoder(SPEC)
    save_file(encoder.state_dict(), tmp_path / "w.safetensors")
    again = MaxoutEncoder(SPEC, weights=str(tmp_path / "w.safetensors"))
    x = torch.randn(2, 10)
    assert torch.equal(encoder.eval()(x)[1], again.eval()(x)[1])


@pytest.mark.parametrize("make", [FeatureEncoder, MaxoutEncoder])
def test_refusals(make: type[FeatureEncoder] | type[MaxoutEncoder]) -> None:
    with pytest.raises(DataError, match=r"takes features of shape \(d,\)"):
        make(ModalitySpec("image", (1, 8, 8)))
    with pytest.raises(DataError, match=r"expected vectors of shape \(b, 10\), got \(2, 9\)"):
        make(SPEC)(torch.zeros(2, 9))
    with pytest.raises(ConfigError, match="widths must be positive"):
        make(SPEC, widths=())


def test_one_piece_is_refused() -> None:
    with pytest.raises(ConfigError, match="pieces must be at least 2"):
        MaxoutEncoder(SPEC, pieces=1)
    with pytest.raises(ConfigError, match=r"dropout must be in \[0, 1\), got 1"):
        MaxoutEncoder(SPEC, dropout=1.0)
