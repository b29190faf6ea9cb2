from itertools import pairwise

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from lightning_mmnas.data import ModalitySpec
from lightning_mmnas.encoders import Encoder, FramewiseEncoder, ImageEncoder, TorchvisionVideoEncoder, VideoEncoder
from lightning_mmnas.encoders.base import Encoder as Base
from lightning_mmnas.errors import CheckpointError, ConfigError, DataError


def spec(*shape: int) -> ModalitySpec:
    return ModalitySpec("video", shape, torch.uint8)


def pixels(*shape: int) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


@pytest.mark.parametrize("shape", [(3, 8, 64, 64), (1, 5, 17, 30), (3, 1, 16, 16), (3, 32, 24, 24)])
def test_small_encoder_has_the_announced_shapes(shape: tuple[int, ...]) -> None:
    encoder = VideoEncoder(spec(*shape))
    assert isinstance(encoder, Encoder)
    features = encoder(pixels(2, *shape))
    assert [tuple(feature.shape[1:]) for feature in features] == encoder.feature_shapes


def test_bytes_and_unit_floats_are_the_same_pixels() -> None:
    x = pixels(2, 3, 4, 16, 16)
    image = FramewiseEncoder(spec(3, 4, 16, 16), lambda frame: ImageEncoder(frame, channels=(4, 8)))
    for encoder in (VideoEncoder(spec(3, 4, 16, 16)).eval(), image.eval()):
        for first, second in zip(encoder(x), encoder(x.float() / 255), strict=True):
            torch.testing.assert_close(first, second)


def test_a_block_is_a_convolution_in_space_and_one_in_time() -> None:
    encoder = VideoEncoder(spec(1, 4, 8, 8), channels=(3,)).eval()
    block = encoder.blocks[0]
    assert isinstance(block, nn.Sequential)
    space, time = block[0].weight, block[3].weight
    assert isinstance(space, Tensor)
    assert isinstance(time, Tensor)
    x = torch.rand(2, 1, 4, 8, 8)
    frames = torch.stack([nn.functional.conv2d(x[:, :, i], space[:, :, 0], stride=2, padding=1) for i in range(4)], 2)
    frames = (frames / (1 + 1e-5) ** 0.5).relu()
    padded = nn.functional.pad(frames, (0, 0, 0, 0, 1, 1))
    mixed = sum(torch.einsum("bcthw,oc->bothw", padded[:, :, i : i + 4], time[:, :, i, 0, 0]) for i in range(3))
    assert isinstance(mixed, Tensor)
    torch.testing.assert_close(encoder(x)[0], (mixed / (1 + 1e-5) ** 0.5).relu())


@pytest.mark.parametrize("name", ["r3d_18", "s3d", pytest.param("swin3d_t", marks=pytest.mark.slow)])
def test_torchvision_models(name: str) -> None:
    encoder = TorchvisionVideoEncoder(spec(1, 8, 64, 64), name).eval()
    with torch.no_grad():
        features = encoder(pixels(1, 1, 8, 64, 64))
    shapes = [tuple(feature.shape[1:]) for feature in features]
    assert shapes == encoder.feature_shapes
    assert len(shapes) == 4
    assert all(len(shape) == 4 for shape in shapes)
    assert [shape[0] for shape in shapes] == sorted(shape[0] for shape in shapes)
    assert all(a[2] > b[2] for a, b in pairwise(shapes))  # a resolution each


@pytest.mark.slow
def test_mvit() -> None:
    encoder = TorchvisionVideoEncoder(spec(3, 16, 224, 224), "mvit_v2_s").eval()
    assert [shape[0] for shape in encoder.feature_shapes] == [96, 192, 384, 768]
    assert [shape[1] - 1 for shape in encoder.feature_shapes] == [8 * side**2 for side in (56, 28, 14, 7)]


def test_mvit_takes_its_own_size_only() -> None:
    with pytest.raises(DataError, match=r"mvit_v2_s takes clips of shape \(1 or 3, 16, 224, 224\)"):
        TorchvisionVideoEncoder(spec(3, 8, 64, 64), "mvit_v2_s")


def test_taps_are_those_of_the_model(tmp_path: object) -> None:
    torch.manual_seed(0)
    model = models.get_model("r3d_18")
    path = f"{tmp_path}/weights.safetensors"
    save_file(model.state_dict(), path)
    encoder = TorchvisionVideoEncoder(spec(3, 8, 32, 32), "r3d_18", layers=["stem", "layer2"], weights=path).eval()
    x = torch.rand(1, 3, 8, 32, 32)
    mean = torch.tensor([0.43216, 0.394666, 0.37645]).view(3, 1, 1, 1)  # Kinetics-400, torchvision's documentation
    std = torch.tensor([0.22803, 0.22145, 0.216989]).view(3, 1, 1, 1)
    model.eval()
    with torch.no_grad():
        stem = model.stem((x - mean) / std)
        wanted = [stem, model.layer2(model.layer1(stem))]
        for feature, reference in zip(encoder(x), wanted, strict=True):
            torch.testing.assert_close(feature, reference)
    with pytest.raises(CheckpointError, match="another architecture"):
        TorchvisionVideoEncoder(spec(3, 8, 32, 32), "mc3_18", weights=path)


def test_frame_by_frame() -> None:
    encoder = FramewiseEncoder(spec(3, 5, 16, 16), ImageEncoder).eval()
    assert isinstance(encoder.encoder, ImageEncoder)
    x = pixels(2, 3, 5, 16, 16)
    features = encoder(x)
    assert [tuple(feature.shape[1:]) for feature in features] == encoder.feature_shapes
    for i in range(5):
        for feature, reference in zip(features, encoder.encoder(x[:, :, i]), strict=True):
            torch.testing.assert_close(feature[:, :, i], reference)


def test_vectors_frame_by_frame() -> None:
    class Mean(Base):
        def __init__(self, frame: ModalitySpec) -> None:
            super().__init__()
            assert frame == ModalitySpec("image", (1, 16, 16), torch.uint8)

        @property
        def feature_shapes(self) -> list[tuple[int, ...]]:
            return [(1,)]

        def forward(self, x: Tensor) -> list[Tensor]:
            return [x.float().mean((2, 3))]

    encoder = FramewiseEncoder(spec(1, 5, 16, 16), Mean)
    x = pixels(2, 1, 5, 16, 16)
    assert encoder.feature_shapes == [(1, 5)]
    torch.testing.assert_close(encoder(x)[0], x.float().mean((3, 4)))


def test_under_autocast() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert VideoEncoder(spec(3, 4, 16, 16))(pixels(2, 3, 4, 16, 16))[-1].isfinite().all()


def test_refusals() -> None:
    image = ModalitySpec("image", (3, 32, 32))
    for build in (VideoEncoder, TorchvisionVideoEncoder, lambda s: FramewiseEncoder(s, ImageEncoder)):
        with pytest.raises(DataError, match=r"takes video of shape .*got kind 'image'"):
            build(image)
    with pytest.raises(ConfigError, match="channels must be positive"):
        VideoEncoder(spec(3, 4, 16, 16), channels=())
    with pytest.raises(DataError, match="too small for 4 blocks"):
        VideoEncoder(spec(3, 4, 4, 4))
    with pytest.raises(ConfigError, match="no video model 'resnet18'; it has"):
        TorchvisionVideoEncoder(spec(3, 4, 16, 16), "resnet18")
    with pytest.raises(ConfigError, match="has no node 'layer9'"):
        TorchvisionVideoEncoder(spec(3, 4, 16, 16), layers=["layer9"])
    with pytest.raises(DataError, match="expected video of shape"):
        VideoEncoder(spec(3, 4, 16, 16))(torch.zeros(1, 1, 4, 16, 16))
