"""Augmentations of images against torchvision's, one picture at a time."""

import math

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


def slow_warp(
    picture: torch.Tensor, window: list[float], flip: bool, degrees: float, shear: float
) -> list[list[float]]:
    """Pixel by pixel: mirror, slant, scale, turn about the window's centre, then interpolate between four pixels."""
    h, w = picture.shape
    angle, slant = math.radians(degrees), math.tan(math.radians(shear))
    centre_x, centre_y, width, height = window
    rows = []
    for i in range(h):
        row = []
        for j in range(w):
            right = (j + 0.5 - w / 2) * width * (-1 if flip else 1)
            down = (i + 0.5 - h / 2) * height
            right += slant * down
            x = centre_x * w + math.cos(angle) * right - math.sin(angle) * down - 0.5
            y = centre_y * h + math.sin(angle) * right + math.cos(angle) * down - 0.5
            x, y = min(max(x, 0), w - 1), min(max(y, 0), h - 1)
            x0, y0 = min(int(x), w - 2), min(int(y), h - 2)
            total = 0.0
            for dy in (0, 1):
                for dx in (0, 1):
                    weight = abs(1 - dx - (x - x0)) * abs(1 - dy - (y - y0))
                    total += weight * float(picture[y0 + dy, x0 + dx])
            row.append(total)
        rows.append(row)
    return rows


def test_warp_is_the_slow_one() -> None:
    x = pictures(4, 1, 9, 14)
    windows = torch.tensor([[0.5, 0.5, 1, 1], [0.4, 0.6, 0.7, 0.5], [0.7, 0.3, 0.5, 0.6], [0.6, 0.5, 1, 1]])
    flip = torch.tensor([False, True, False, True])
    degrees, shear = torch.tensor([33.0, 0, -70, 12]), torch.tensor([0.0, 20, -5, 10])
    found = views.warp(x, windows, flip, degrees, shear)
    for i in range(4):
        reference = slow_warp(x[i, 0], windows[i].tolist(), bool(flip[i]), degrees[i].item(), shear[i].item())
        torch.testing.assert_close(found[i, 0], torch.tensor(reference), atol=1e-4, rtol=0)


def test_shear_slants_upright_lines_only() -> None:
    line = torch.zeros(1, 1, 21, 21)
    line[..., 10] = 1
    slanted = views.warp(line, whole(1), torch.zeros(1, dtype=torch.bool), torch.zeros(1), torch.tensor([45.0]))
    torch.testing.assert_close(slanted[0, 0], torch.eye(21).flip(1), atol=1e-4, rtol=0)
    level = line.mT.contiguous()
    same = views.warp(level, whole(1), torch.zeros(1, dtype=torch.bool), torch.zeros(1), torch.tensor([30.0]))
    torch.testing.assert_close(same, level, atol=1e-4, rtol=0)


def test_translations_are_uniform_to_either_side() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0.5 / 99, 1 - 0.5 / 99, 99).expand(3000, 1, 3, 99)  # pixel centres at their own position
    off = {"crop": 1.0, "flip": 0, "brightness": 0, "contrast": 0, "saturation": 0, "gray": 0}
    shift = (ImageViews(translation=0.2, **off)(ramp) - ramp)[:, 0, 1, 49]
    assert shift.abs().max() <= 0.2 + 1e-5
    assert shift.mean().abs() < 0.01  # standard error .002
    assert shift.std() == pytest.approx(0.4 / math.sqrt(12), abs=0.005)


EVERYTHING = ImageViews(rotation=10, translation=0.1, shear=10, blur=0.5, noise=0.1)


def test_views_are_not_rounded_by_autocast() -> None:
    x = pictures()
    torch.manual_seed(1)
    expected = EVERYTHING(x)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(EVERYTHING(x), expected)


def test_everything_is_made_on_the_device_of_the_batch() -> None:
    # Mixing the meta device with the CPU is an error, as mixing a GPU with it would be; so is waiting for a number.
    y = EVERYTHING(torch.empty(4, 3, 16, 12, dtype=torch.uint8, device="meta"))
    assert (y.device.type, y.shape, y.dtype) == ("meta", (4, 3, 16, 12), torch.float32)


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
    found = views.blur(x, sigma, 1.3)
    for i in range(2):
        reference = TF.gaussian_blur(x[i], [9, 9], [sigma[i].item()] * 2)
        torch.testing.assert_close(found[i], reference)
    torch.testing.assert_close(found[2], x[2])


def test_views_are_pixels_and_differ_by_sample() -> None:
    same = pictures(1).expand(16, -1, -1, -1)
    torch.manual_seed(0)
    y = EVERYTHING((same * 255).byte())
    assert y.dtype == torch.float32
    assert y.shape == same.shape
    assert 0 <= y.min() <= y.max() <= 1
    assert len({tuple(v.flatten().tolist()) for v in y}) == 16
    torch.manual_seed(0)
    assert torch.equal(EVERYTHING.eval()((same * 255).byte()), y)


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
    [
        ("crop", 0),
        ("ratio", 0.5),
        ("flip", 2),
        ("rotation", 200),
        ("translation", 2),
        ("shear", 50),
        ("brightness", -1),
        ("blur_sigma", 0),
        ("noise", -1),
    ],
)
def test_arguments_out_of_range(argument: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{argument} must be"):
        ImageViews(**{argument: value})
