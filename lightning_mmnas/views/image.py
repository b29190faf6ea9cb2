"""Augmentations of images on whole batches, on their device; every sample draws its own parameters.

torchvision's transforms (v2) draw one set of parameters per call, so a batch would be augmented alike; lightly's work
on single pictures. These draw per sample and run as a few operations on the whole batch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.data.spec import to_unit
from lightning_mmnas.views.ranges import check, look_once

_LUMA = (0.299, 0.587, 0.114)
"""Weights of R, G and B in grey (ITU-R 601-2), as torchvision has them."""


def uniform(b: int, low: float, high: float, device: torch.device | None) -> Tensor:
    """Draws b numbers between low and high, shape (b,)."""
    return low + (high - low) * torch.rand(b, device=device)


def random_crops(b: int, scale: float, ratio: float, device: torch.device | None) -> Tensor:
    """Draws b windows as `RandomResizedCrop` does, in shares of the picture, shape (b, 4): centre x, y, width, height.

    Args:
        b: Number of windows.
        scale: Least share of the area, in (0, 1]; the greatest is 1.
        ratio: Greatest proportion of width to height, relative to the picture's own; the least is 1 / ratio.
        device: Where to draw.
    """
    area = uniform(b, scale, 1.0, device)
    proportion = torch.exp(uniform(b, -math.log(ratio), math.log(ratio), device))
    width, height = ((area * p).sqrt().clamp(max=1.0) for p in (proportion, 1 / proportion))
    x = width / 2 + (1 - width) * torch.rand(b, device=device)
    y = height / 2 + (1 - height) * torch.rand(b, device=device)
    return torch.stack([x, y, width, height], dim=1)


def warp(x: Tensor, windows: Tensor, flip: Tensor, degrees: Tensor, shear: Tensor | None = None) -> Tensor:
    """Cuts a window out of each picture, turns, slants and mirrors it, and brings it to the full size.

    One bilinear interpolation does all of it. Beyond the border, the border is repeated. Positions are worked out in
    float32 elementwise, so that autocast does not round them.

    Args:
        x: Pixels, float, shape (b, c, h, w).
        windows: Windows as of `random_crops`, shape (b, 4).
        flip: Which pictures are mirrored left to right, bool, shape (b,).
        degrees: Angle of rotation, shape (b,).
        shear: Angle by which upright lines are slanted, in degrees, shape (b,); None: 0.

    Returns:
        Pixels of the same shape.
    """
    h, w = x.shape[-2:]
    centre_x, centre_y, width, height = (side.view(-1, 1, 1) for side in windows.float().unbind(1))
    angle = degrees.view(-1, 1, 1) * (math.pi / 180)
    mirrored = torch.where(flip, -1.0, 1.0).view(-1, 1, 1)
    # Where the pixels of the result lie about the centre, in pixels, x as (b, 1, w) and y as (b, h, 1).
    right = width * mirrored * (torch.arange(w, device=x.device) - (w - 1) / 2)
    down = height * (torch.arange(h, device=x.device).unsqueeze(1) - (h - 1) / 2)
    if shear is not None:
        right = right + down * (shear.view(-1, 1, 1) * (math.pi / 180)).tan()
    # grid_sample counts from -1 at one border of the picture to 1 at the other.
    grid_x = 2 * (angle.cos() * right - angle.sin() * down) / w + 2 * centre_x - 1
    grid_y = 2 * (angle.sin() * right + angle.cos() * down) / h + 2 * centre_y - 1
    grid = torch.stack([grid_x, grid_y], dim=3)
    return F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False).to(x.dtype)


def grey(x: Tensor) -> Tensor:
    """Grey value of pixels, (b, 1 or 3, *rest) -> (b, 1, *rest)."""
    if x.shape[1] == 1:
        return x
    weights = torch.tensor(_LUMA, device=x.device, dtype=x.dtype).view(1, 3, *[1] * (x.ndim - 2))
    return (x * weights).sum(1, keepdim=True)


def color_jitter(x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Multiplies brightness, then contrast, then saturation; after each, pixels are brought back into [0, 1].

    Args:
        x: Pixels in [0, 1], shape (b, 1 or 3, *rest).
        brightness: Factor of each sample, shape (b,).
        contrast: Factor of the distance to the sample's mean grey, shape (b,).
        saturation: Factor of the distance to the pixel's own grey, shape (b,); without effect on grey pictures.
    """
    shape = (-1, *[1] * (x.ndim - 1))
    x = (x * brightness.view(shape)).clamp(0, 1)
    mean = grey(x).flatten(1).mean(1).view(shape)
    x = torch.lerp(mean, x, contrast.view(shape)).clamp(0, 1)
    if x.shape[1] == 3:
        x = torch.lerp(grey(x).expand_as(x), x, saturation.view(shape)).clamp(0, 1)
    return x


def blur(x: Tensor, sigma: Tensor, greatest: float) -> Tensor:
    """Gaussian blur with a width of its own for each sample; the border is reflected.

    Args:
        x: Pixels, shape (b, c, h, w).
        sigma: Standard deviation in pixels, >= 0, shape (b,); 0 leaves the picture as it is.
        greatest: What no sigma exceeds, in pixels; the kernel reaches 3 times as far.
    """
    h, w = x.shape[-2:]
    radius = min(math.ceil(3 * greatest), h - 1, w - 1)
    steps = torch.arange(-radius, radius + 1, device=x.device)
    kernel = torch.exp(-0.5 * (steps / sigma.clamp(min=1e-3).unsqueeze(1)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(x.dtype)
    weights = [weight.view(-1, 1, 1, 1) for weight in kernel.unbind(1)]
    # A sum of shifted pictures: a kernel of its own for each sample makes convolutions slow, and autocast rounds them.
    padded = F.pad(x, (radius, radius, radius, radius), mode="reflect")
    rows = torch.zeros_like(padded[..., :w])
    for i, weight in enumerate(weights):
        rows = torch.addcmul(rows, weight, padded[..., i : i + w])
    blurred = torch.zeros_like(x)
    for i, weight in enumerate(weights):
        blurred = torch.addcmul(blurred, weight, rows[..., i : i + h, :])
    return blurred


class ImageViews(nn.Module):
    """One random view of images: the augmentations of SimCLR, without hue.

    In this order: crop with flip, rotation, shift and shear; colour jitter; grey; blur; noise. An argument of 0 (crop:
    1) switches its augmentation off. Random in evaluation mode too. Switch `flip` off where left and right matter, as
    for digits, for which small rotations, shifts and shears are made.

    Source: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, appendix A.

    Args:
        crop: Least share of the area that a crop keeps, in (0, 1]; see `random_crops`.
        ratio: Greatest change of proportions of a crop, >= 1.
        flip: Probability of mirroring left to right, in [0, 1].
        rotation: Greatest angle of rotation in degrees, in [0, 180].
        translation: Greatest shift to either side, as a share of the picture, in [0, 1].
        shear: Greatest angle by which upright lines are slanted, in degrees, in [0, 45].
        brightness: Brightness factors are uniform in 1 ± this, in [0, 1]; see `color_jitter`.
        contrast: Likewise for contrast.
        saturation: Likewise for saturation.
        gray: Probability of a picture without colour, in [0, 1].
        blur: Probability of a blur with a standard deviation between 0.1 and `blur_sigma`, in [0, 1].
        blur_sigma: Greatest standard deviation of the blur, in pixels.
        noise: Standard deviation of Gaussian noise on pixels in [0, 1], >= 0.

    Raises:
        ConfigError: An argument is out of its range.

    Examples:
        >>> ImageViews()(torch.zeros(8, 3, 32, 32, dtype=torch.uint8)).dtype
        torch.float32
    """

    def __init__(
        self,
        crop: float = 0.4,
        ratio: float = 4 / 3,
        flip: float = 0.5,
        rotation: float = 0.0,
        translation: float = 0.0,
        shear: float = 0.0,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        gray: float = 0.2,
        blur: float = 0.0,
        blur_sigma: float = 1.0,
        noise: float = 0.0,
    ) -> None:
        super().__init__()
        check("crop", crop, 0 < crop <= 1, "in (0, 1]")
        check("ratio", ratio, ratio >= 1, "at least 1")
        check("rotation", rotation, 0 <= rotation <= 180, "in [0, 180] degrees")
        check("translation", translation, 0 <= translation <= 1, "in [0, 1]")
        check("shear", shear, 0 <= shear <= 45, "in [0, 45] degrees")
        check("blur_sigma", blur_sigma, blur_sigma > 0, "above 0")
        check("noise", noise, noise >= 0, "at least 0")
        shares = {"flip": flip, "brightness": brightness, "contrast": contrast, "saturation": saturation}
        for name, value in {**shares, "gray": gray, "blur": blur}.items():
            check(name, value, 0 <= value <= 1, "in [0, 1]")
        self.crop = crop
        self.ratio = ratio
        self.flip = flip
        self.rotation = rotation
        self.translation = translation
        self.shear = shear
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.gray = gray
        self.blur = blur
        self.blur_sigma = blur_sigma
        self.noise = noise

    def forward(self, x: Tensor) -> Tensor:
        """Returns a view of pixels (b, 1 or 3, h, w), uint8 or in [0, 1], as float32 in [0, 1] of the same shape.

        Raises:
            DataError: The first batch holds other pixels.
        """
        look_once(self, x, "a batch of images")
        x = to_unit(x).float()
        b, device = len(x), x.device
        if self.crop < 1 or max(self.flip, self.rotation, self.translation, self.shear) > 0:
            x = self._warp(x)
        if self.brightness > 0 or self.contrast > 0 or self.saturation > 0:
            spreads = (self.brightness, self.contrast, self.saturation)
            x = color_jitter(x, *(uniform(b, 1 - spread, 1 + spread, device) for spread in spreads))
        if self.gray > 0 and x.shape[1] == 3:
            chosen = (torch.rand(b, device=device) < self.gray).view(-1, 1, 1, 1)
            x = torch.where(chosen, grey(x), x)
        if self.blur > 0:
            sigma = uniform(b, min(0.1, self.blur_sigma), self.blur_sigma, device)
            x = blur(x, torch.where(torch.rand(b, device=device) < self.blur, sigma, 0.0), self.blur_sigma)
        if self.noise > 0:
            x = (x + self.noise * torch.randn_like(x)).clamp(0, 1)
        return x

    def _warp(self, x: Tensor) -> Tensor:
        b, device = len(x), x.device
        windows = random_crops(b, self.crop, self.ratio if self.crop < 1 else 1.0, device)
        if self.translation > 0:
            windows[:, :2] += self.translation * (2 * torch.rand(b, 2, device=device) - 1)
        flip = torch.rand(b, device=device) < self.flip
        degrees = uniform(b, -self.rotation, self.rotation, device)
        shear = uniform(b, -self.shear, self.shear, device) if self.shear > 0 else None
        return warp(x, windows, flip, degrees, shear)

    def extra_repr(self) -> str:
        """Lists the arguments."""
        where = ("crop", "ratio", "flip", "rotation", "translation", "shear")
        what = ("brightness", "contrast", "saturation", "gray", "blur", "blur_sigma", "noise")
        return ", ".join(f"{name}={getattr(self, name)}" for name in where + what)
