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

from lightning_mmnas.data.columns import FileColumn, damaged
from lightning_mmnas.errors import ConfigError

if TYPE_CHECKING:
    from PIL.Image import Image

Channels = Literal[1, 3]


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
    """Reads a JPEG, PNG, or whatever else Pillow reads.

    The picture is turned as its EXIF orientation says, then squeezed into `size` whatever its proportions, with
    antialiasing. 16-bit grey is brought to 8 bits, palettes and CMYK become RGB, transparency is dropped.

    Args:
        source: The file, or its content.
        size: (h, w) of the result; None: as it is.
        channels: 3 for RGB, 1 for grey.

    Returns:
        Pixels in [0, 255], uint8, shape (channels, h, w).

    Raises:
        DamagedFilesError: The file is empty, cut short, or no picture.
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
        if picture.mode.startswith("I"):  # 16 bits
            grey = np.array(picture, dtype=np.float64) / 256
            picture = Image.fromarray(grey.clip(0, 255).astype(np.uint8))
        picture = picture.convert("RGB" if channels == 3 else "L")
        if size is not None and picture.size != (size[1], size[0]):
            picture = picture.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(picture, dtype=np.uint8))
    except UnidentifiedImageError:
        raise damaged(name, "it is not a picture") from None
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        raise damaged(name, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    return (pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)).contiguous()


def _open(content: bytes, size: tuple[int, int] | None) -> "Image":
    from PIL import Image, ImageOps

    with Image.open(io.BytesIO(content)) as picture:
        if size is not None:
            # JPEGs are decoded at a reduced scale where that is still more than twice as large.
            picture.draft(None, (2 * size[1], 2 * size[0]))
        picture.load()
        return ImageOps.exif_transpose(picture)
