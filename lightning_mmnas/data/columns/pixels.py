"""Pictures of every mode as pixels in 8 bits: deep ones by their range, transparent ones over a background."""

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = Literal[1, 3]

BITS = "mmnas_bits"
"""Key of a picture's `info` under which the reader of its file notes the bits of a channel."""

_DEEP = ("I", "F")
"""Beginnings of the modes with more than 8 bits."""
_ALPHA = ("LA", "La", "PA", "RGBA", "RGBa")
_LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue."""
_SIXTEEN = 65535
NEAR_WHITE = 32
"""Mean distance from white, of 255, below which what can be seen of a picture would vanish on white."""
_UPPER = 32
"""Upper bytes of 16-bit colours below which fewer than 6 bits are left of them."""


def to_pixels(
    picture: "Image",
    size: tuple[int, int] | None,
    channels: Channels,
    maximum: float | None = None,
    clip: bool = False,
    background: int | None = None,
) -> Tensor:
    """A decoded picture as pixels.

    Args:
        picture: The picture, upright.
        size: (h, w) of the result; None: as it is.
        channels: 3 for RGB, 1 for grey.
        maximum: Value that becomes white where pixels are 16 or 32 bits or floats; None: see `white`.
        clip: Whether what is above `maximum` becomes white too; otherwise it is an error.
        background: Grey level behind what is transparent; None: see `flattened`.

    Returns:
        Pixels in [0, 255], uint8, shape (channels, h, w).

    Raises:
        ValueError: The range of its values is not known, or they are not in it.
    """
    from PIL import Image

    if is_deep(picture):
        return _deep_pixels(picture, size, channels, maximum, clip)
    if depth(picture) == 16:
        _check_upper_bytes(picture, maximum)
    picture = flattened(picture, background).convert("RGB" if channels == 3 else "L")
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8))
    return (pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)).contiguous()


def is_deep(picture: "Image") -> bool:
    """Whether the pixels are grey values of more than 8 bits."""
    return picture.mode.startswith(_DEEP)


def depth(picture: "Image") -> int:
    """Bits of a channel in the file, as its reader noted them or as the mode has them."""
    noted = picture.info.get(BITS)
    if isinstance(noted, int):
        return noted
    return {"1": 1, "I": 32, "F": 32}.get(picture.mode, 16 if is_deep(picture) else 8)


def as_tags_say(picture: "Image", meaning: int | None, types: tuple[int, ...]) -> "Image":
    """A picture whose greatest value is white, where Pillow leaves that to its reader.

    Args:
        picture: The picture, upright.
        meaning: What a TIFF file says of its values: 0 is white where that is 0.
        types: Types of the values, 2 for signed whole numbers.

    Raises:
        ValueError: It has signed bytes, which Pillow takes for unsigned ones.
    """
    from PIL import Image

    if 2 in types and depth(picture) == 8:
        raise ValueError("its pixels are signed bytes, which are not read; save them as 16 bits")
    if meaning != 0 or not picture.mode.startswith("I;16"):
        return picture
    turned = Image.fromarray(np.uint16(_SIXTEEN) - np.asarray(picture).astype(np.uint16))
    turned.info.update(picture.info)
    return turned


def white(picture: "Image", low: float, high: float) -> float:
    """The value of white in a deep picture where nobody has said it: 65535, or as many bits as its header names.

    Raises:
        ValueError: It is not known.
    """
    if picture.mode == "F":
        raise ValueError("its pixels are floating point, whose range is not known; set maximum, the value of white")
    if low < 0 or high > _SIXTEEN:
        raise ValueError(
            f"its pixels are from {low:.0f} to {high:.0f}, outside of 16 bits; set maximum, the value of white"
        )
    bits = depth(picture)
    return 2.0**bits - 1 if 8 < bits < 16 else _SIXTEEN


def is_transparent(picture: "Image") -> bool:
    """Whether a picture has an alpha channel, or a transparent colour."""
    palette = picture.palette.mode if picture.mode == "P" and picture.palette is not None else ""
    return picture.mode in _ALPHA or "transparency" in picture.info or palette.endswith("A")


def flattened(picture: "Image", background: int | None = None) -> "Image":
    """A picture without transparency, as it looks over white; over black where it is so bright that it would vanish.

    Transparency that is the same everywhere has no shape: it is dropped, unless `background` is given.
    """
    from PIL import Image

    if is_deep(picture) or not is_transparent(picture):
        return picture
    coloured = _coloured(picture)
    if background is None:
        if is_shapeless(picture):
            return coloured.convert("RGB")
        background = background_of(picture)
    behind = Image.new("RGBA", coloured.size, (background, background, background, 255))
    return Image.alpha_composite(behind, coloured).convert("RGB")


def background_of(picture: "Image") -> int:
    """The grey level that a picture is shown over: 255 for white, or 0 where what can be seen of it is nearly white."""
    from PIL import Image

    if is_deep(picture) or not is_transparent(picture):
        return 255
    small = _coloured(picture).resize((min(picture.width, 64), min(picture.height, 64)), Image.Resampling.BOX)
    values = np.asarray(small, dtype=np.float64)
    alpha = values[..., 3]
    distance = (255 - values[..., :3]).max(-1)
    return 0 if alpha.any() and (distance * alpha).sum() / alpha.sum() < NEAR_WHITE else 255


def is_shapeless(picture: "Image") -> bool:
    """Whether the opacity of a transparent picture is less than full, and the same everywhere."""
    alpha = np.asarray(_coloured(picture).getchannel("A"))
    return bool(alpha.min() == alpha.max() < 255)


def _coloured(picture: "Image") -> "Image":
    """A transparent picture in colours and opacity; Pillow does not convert the mode La by itself."""
    return (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")


def over_background(pixels: Tensor) -> Tensor:
    """Frames of colours and opacity in [0, 1], shape (t, 4, h, w), as they look; the rules are those of `flattened`.

    Returns:
        Colours over the background of the first frame, shape (t, 3, h, w).
    """
    colours, opacity = pixels[:, :3], pixels[:, 3:]
    if bool((opacity == opacity.flatten()[0]).all()):
        return colours
    distance, seen = (1 - colours[0]).amax(0), opacity[0, 0]
    bright = bool(seen.any()) and float((distance * seen).sum() / seen.sum()) < NEAR_WHITE / 255
    return colours * opacity + (0.0 if bright else 1.0) * (1 - opacity)


def grey_of(colours: Tensor) -> Tensor:
    """Grey of red, green and blue, shape (t, 3, h, w) to (t, 1, h, w): that of Pillow and of FFmpeg, ITU-R BT.601."""
    return (colours * colours.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)


def numbers_to_pixels(
    numbers: Tensor, top: float, size: tuple[int, int], channels: int, told: bool, clip: bool = False
) -> Tensor:
    """Numbers of any range as pixels.

    Args:
        numbers: Shape (t, c, h, w): grey, of 3 colours, or of 3 and opacity.
        top: Value that becomes white.
        size: (h, w) of the result.
        channels: 1 or 3.
        told: Whether it was said that `top` is white; otherwise greater values are an error even with `clip`.
        clip: Whether greater values become white too; otherwise they are an error.

    Returns:
        Pixels in [0, 255], uint8, shape (t, channels, h, w).

    Raises:
        ValueError: A value is out of range.
    """
    low, high = float(numbers.min()), float(numbers.max())
    if low < 0:
        raise ValueError(f"pixels from {low:g} to {high:g}; below 0 there is nothing darker than black")
    if high > top and not told:
        raise ValueError(f"pixels from {low:g} to {high:g}, not 0 to {top:g}; set maximum")
    if high > top and not clip:
        raise ValueError(f"pixels up to {high:g}, above maximum {top:g}; raise it, or set clip: true")
    values = (numbers / top).float().clamp(max=1)
    if values.shape[1] == 4:
        values = over_background(values)
    if values.shape[1] != channels:
        values = values.expand(-1, 3, -1, -1) if channels == 3 else grey_of(values)
    if tuple(values.shape[2:]) != tuple(size):
        values = interpolate(values, tuple(size), mode="bilinear", antialias=True)
    return (values * 255).round().clamp(0, 255).to(torch.uint8)


def _deep_pixels(
    picture: "Image", size: tuple[int, int] | None, channels: Channels, maximum: float | None, clip: bool
) -> Tensor:
    values = np.array(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("its pixels hold NaN or infinity")
    top = maximum if maximum is not None else white(picture, float(values.min()), float(values.max()))
    numbers = torch.from_numpy(values)[None, None]
    pixels = numbers_to_pixels(numbers, top, (picture.height, picture.width) if size is None else size, 1, True, clip)
    return pixels[0].expand(channels, -1, -1).contiguous()


def _check_upper_bytes(picture: "Image", maximum: float | None) -> None:
    """Refuses colours of 16 bits whose upper byte, which is all that Pillow reads, says too little."""
    bands = picture.split()[: 1 if picture.mode == "LA" else 3]
    highest = max(int(np.asarray(band).max()) for band in bands)
    if (maximum is not None and maximum < _SIXTEEN) or highest < _UPPER:
        raise ValueError(
            f"its colours have 16 bits but end below {256 * highest + 256}, and only the upper 8 bits can be read; "
            "save it with 8 bits, or as grey with a maximum"
        )
