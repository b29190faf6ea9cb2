"""Images of any mode become pixels of one size; damaged ones are named."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_mmnas.data.images import decode_image, image_column
from lightning_mmnas.errors import ConfigError, DamagedFilesError


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def photograph(h: int = 40, w: int = 60) -> Image.Image:
    y, x = np.mgrid[0:h, 0:w]
    pixels = np.stack([x * 4 % 256, y * 6 % 256, (x + y) * 2 % 256], axis=-1).astype(np.uint8)
    return Image.fromarray(pixels)


def test_pixels_as_they_are() -> None:
    picture = photograph()
    pixels = decode_image(encoded(picture))
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, torch.from_numpy(np.array(picture)).permute(2, 0, 1))


def test_resized_with_antialiasing() -> None:
    stripes = np.zeros((8, 64), dtype=np.uint8)
    stripes[:, ::2] = 200
    pixels = decode_image(encoded(Image.fromarray(stripes)), (4, 8), channels=1)
    assert pixels.shape == (1, 4, 8)
    assert pixels[..., 1:-1].float().sub(100).abs().max() <= 3  # black and bright stripes average out


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_mode_has_the_channels_asked_for(mode: str, channels: int) -> None:
    kind = "TIFF" if mode == "CMYK" else "PNG"
    pixels = decode_image(encoded(photograph().convert(mode), kind), (10, 12), 3 if channels == 3 else 1)
    assert pixels.shape == (channels, 10, 12)
    assert pixels.float().std() > 10


def test_sixteen_bits_become_eight() -> None:
    values = np.array([[0, 256, 65535]], dtype=np.uint16)
    assert decode_image(encoded(Image.fromarray(values)), channels=1).flatten().tolist() == [0, 1, 255]


def test_exif_orientation_is_followed() -> None:
    picture = photograph(20, 60)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    assert decode_image(encoded(picture, "JPEG", exif=exif)).shape == (3, 60, 20)


def test_large_jpegs_at_a_reduced_scale_look_the_same() -> None:
    smooth = photograph(16, 16).resize((1024, 1024), Image.Resampling.BICUBIC)
    reduced = decode_image(encoded(smooth, "JPEG", quality=95), (64, 64)).float()
    exact = torch.from_numpy(np.array(smooth.resize((64, 64), Image.Resampling.BILINEAR))).permute(2, 0, 1).float()
    assert (reduced - exact).abs().mean() < 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"plainly no picture", "it is not a picture"),
        (encoded(photograph(200, 300), "JPEG")[:3000], "OSError: (image file is truncated|Truncated File Read)"),
    ],
)
def test_damage_names_the_file(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "poster.jpeg"
    path.write_bytes(content)
    with pytest.raises(DamagedFilesError, match=f"{path}: {reason}"):
        image_column([path], (8, 8)).read(0)


def test_absurd_headers_are_refused(tmp_path: Path) -> None:
    content = bytearray(encoded(photograph(), "BMP"))
    content[18:26] = (12_000).to_bytes(4, "little") * 2
    with pytest.raises(DamagedFilesError, match=r"Image size .144000000 pixels. exceeds"):
        decode_image(bytes(content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF"])
def test_two_hundred_damaged_files(kind: str) -> None:
    """Each is either read to pixels of the size asked for, or refused by name."""
    generator = random.Random(kind)
    whole = encoded(photograph(), kind)
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        if generator.random() < 0.5:
            content = content[: generator.randrange(len(content))]
        for _ in range(generator.randrange(6) if content else 0):
            content[generator.randrange(len(content))] = generator.randrange(256)
        try:
            assert decode_image(bytes(content), (16, 16)).shape == (3, 16, 16)
        except DamagedFilesError:
            refused += 1
    assert refused > 50


def test_impossible_sizes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="size=\\(0, 8\\)"):
        image_column([tmp_path / "x.png"], (0, 8))
