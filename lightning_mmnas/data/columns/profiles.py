"""Colours of a picture as a viewer shows them: those of an embedded ICC profile, such as Display P3, in sRGB."""

import io
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from lightning_mmnas.data.columns.pixels import is_deep, is_transparent

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageCms import ImageCmsTransform

_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}
"""The colour space of a profile that can be meant, by Pillow's mode."""
_SAME = 2
"""Largest difference of a grey level, of 255, at which a profile is that of sRGB."""


def in_srgb(picture: "Image") -> "Image":
    """A picture whose colours are those of sRGB.

    Without a profile, with that of sRGB, or with one that is damaged or of another kind of picture, it is left as it
    is, as viewers do; so are grey values of more than 8 bits.
    """
    profile = picture.info.get("icc_profile")
    if not isinstance(profile, bytes) or not profile or is_deep(picture):
        return picture
    colours = picture.convert({"P": "RGB", "PA": "RGB", "RGBA": "RGB", "LA": "L"}.get(picture.mode, picture.mode))
    transform = _transform(profile, colours.mode) if colours.mode in _SPACES else None
    if transform is None:
        return picture
    found = transform.apply(colours)
    if is_transparent(picture):
        found.putalpha(picture.convert("RGBA").getchannel("A"))
    found.info.update({key: value for key, value in picture.info.items() if key not in ("icc_profile", "transparency")})
    return found


@lru_cache(8)
def _transform(profile: bytes, mode: str) -> "ImageCmsTransform | None":
    """From a profile to sRGB; None where nothing is to be changed."""
    from PIL import Image, ImageCms, features

    if not features.check("littlecms2"):
        return None
    try:
        given = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if given.profile.xcolor_space.strip() != _SPACES[mode]:
            return None
        # Without its memory of the last pixel a transform may be used by several threads at once.
        flags = ImageCms.Flags.NOCACHE
        transform = ImageCms.buildTransform(given, ImageCms.createProfile("sRGB"), mode, "RGB", flags=flags)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return None
    if mode == "CMYK":
        return transform
    levels = np.linspace(0, 255, 9 if mode == "RGB" else 256).round().astype(np.uint8)
    cube = np.stack(np.meshgrid(*[levels] * len(mode), indexing="ij"), -1).reshape(1, -1, len(mode))
    before = Image.fromarray(cube if mode == "RGB" else cube[..., 0])
    after = np.asarray(transform.apply(before), np.int16)
    return None if np.abs(after - cube).max() <= _SAME else transform
