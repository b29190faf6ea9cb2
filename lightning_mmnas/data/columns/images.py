"""Image files as pixels of one size."""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from lightning_mmnas.data.columns.column import FileColumn, damaged
from lightning_mmnas.data.columns.content import Source, form_of, open_source, source_name
from lightning_mmnas.data.columns.pixels import (
    BITS,
    Channels,
    as_tags_say,
    background_of,
    depth,
    is_deep,
    is_shapeless,
    is_transparent,
    to_pixels,
)
from lightning_mmnas.data.columns.profiles import in_srgb
from lightning_mmnas.errors import ConfigError, DamagedFilesError

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats that Pillow decodes by itself, if it was built with them; it starts other programs for some of the rest."""
_MOST_PIXELS = 300_000_000
"""Pixels of the largest picture: 1.2 GB while it is decoded. Phones make 200 million."""
_MANY_PIXELS = 89_478_485
"""Pixels from which a picture must be plausible: Pillow's limit."""
_PACKED = 5_000
"""Pixels per byte of a file that no photograph reaches."""
_SEGMENT = re.compile(rb"\xff[\xc0-\xcf\xd9-\xef\xfe]")
"""Marks of a JPEG before a length, and its end; not those within a scan: restarts, and 0 behind a byte of 255."""
_ORIENTATION, _WIDTH, _HEIGHT, _BITS, _WHITE, _FORMAT = 274, 256, 257, 258, 262, 339
"""Numbers of the tags of EXIF and TIFF."""


@dataclass(frozen=True)
class ImageInfo:
    """What a picture's header says.

    Attributes:
        format: Such as "PNG".
        mode: Pillow's: "RGB", "L", "I;16", "F", ...
        size: (h, w), turned as its EXIF orientation says.
        bits: Bits of a channel in the file.
        frames: Pictures of an animation, or pages.
        deep: Whether its pixels are grey values of more than 8 bits, for which `maximum` counts; see `image_maximum`.
        transparent: Whether it has an alpha channel or a transparent colour.
    """

    format: str
    mode: str
    size: tuple[int, int]
    bits: int
    frames: int
    deep: bool
    transparent: bool


def image_column(
    paths: Sequence[Path], size: tuple[int, int], channels: Channels = 3, maximum: float | None = None
) -> FileColumn:
    """A column of image files, each read as by `decode_image`.

    Args:
        paths: One file per sample.
        size: (h, w) of every sample.
        channels: 3 for RGB, 1 for grey.
        maximum: See `decode_image`.

    Raises:
        ConfigError: The size or the number of channels cannot be.
    """
    if len(size) != 2 or min(size) < 1 or channels not in (1, 3):
        raise ConfigError(f"an image has a positive (h, w) and 1 or 3 channels, got size={size}, channels={channels}")
    decode = partial(decode_image, size=(size[0], size[1]), channels=channels)
    return FileColumn(paths, decode if maximum is None else partial(decode, maximum=maximum))


def decode_image(
    source: Source,
    size: tuple[int, int] | None = None,
    channels: Channels = 3,
    maximum: float | None = None,
    clip: bool = False,
    background: int | None = None,
) -> Tensor:
    """Reads a JPEG, PNG, TIFF, WebP, GIF, BMP, PPM, AVIF or JPEG 2000 file; of several pictures, the first.

    The picture is turned as its EXIF orientation says, then squeezed into `size` whatever its proportions, with
    antialiasing. Palettes and CMYK become RGB, colours of an embedded profile those of sRGB. What is transparent shows
    white, or black where the rest of the picture is nearly white itself; transparency that is the same everywhere is
    dropped.

    Args:
        source: The file, or its content.
        size: (h, w) of the result; None: as it is.
        channels: 3 for RGB, 1 for grey.
        maximum: Value that becomes white in pictures of 16 or 32 bits and of floats, such as 4095 for 12 bits that were
            stored in 16. None: 65535, and no floats. Pictures of 8 bits go to 255 always.
        clip: Whether greater values in such pictures become white too; otherwise they are an error.
        background: Grey level that shows through, as `image_background` has it; None: as above.

    Returns:
        Pixels in [0, 255], uint8, shape (channels, h, w).

    Raises:
        DamagedFilesError: The file is empty, cut short, or no picture, or its pixels have no known range, as floating
            point has none. Flipped bits within a picture's data cannot all be noticed.
    """
    name = source_name(source, "an image")
    with _naming(name, source), _opened(source) as (picture, content):
        return to_pixels(_loaded(picture, content, size), size, channels, maximum, clip, background)


def picture_pixels(
    picture: "Image",
    size: tuple[int, int] | None,
    channels: Channels,
    source: str,
    maximum: float | None = None,
    clip: bool = False,
) -> Tensor:
    """A picture that Pillow has opened already, as `decode_image` gives it.

    Args:
        picture: The picture.
        size: See `decode_image`.
        channels: See `decode_image`.
        source: What to call it in messages.
        maximum: See `decode_image`.
        clip: See `decode_image`.

    Raises:
        DamagedFilesError: It cannot be decoded.
    """
    from PIL import ImageOps

    with _naming(source):
        return to_pixels(in_srgb(ImageOps.exif_transpose(picture)), size, channels, maximum, clip)


def decode_frames(
    source: Source,
    size: tuple[int, int] | None = None,
    channels: Channels = 3,
    maximum: float | None = None,
    clip: bool = False,
) -> Iterator[Tensor]:
    """All pictures of an animated GIF, PNG, WebP or AVIF file, or all pages of a TIFF file, one after the other.

    What is transparent in any of them shows the background of the first.

    Args:
        source: The file, or its content.
        size: See `decode_image`.
        channels: See `decode_image`.
        maximum: See `decode_image`.
        clip: See `decode_image`.

    Yields:
        Pixels in [0, 255], uint8, shape (channels, h, w).

    Raises:
        DamagedFilesError: See `decode_image`.
    """
    name, index, count = source_name(source, "an animation"), 0, 1
    background: int | None = None
    with _naming(name, source):
        content = _content(source)
    with io.BytesIO(content) as stream:
        picture: Image | None = None
        while index < count:
            with _naming(f"{name}, frame {index + 1}" if index else name, source), _as_we_read():
                if picture is None:
                    picture = _open(stream)
                    count = getattr(picture, "n_frames", 1)
                picture.seek(index)
                frame = _loaded(picture, content, None)
                background = background_of(frame) if background is None else background
                pixels = to_pixels(frame, size, channels, maximum, clip, background)
            yield pixels
            index += 1


def frame_seconds(source: Source) -> list[float]:
    """How long each picture of an animation is shown, in seconds; 0 where the file does not say, as for pages.

    Raises:
        DamagedFilesError: See `decode_image`.
    """
    found = []
    with _naming(source_name(source, "an animation"), source), _opened(source) as (picture, _):
        for index in range(getattr(picture, "n_frames", 1)):
            picture.seek(index)
            picture.load()  # some formats say it only then
            found.append(float(picture.info.get("duration") or 0) / 1000)
    return found


def image_info(source: Source) -> ImageInfo:
    """What a picture's header says; its pixels are decoded only where the header may come after them, as in PNG.

    Raises:
        DamagedFilesError: It is no picture, or its header cannot be read.
    """
    with _naming(source_name(source, "an image"), source), _opened(source) as (picture, content):
        if picture.format not in ("JPEG", "MPO"):
            _check_size(picture, content)
        # Pillow turns the size of TIFF files when it opens them, that of others not at all.
        tags = getattr(picture, "tag_v2", {})
        _note_bits(picture, content)
        w, h = (tags[_WIDTH], tags[_HEIGHT]) if picture.format == "TIFF" else picture.size
        turned = picture.getexif().get(_ORIENTATION, 1) >= 5
        return ImageInfo(
            format=str(picture.format),
            mode=picture.mode,
            size=(w, h) if turned else (h, w),
            bits=depth(picture),
            # Of a photograph the further pictures are previews and maps of its brightness.
            frames=1 if picture.format in ("JPEG", "MPO") else getattr(picture, "n_frames", 1),
            deep=is_deep(picture),
            transparent=is_transparent(picture),
        )


def image_maximum(source: Source) -> float | None:
    """The largest value of a picture's pixels, for `maximum`; None for pictures of 8 bits and for colours.

    Raises:
        DamagedFilesError: See `decode_image`.
    """
    with _naming(source_name(source, "an image"), source), _opened(source) as (picture, content):
        if not is_deep(picture):
            return None
        values = np.array(_loaded(picture, content, None))
        if not np.isfinite(values).all():
            raise ValueError("its pixels hold NaN or infinity")
        return float(values.max())


def image_background(source: Source) -> int | None:
    """The grey level that a picture is shown over, for those that follow it; None: its transparency has no shape.

    Raises:
        DamagedFilesError: See `decode_image`.
    """
    with _naming(source_name(source, "an image"), source), _opened(source) as (picture, content):
        if not is_transparent(picture):  # as its header says
            return 255
        frame = _loaded(picture, content, None)
        return None if is_shapeless(frame) else background_of(frame)


@contextmanager
def _naming(name: str, source: Source | None = None) -> Iterator[None]:
    """Turns whatever goes wrong into damage of a source, with the reason."""
    from PIL import UnidentifiedImageError

    try:
        yield
    except DamagedFilesError:
        raise
    except UnidentifiedImageError:
        raise damaged(name, "it is not a picture" if source is None else _no_picture(source)) from None
    except Exception as error:  # Pillow's decoders raise a dozen types for damaged files
        raise damaged(name, f"{type(error).__name__}: {error}".splitlines()[0]) from error


def _no_picture(source: Source) -> str:
    form = form_of(source)
    if form is None:
        return f"it is not a picture, or of a format that is not read; {', '.join(_formats())} are"
    if form.kind == "image":
        return f"it is {form.name}, but damaged or of a variant that Pillow does not decode"
    if form.name in ("HEIC", "JPEG XL"):
        return f"it is {form.name}, which Pillow does not decode; save it as JPEG or PNG"
    return f"it is not a picture but {form.name}"


@contextmanager
def _as_we_read() -> Iterator[None]:
    """Sets Pillow to refuse what is cut short and to leave the limit of pixels to us, whatever others have told it."""
    from PIL import Image, ImageFile

    lenient, limit = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's advice about odd but readable files
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = lenient, limit


@contextmanager
def _opened(source: Source) -> Iterator[tuple["Image", bytes]]:
    """A picture whose header has been read, and the content of its file."""
    content = _content(source)
    with _as_we_read(), io.BytesIO(content) as stream, _open(stream) as picture:
        yield picture, content


def _content(source: Source) -> bytes:
    with open_source(source) as stream:
        content = stream.read()
    if not content:
        raise damaged(source_name(source, "an image"), "it is empty")
    return content


def _open(stream: io.BytesIO) -> "Image":
    from PIL import Image

    return Image.open(stream, formats=_formats())


def _note_bits(picture: "Image", content: bytes) -> None:
    """Writes the bits of a channel into the picture, for `depth`: Pillow's modes do not tell them."""
    bits = content[24] if picture.format == "PNG" else getattr(picture, "tag_v2", {}).get(_BITS, 0)
    if bits:
        picture.info[BITS] = max(bits) if isinstance(bits, tuple) else bits


@lru_cache(1)
def _formats() -> tuple[str, ...]:
    from PIL import Image

    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _loaded(picture: "Image", content: bytes, size: tuple[int, int] | None) -> "Image":
    """Decodes all of a picture, turns it upright, and has its colours in sRGB."""
    from PIL import ImageOps

    # Without its end mark a JPEG was cut off: Pillow notices only where the file ends, not if zeros or others follow.
    if picture.format in ("JPEG", "MPO") and not _has_end(content):
        raise ValueError("the picture is cut off: its end mark is missing")
    if size is not None and picture.format in ("JPEG", "MPO"):
        # Decoded at a reduced scale where that is still more than twice as large.
        h, w = size[::-1] if picture.getexif().get(_ORIENTATION, 1) >= 5 else size
        picture.draft(None, (2 * w, 2 * h))
    _check_size(picture, content)
    picture.load()
    _note_bits(picture, content)
    tags = getattr(picture, "tag_v2", {})
    return in_srgb(as_tags_say(ImageOps.exif_transpose(picture), tags.get(_WHITE), tags.get(_FORMAT, ())))


def _has_end(content: bytes) -> bool:
    """Whether a JPEG reaches its end mark, from segment to segment; what follows, such as a film, does not count."""
    place = 2
    while (mark := _SEGMENT.search(content, place)) is not None:
        if mark[0] == b"\xff\xd9":
            return True
        place = mark.end() + int.from_bytes(content[mark.end() : mark.end() + 2], "big")
    return False


def _check_size(picture: "Image", content: bytes) -> None:
    pixels = picture.width * picture.height
    if pixels > _MOST_PIXELS:
        raise ValueError(f"Image size ({pixels} pixels) exceeds {_MOST_PIXELS}; save it smaller")
    if pixels > _MANY_PIXELS and pixels > _PACKED * len(content):
        raise ValueError(f"Image size ({pixels} pixels) exceeds what {len(content):,} bytes can hold")
