"""Augmentations of images against torchvision's, one picture at a time."""

import pytest
import torch
from torchvision.transforms.v2 import functional as TF

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.views import ImageViews
from lightning_mmnas.views import image as views


def pictures(b: int = 6, c: int = 3, h: int = 12, w: int = 16) -> torch.Tensor:
    return torch.rand(b, c, h, w, generator=torch.Generator().manual_seed(0))


def whole(b: int) -> torch.Tensor:
    return torch.tensor([[0.5, 0.5, 1.0, 1.0]]).expand(b, -1)


def test_the_whole_window_is_the_picture_itself() -> None:
    x = pictures()
    no = torch.zeros(6, dtype=torch.bool)
    torch.testing.assert_close(views.warp(x, whole(6), no, torch.zeros(6)), x)
    torch.testing.assert_close(views.warp(x, whole(6), ~no, torch.zeros(6)), x.flip(-1))


def test_a_window_is_cut_out_and_enlarged() -> None:
    x = pictures(1)
    window = torch.tensor([[0.25, 0.75, 0.5, 0.5]])  # the lower left quarter
    found = views.warp(x, window, torch.zeros(1, dtype=torch.bool), torch.zeros(1))
    reference = TF.resize(x[..., 6:, :8], [12, 16], antialias=False)
    # At its edges the cut reads on into the picture, as the reference cannot.
    torch.testing.assert_close(found[..., 1:-1, 1:-1], reference[..., 1:-1, 1:-1])


@pytest.mark.parametrize("size", [(10, 10), (10, 20)])
def test_rotation_is_one_in_pixels(size: tuple[int, int]) -> None:
    x = pictures(2, 1, *size)
    angles = torch.tensor([180.0, 20.0])
    found = views.warp(x, whole(2), torch.zeros(2, dtype=torch.bool), angles)
    torch.testing.assert_close(found[0], x[0].rot90(2, (-2, -1)), atol=1e-4, rtol=0)
    # torchvision turns the picture the other way round, by the same angle.
    reference = TF.rotate(x[1], 20.0, interpolation=TF.InterpolationMode.BILINEAR)
    inner = (..., slice(4, 6), slice(size[1] // 2 - 1, size[1] // 2 + 1))
    torch.testing.assert_close(found[1][inner], reference[inner], atol=1e-4, rtol=0)


def test_crops_have_the_area_and_proportion_asked_for() -> None:
    x, y, width, height = views.random_crops(5000, 0.3, 4 / 3, None).unbind(1)
    assert (width * height).min() > 0.3 * 0.99
    assert (width / height).max() <= 4 / 3 + 1e-4
    assert (width / height).min() >= 3 / 4 - 1e-4
    for centre, side in ((x, width), (y, height)):
        assert (centre - side / 2).min() >= -1e-6
        assert (centre + side / 2).max() <= 1 + 1e-6
    assert (width * height).mean() == pytest.approx(0.65, abs=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_as_torchvision_has_them(channels: int) -> None:
    x = pictures(c=channels)
    brightness, contrast, saturation = torch.rand(3, 6) + 0.5
    found = views.color_jitter(x, brightness, contrast, saturation)
    for i, picture in enumerate(x):
        reference = TF.adjust_brightness(picture, brightness[i].item())
        reference = TF.adjust_contrast(reference, contrast[i].item())
        reference = TF.adjust_saturation(reference, saturation[i].item())
        torch.testing.assert_close(found[i], reference, atol=2e-3, rtol=0)


def test_blur_as_torchvision_has_it() -> None:
    x = pictures(3, 3, 15, 15)
    sigma = torch.tensor([0.8, 1.3, 0.0])
    found = views.blur(x, sigma)
    for i in range(2):
        reference = TF.gaussian_blur(x[i], [9, 9], [sigma[i].item()] * 2)
        torch.testing.assert_close(found[i], reference)
    torch.testing.assert_close(found[2], x[2])


def test_views_are_pixels_and_differ_by_sample() -> None:
    same = pictures(1).expand(16, -1, -1, -1)
    torch.manual_seed(0)
    module = ImageViews(rotation=10, blur=0.5, noise=0.1)
    y = module((same * 255).byte())
    assert y.dtype == torch.float32
    assert y.shape == same.shape
    assert 0 <= y.min() <= y.max() <= 1
    assert len({tuple(v.flatten().tolist()) for v in y}) == 16
    torch.manual_seed(0)
    assert torch.equal(module.eval()((same * 255).byte()), y)


def test_everything_off_is_the_picture() -> None:
    off = ImageViews(crop=1, flip=0, brightness=0, contrast=0, saturation=0, gray=0)
    x = (pictures() * 255).byte()
    torch.testing.assert_close(off(x), x.float() / 255)


def test_probabilities() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 2, 4).expand(2000, -1, -1, -1)
    off = {"crop": 1, "brightness": 0, "contrast": 0, "saturation": 0}
    flipped = ImageViews(flip=0.3, gray=0, **off)(x)
    assert (flipped - x).abs().flatten(1).amax(1).gt(1e-3).float().mean() == pytest.approx(0.3, abs=0.04)
    grey = ImageViews(flip=0, gray=0.2, **off)(x)
    colourless = (grey[:, 0] - grey[:, 1]).abs().flatten(1).amax(1) < 1e-6
    assert colourless.float().mean() == pytest.approx(0.2, abs=0.04)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("crop", 0), ("ratio", 0.5), ("flip", 2), ("rotation", 200), ("brightness", -1), ("blur_sigma", 0), ("noise", -1)],
)
def test_arguments_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{argument} must be"):
        ImageViews(**{argument: value})
