import pytest
import torch
from torch import nn

from lightning_mmnas.data import ModalitySpec
from lightning_mmnas.encoders import Encoder, MotionEncoder
from lightning_mmnas.errors import ConfigError, DataError


@pytest.mark.parametrize("channels", [1, 3, 6, 75])
@pytest.mark.parametrize("length", [8, 9, 50, 127, 128])
def test_features_have_the_announced_shapes(channels: int, length: int) -> None:
    encoder = MotionEncoder(ModalitySpec("motion", (channels, length)))
    features = encoder(torch.randn(2, channels, length))
    assert [tuple(f.shape[1:]) for f in features] == encoder.feature_shapes
    assert [f.shape[1] for f in features] == [32, 64, 64]
    assert isinstance(encoder, Encoder)


def test_blocks_are_convolution_norm_relu_of_stride_2() -> None:
    encoder = MotionEncoder(ModalitySpec("motion", (3, 16)), channels=(4, 5), kernel_size=7)
    x = torch.randn(6, 3, 16)
    first, second = encoder(x)
    for block, before, after in zip(encoder.blocks, (x, first), (first, second), strict=True):
        assert isinstance(block, nn.Sequential)
        weight = block[0].weight
        assert isinstance(weight, torch.Tensor)
        assert weight.shape[2:] == (1, 7)  # a 1-D convolution written as a 2-D one
        y = nn.functional.conv1d(before, weight.squeeze(2), stride=2, padding=3)
        y = (y - y.mean((0, 2), keepdim=True)) / (y.var((0, 2), correction=0, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(after, y.relu())


def test_weights_follow_the_seed() -> None:
    def build(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return MotionEncoder(ModalitySpec("motion", (3, 128))).state_dict()

    first, second, other = build(0), build(0), build(1)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["blocks.0.0.weight"], other["blocks.0.0.weight"])


@pytest.mark.parametrize(
    "spec",
    [
        ModalitySpec("image", (3, 128)),
        ModalitySpec("motion", (3, 7)),
        ModalitySpec("motion", (3, 8, 8)),
    ],
)
def test_other_modalities_are_refused(spec: ModalitySpec) -> None:
    with pytest.raises(DataError, match=r"takes motion of shape \(channels, t\) with t >= 8, got"):
        MotionEncoder(spec)


@pytest.mark.parametrize("shape", [(2, 4, 16), (2, 3, 7), (3, 16)])
def test_other_signals_are_refused(shape: tuple[int, ...]) -> None:
    encoder = MotionEncoder(ModalitySpec("motion", (3, 16)))
    with pytest.raises(DataError, match=r"expected signals of shape \(b, 3, t >= 8\), got"):
        encoder(torch.zeros(shape))


def test_bad_arguments() -> None:
    spec = ModalitySpec("motion", (3, 16))
    with pytest.raises(ConfigError, match="kernel_size must be odd and positive, got 4"):
        MotionEncoder(spec, kernel_size=4)
    with pytest.raises(ConfigError, match="channels must be positive numbers"):
        MotionEncoder(spec, channels=())
