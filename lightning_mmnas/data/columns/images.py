"""Image files as pixels of one size."""

import io
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import FileColumn, damaged
from lightning_mmnas.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = Literal[1, 3]

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow decodes by itself; it starts other programs for some of the rest."""


def image_column(paths: Sequence[Path], size: tuple[int, int], channels: Channels = 3) -> FileColumn:
    """A column of image files, each read as by `decode_image`.

    Args:
        paths: One file per sample.
        size: (h, w) of every sample.
        channels: 3 for RGB, 1 for grey.

    Raises:
        ConfigError: The size or the number of channels cannot be.
    """
    if len(size) != 2 or min(size) < 1 or channels not in (1, 3):
        raise ConfigError(f"an image has a positive (h, w) and 1 or 3 channels, got size={size}, channels={channels}")
    return FileColumn(paths, partial(decode_image, size=(size[0], size[1]), channels=channels))


def decode_image(source: Path | bytes, size: tuple[int, int] | None = None, channels: Channels = 3) -> Tensor:
    """Reads a BMP, GIF, JPEG, PNG, PPM, TIFF or WebP file; of an animation, the first picture.

    The picture is turned as its EXIF orientation says, then squeezed into `size` whatever its proportions, with
    antialiasing. 16-bit grey is brought to 8 bits, palettes and CMYK become RGB, transparency is dropped.

    Args:
        source: The file, or its content.
        size: (h, w) of the result; None: as it is.
        channels: 3 for RGB, 1 for grey.

    Returns:
        Pixels in [0, 255], uint8, shape (channels, h, w).

    Raises:
        DamagedFilesError: The file is empty, cut short, or no picture, or its pixels have no known range, as floating
            point has none. Flipped bits within a picture's data cannot all be noticed.
    """
    from PIL import Image, UnidentifiedImageError

    name = source if isinstance(source, Path) else "an image in memory"
    content = source.read_bytes() if isinstance(source, Path) else source
    if not content:
        raise damaged(name, "it is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's advice about odd but readable files
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = _open(content, size)
        return _pixels(picture, size, channels)
    except UnidentifiedImageError:
        raise damaged(name, "it is not a picture") from None
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        raise damaged(name, f"{type(error).__name__}: {error}".splitlines()[0]) from error


def picture_pixels(picture: "Image", size: tuple[int, int] | None, channels: Channels, source: str) -> Tensor:
    """A picture that Pillow has opened already, as `decode_image` gives it.

    Args:
        picture: The picture.
        size: See `decode_image`.
        channels: See `decode_image`.
        source: What to call it in messages.

    Raises:
        DamagedFilesError: It cannot be decoded.
    """
    from PIL import ImageOps

    try:
        return _pixels(_eight_bits(ImageOps.exif_transpose(picture)), size, channels)
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        raise damaged(source, f"{type(error).__name__}: {error}".splitlines()[0]) from error


def _pixels(picture: "Image", size: tuple[int, int] | None, channels: Channels) -> Tensor:
    from PIL import Image

    picture = picture.convert("RGB" if channels == 3 else "L")
    if size is not None and picture.size != (size[1], size[0]):
        picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8))
    return (pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)).contiguous()


def _open(content: bytes, size: tuple[int, int] | None) -> "Image":
    """Decodes all of a picture, turned upright, with 8 bits per channel."""
    from PIL import Image, ImageFile, ImageOps

    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    # Another library may have told Pillow to fill what is missing with grey.
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as picture:
            # Without its end mark a JPEG was cut off, whatever follows: downloads reserve their space beforehand.
            if picture.format in ("JPEG", "MPO") and content.rfind(b"\xff\xd9") < content.rfind(b"\xff\xda"):
                raise ValueError("the picture is cut off: its end mark is missing")
            if size is not None:
                # JPEGs are decoded at a reduced scale where that is still more than twice as large.
                picture.draft(None, (2 * size[1], 2 * size[0]))
            picture.load()
            return _eight_bits(ImageOps.exif_transpose(picture))
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient


def _eight_bits(picture: "Image") -> "Image":
    from PIL import Image

    if picture.mode == "F":
        raise ValueError("its pixels are floating point, whose range is not known; save them as .npy")
    if picture.mode.startswith("I"):  # 16 bits, or 32 that hold 16
        values = np.array(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(f"its pixels are from {values.min()} to {values.max()}, outside of 16 bits")
        return Image.fromarray((values // 256).astype(np.uint8))
    # Straight to RGB, Pillow drops the transparency of a palette only with a warning.
    return picture.convert("RGBA") if picture.mode == "P" and "transparency" in picture.info else picture
