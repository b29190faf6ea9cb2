"""Pictures with an embedded colour profile, beside the mathematics of the profile."""

import io
import struct
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from lightning_mmnas.data.columns.images import decode_frames, decode_image, picture_pixels

P3 = [[0.51512, 0.29198, 0.1571], [0.2412, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]]
"""From linear Display P3 to XYZ under D50, as in Apple's profile."""
SRGB = [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.7141]]
"""From linear sRGB to XYZ under D50, as in the profile of the IEC."""
COLOURS = np.array(
    [[(200, 60, 40), (90, 160, 80), (128, 128, 128)], [(60, 80, 190), (250, 240, 230), (0, 0, 0)]], np.uint8
)


def profile(space: bytes = b"RGB ", gamma: float | None = None) -> bytes:
    """An ICC profile of Display P3, or of grey with a gamma."""

    def fixed(*values: float) -> bytes:
        return struct.pack(f">{len(values)}i", *(round(value * 65536) for value in values))

    curve = b"para" + bytes(4) + struct.pack(">HH", 3, 0) + fixed(2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
    if gamma is not None:
        curve = b"para" + bytes(4) + struct.pack(">HH", 0, 0) + fixed(gamma)
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.82491)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for place, letter in enumerate((b"r", b"g", b"b")):
            tags[letter + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*(row[place] for row in P3))
            tags[letter + b"TRC"] = curve
    start = 128 + 4 + 12 * len(tags)
    table, content = struct.pack(">I", len(tags)), b""
    for name, tag in tags.items():
        table += name + struct.pack(">II", start + len(content), len(tag))
        content += tag + bytes(-len(tag) % 4)
    head = struct.pack(">I4sI4s4s4s12x4s", start + len(content), b"none", 0x04000000, b"mntr", space, b"XYZ ", b"acsp")
    head = (head + bytes(28) + fixed(0.9642, 1, 0.82491)).ljust(128, b"\0")
    return head + table + content


def linear(values: Any) -> Any:
    values = values / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def shown(values: Any) -> Any:
    values = np.clip(values, 0, 1)
    return 255 * np.where(values <= 0.0031308, 12.92 * values, 1.055 * values ** (1 / 2.4) - 0.055)


def saved(picture: Image.Image, icc: bytes, **options: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", icc_profile=icc, **options)
    return stream.getvalue()


EXPECTED = shown(linear(COLOURS) @ (np.linalg.inv(SRGB) @ P3).T)


def test_display_p3_as_a_viewer_shows_it() -> None:
    assert np.abs(EXPECTED - COLOURS).max() > 15
    content = saved(Image.fromarray(COLOURS), profile())
    for pixels in (
        decode_image(content),
        next(decode_frames(content)),
        picture_pixels(Image.open(io.BytesIO(content)), None, 3, "a picture"),
    ):
        np.testing.assert_allclose(pixels.permute(1, 2, 0).numpy(), EXPECTED, atol=1.5)


def test_what_is_transparent_keeps_its_opacity() -> None:
    opaque = np.dstack([COLOURS, np.full(COLOURS.shape[:2], 255, np.uint8)])
    opaque[0, 0, 3] = 0
    pixels = decode_image(saved(Image.fromarray(opaque), profile())).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels[0, 0], 255)
    np.testing.assert_allclose(pixels[0, 1:], EXPECTED[0, 1:], atol=1.5)
    palette = Image.fromarray(COLOURS).quantize(8)
    red = palette.getpixel((0, 0))
    pixels = decode_image(saved(palette, profile(), transparency=red)).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels[0, 0], 255)
    np.testing.assert_allclose(pixels[1], EXPECTED[1], atol=3)


def test_grey_with_a_profile() -> None:
    grey = np.array([[0, 60, 128, 200, 255]], np.uint8)
    expected = shown((grey / 255) ** 1.0)
    for channels in (1, 3):
        pixels = decode_image(saved(Image.fromarray(grey), profile(b"GRAY", 1.0)), channels=channels)
        np.testing.assert_allclose(pixels[0].numpy(), expected, atol=1.5)


@pytest.mark.parametrize(
    "icc",
    [
        ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        b"no profile",
        profile()[:200],
        profile(b"GRAY", 1.0),
    ],
)
def test_profiles_that_change_nothing(icc: bytes) -> None:
    """That of sRGB, damaged ones, and one of another kind of picture."""
    pixels = decode_image(saved(Image.fromarray(COLOURS), icc))
    np.testing.assert_array_equal(pixels.permute(1, 2, 0).numpy(), COLOURS)
