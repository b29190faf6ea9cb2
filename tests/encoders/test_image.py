"""Encoders of images: features of the right shapes, weights, normalisation."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.image import TAPS, ImageEncoder, TimmEncoder, TorchvisionEncoder
from lightning_mmnas.errors import CheckpointError, ConfigError, DataError
from lightning_mmnas.modules.frozen import FrozenEncoders

RGB = ModalitySpec("image", (3, 32, 32), torch.uint8)
GREY = ModalitySpec("image", (1, 28, 28), torch.uint8)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 144, 96), (1, 5, 9)])
def test_small_encoder_has_the_shapes_it_says(shape: tuple[int, ...]) -> None:
    encoder = ImageEncoder(ModalitySpec("image", shape, torch.uint8))
    features = encoder(torch.zeros(2, *shape, dtype=torch.uint8))
    assert [tuple(f.shape[1:]) for f in features] == encoder.feature_shapes


def test_bytes_and_floats_give_the_same() -> None:
    pixels = torch.randint(0, 256, (4, 1, 28, 28), dtype=torch.uint8)
    encoder = ImageEncoder(GREY)
    for of_bytes, of_floats in zip(encoder(pixels), encoder(pixels.float() / 255), strict=True):
        torch.testing.assert_close(of_bytes, of_floats)


@pytest.mark.parametrize("spec", [ModalitySpec("motion", (3, 8)), ModalitySpec("image", (4, 8, 8))])
def test_what_is_no_image_is_refused(spec: ModalitySpec) -> None:
    for make in (ImageEncoder, TorchvisionEncoder, TimmEncoder):
        with pytest.raises(DataError, match=r"takes images of shape \(1 or 3, h, w\)"):
            make(spec)


def test_too_many_blocks_or_none() -> None:
    with pytest.raises(DataError, match="too small for 4 blocks"):
        ImageEncoder(ModalitySpec("image", (1, 4, 4)), channels=(8, 8, 8, 8))
    with pytest.raises(ConfigError, match="channels must be positive"):
        ImageEncoder(GREY, channels=())
    with pytest.raises(DataError, match=r"expected images of shape \(b, 1, h, w\)"):
        ImageEncoder(GREY)(torch.zeros(2, 3, 28, 28))


def test_resnet_features_are_those_of_its_stages() -> None:
    torch.manual_seed(0)
    encoder = TorchvisionEncoder(RGB, "resnet18").eval()
    torch.manual_seed(0)
    model = models.resnet18().eval()
    pixels = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x = (pixels.float() / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
    with torch.no_grad():
        for stage, feature in zip(
            (model.layer1, model.layer2, model.layer3, model.layer4), encoder(pixels), strict=True
        ):
            x = stage(x)
            torch.testing.assert_close(feature, x)
    assert [tuple(f.shape[1:]) for f in encoder(pixels)] == encoder.feature_shapes


@pytest.mark.slow
def test_vgg_is_tapped_as_by_bm_nas() -> None:
    assert TAPS["vgg19"] == ("features.20", "features.26", "features.33", "features.36")
    torch.manual_seed(0)
    encoder = TorchvisionEncoder(RGB, "vgg19").eval()
    torch.manual_seed(0)
    layers = models.vgg19().eval().features
    assert not any("classifier" in name for name, _ in encoder.named_parameters())
    x = torch.rand(1, 3, 32, 32)
    taps = dict(zip((20, 26, 33, 36), encoder(x), strict=True))
    x = (x - encoder.get_buffer("mean")) / encoder.get_buffer("std")
    for number, layer in enumerate(layers):
        x = layer(x)
        if number in taps:
            torch.testing.assert_close(taps[number], x)


def test_any_model_by_its_nodes_and_grey_pictures() -> None:
    encoder = TorchvisionEncoder(
        ModalitySpec("image", (1, 32, 32)), "squeezenet1_1", layers=["features.3", "features.12"]
    )
    assert encoder.feature_shapes == [(128, 7, 7), (512, 1, 1)]


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_local_weights_of_a_whole_model(tmp_path: Path, suffix: str) -> None:
    model = models.resnet18(num_classes=5)  # its classifier is not that of ImageNet
    path = tmp_path / f"mine{suffix}"
    state = model.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    encoder = TorchvisionEncoder(RGB, "resnet18", weights=str(path))
    assert torch.equal(encoder.state_dict()["extractor.layer4.1.conv2.weight"], model.layer4[1].conv2.weight)
    with pytest.raises(CheckpointError, match="another architecture"):
        TorchvisionEncoder(RGB, "resnet50", weights=str(path))


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match="no classification model 'resnet19'"):
        TorchvisionEncoder(RGB, "resnet19")
    with pytest.raises(ConfigError, match="'resnet18' has no node 'layer9'"):
        TorchvisionEncoder(RGB, "resnet18", layers=["layer9"])
    with pytest.raises(ConfigError, match="'alexnet' has no preset layers"):
        TorchvisionEncoder(RGB, "alexnet")
    with pytest.raises(CheckpointError, match="no weights 'IMAGENET1K_V7'"):
        TorchvisionEncoder(RGB, "resnet18", weights="IMAGENET1K_V7")
    with pytest.raises(ConfigError, match="timm has no model 'resnet19'"):
        TimmEncoder(RGB, "resnet19")
    with pytest.raises(ConfigError, match=r"gives no features at levels \[9\]"):
        TimmEncoder(RGB, "resnet18", levels=[9])


def test_timm_levels_and_local_weights(tmp_path: Path) -> None:
    encoder = TimmEncoder(RGB, "resnet18", levels=[1, 2])
    assert encoder.feature_shapes == [(64, 8, 8), (128, 4, 4)]
    save_file(encoder.extractor.state_dict(), tmp_path / "w.safetensors")
    again = TimmEncoder(RGB, "resnet18", levels=[1, 2], weights=str(tmp_path / "w.safetensors"))
    x = torch.rand(2, 3, 32, 32)
    for first, second in zip(encoder.eval()(x), again.eval()(x), strict=True):
        assert torch.equal(first, second)


@pytest.mark.slow
def test_timm_models_that_put_channels_last() -> None:
    spec = ModalitySpec("image", (3, 224, 224))
    encoder = TimmEncoder(spec, "swin_tiny_patch4_window7_224", levels=[0, 3])
    assert encoder.feature_shapes == [(96, 56, 56), (768, 7, 7)]


def test_frozen_encoders_keep_their_statistics_and_take_bfloat16() -> None:
    encoder = TorchvisionEncoder(RGB, "resnet18")
    frozen = FrozenEncoders({"image": encoder})
    frozen.train()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with torch.autocast("cpu", torch.bfloat16):
        features = frozen({"image": torch.zeros(2, 3, 32, 32, dtype=torch.uint8)})
    assert set(features) == {"image/0", "image/1", "image/2", "image/3"}
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_building_does_not_touch_batch_norm() -> None:
    encoder = TorchvisionEncoder(RGB, "resnet18")
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(m.num_batches_tracked is not None and int(m.num_batches_tracked) == 0 for m in norms)
    assert encoder.training
