"""Encoders of vectors."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.features import FeatureEncoder, Maxout, MaxoutEncoder
from lightning_mmnas.errors import ConfigError, DataError

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
    encoder = MaxoutEncoder(SPEC, widths=(6, 4), pieces=3).eval()
    x = torch.randn(5, 10)
    first, second = encoder(x)
    assert (first.shape, second.shape) == ((5, 6), (5, 4))
    norm, _, linear, _ = encoder.blocks[0].children()
    reference = torch.stack([linear(norm(x))[:, piece::3] for piece in range(3)]).amax(0)
    torch.testing.assert_close(first, reference)


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
