"""Augmentations of clips on whole batches, on their device; all frames of a clip are augmented alike.

Random numbers come from torch's global generator of the device.
"""

import torch
from torch import Tensor, nn

from lightning_mmnas.data.spec import to_unit
from lightning_mmnas.views.image import color_jitter, grey, random_crops, uniform, warp
from lightning_mmnas.views.ranges import check, look_once


def crop_time(x: Tensor, smallest: float) -> Tensor:
    """Cuts out a random stretch of time and stretches it to the full length, by the nearest frames.

    Args:
        x: Clips of shape (b, c, t, h, w).
        smallest: Least share of the time that is kept, in (0, 1].
    """
    b, _, t = x.shape[:3]
    share = uniform(b, smallest, 1.0, x.device).unsqueeze(1)
    start = (1 - share) * torch.rand(b, 1, device=x.device)
    steps = torch.arange(t, device=x.device)
    index = (start * (t - 1) + share * steps).round().long().clamp(0, t - 1)  # (b, t)
    return x.gather(2, index.view(b, 1, t, 1, 1).expand_as(x))


class VideoViews(nn.Module):
    """One random view of clips.

    In this order: crop in time, crop in space with flip, colour jitter, grey; each the same for all frames of a clip.
    An argument of 0 (crops: 1) switches its augmentation off. Random in evaluation mode too. Switch `flip` off where
    left and right matter, as for gestures; depth has brightness and contrast, but no colour.

    Args:
        time_crop: Least share of the time that a crop keeps, in (0, 1]; see `crop_time`.
        crop: Least share of the area that a crop keeps, in (0, 1]; see `random_crops`.
        ratio: Greatest change of proportions of a crop, >= 1.
        flip: Probability of mirroring left to right, in [0, 1].
        brightness: Brightness factors are uniform in 1 ± this, in [0, 1]; see `color_jitter`.
        contrast: Likewise for contrast, about the clip's mean grey.
        saturation: Likewise for saturation.
        gray: Probability of a clip without colour, in [0, 1].

    Raises:
        ConfigError: An argument is out of its range.

    Examples:
        >>> VideoViews()(torch.zeros(4, 3, 8, 32, 32, dtype=torch.uint8)).shape
        torch.Size([4, 3, 8, 32, 32])
    """

    def __init__(
        self,
        time_crop: float = 0.6,
        crop: float = 0.5,
        ratio: float = 4 / 3,
        flip: float = 0.5,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        gray: float = 0.2,
    ) -> None:
        super().__init__()
        check("time_crop", time_crop, 0 < time_crop <= 1, "in (0, 1]")
        check("crop", crop, 0 < crop <= 1, "in (0, 1]")
        check("ratio", ratio, ratio >= 1, "at least 1")
        shares = {"flip": flip, "brightness": brightness, "contrast": contrast, "saturation": saturation, "gray": gray}
        for name, value in shares.items():
            check(name, value, 0 <= value <= 1, "in [0, 1]")
        self.time_crop = time_crop
        self.crop = crop
        self.ratio = ratio
        self.flip = flip
        self.brightness = brightness
        self.contrast = contrast
        self.saturation = saturation
        self.gray = gray

    def forward(self, x: Tensor) -> Tensor:
        """Returns a view of pixels (b, 1 or 3, t, h, w), uint8 or in [0, 1], as float32 in [0, 1] of the same shape.

        Raises:
            DataError: The first batch holds other pixels.
        """
        look_once(self, x, "a batch of clips")
        if self.time_crop < 1:
            x = crop_time(x, self.time_crop)
        x = to_unit(x).float()
        b, device = len(x), x.device
        if self.crop < 1 or self.flip > 0:
            windows = random_crops(b, self.crop, self.ratio if self.crop < 1 else 1.0, device)
            flip = torch.rand(b, device=device) < self.flip
            planes = warp(x.flatten(1, 2), windows, flip, torch.zeros(b, device=device))
            x = planes.view_as(x)
        if self.brightness > 0 or self.contrast > 0 or self.saturation > 0:
            spreads = (self.brightness, self.contrast, self.saturation)
            x = color_jitter(x, *(uniform(b, 1 - spread, 1 + spread, device) for spread in spreads))
        if self.gray > 0 and x.shape[1] == 3:
            chosen = (torch.rand(b, device=device) < self.gray).view(-1, 1, 1, 1, 1)
            x = torch.where(chosen, grey(x), x)
        return x

    def extra_repr(self) -> str:
        """Lists the arguments."""
        return (
            f"time_crop={self.time_crop}, crop={self.crop}, ratio={self.ratio:.3g}, flip={self.flip}, "
            f"brightness={self.brightness}, contrast={self.contrast}, saturation={self.saturation}, gray={self.gray}"
        )
