"""Images of any mode become pixels of one size; damaged ones are named."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFile

from lightning_mmnas.data.columns.images import decode_image, image_column
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


def test_integers_beyond_sixteen_bits_and_floats_are_refused() -> None:
    with pytest.raises(DamagedFilesError, match="from 0 to 70000, outside of 16 bits"):
        decode_image(encoded(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "TIFF"))
    with pytest.raises(DamagedFilesError, match="floating point, whose range is not known"):
        decode_image(encoded(Image.fromarray(np.ones((2, 2), dtype=np.float32)), "TIFF"))


COLOUR = (200, 100, 50)
ONE_COLOUR = Image.new("RGB", (8, 8), COLOUR)
PALETTE = ONE_COLOUR.convert("P", palette=Image.Palette.ADAPTIVE)


@pytest.mark.parametrize(
    "content",
    [
        encoded(ONE_COLOUR.convert("CMYK"), "JPEG", quality=100),
        encoded(ONE_COLOUR.convert("CMYK"), "TIFF"),
        encoded(ONE_COLOUR.convert("RGBA")),
        encoded(PALETTE),
        encoded(PALETTE, transparency=b"\x80" * 8),
        encoded(PALETTE, "GIF", transparency=0),
        encoded(ONE_COLOUR, "WEBP", lossless=True),
    ],
    ids=["cmyk-jpeg", "cmyk", "rgba", "palette", "alphas", "clear", "webp"],
)
def test_colours_are_kept(content: bytes) -> None:
    assert (decode_image(content, (4, 4)).int() - torch.tensor(COLOUR).view(3, 1, 1)).abs().max() <= 2
    luma = 0.299 * COLOUR[0] + 0.587 * COLOUR[1] + 0.114 * COLOUR[2]
    assert (decode_image(content, (4, 4), channels=1) - luma).abs().max() <= 2


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
        (encoded(photograph(200, 300), "JPEG")[:3000], "ValueError: the picture is cut off"),
    ],
)
def test_damage_names_the_file(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "poster.jpeg"
    path.write_bytes(content)
    with pytest.raises(DamagedFilesError, match=f"{path}: {reason}"):
        image_column([path], (8, 8)).read(0)


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP"])
def test_cut_files_are_refused_whatever_pillow_was_told(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    content = encoded(photograph(), kind)
    for share in (0.3, 0.6, 0.75):
        with pytest.raises(DamagedFilesError, match="an image in memory"):
            decode_image(content[: int(share * len(content))], (8, 8))
    assert ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_download_into_reserved_space_is_cut_off() -> None:
    content = encoded(photograph(200, 300), "JPEG")
    with pytest.raises(DamagedFilesError, match="cut off: its end mark is missing"):
        decode_image(content[:-300] + bytes(300))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 2}])
def test_data_behind_the_end_of_a_jpeg_are_no_damage(options: dict[str, int]) -> None:
    """As photographs have that hold a film, or maps of depth; a picture in its header has an end of its own."""
    photo = encoded(photograph(200, 300), "JPEG", **options)
    inner = b"Exif\0\0" + encoded(photograph(), "JPEG")
    photo = photo[:2] + b"\xff\xe1" + (len(inner) + 2).to_bytes(2, "big") + inner + photo[2:]
    wanted = decode_image(photo)
    for seed in range(5):
        film = np.random.default_rng(seed).bytes(300_000)  # bytes that look like marks occur in it
        assert torch.equal(decode_image(photo + film), wanted)
    assert torch.equal(decode_image(photo[:-2] + b"\xff" + photo[-2:]), wanted)  # marks may be filled up
    for share in (0.55, 0.75, 0.99):
        with pytest.raises(DamagedFilesError, match="cut off: its end mark is missing"):
            decode_image(photo[: int(share * len(photo))] + bytes(3000))


def test_formats_that_start_other_programs_are_no_pictures() -> None:
    with pytest.raises(DamagedFilesError, match="it is not a picture"):
        decode_image(encoded(photograph(), "EPS"))


def test_absurd_headers_are_refused(tmp_path: Path) -> None:
    content = bytearray(encoded(photograph(), "BMP"))
    content[18:26] = (12_000).to_bytes(4, "little") * 2
    with pytest.raises(DamagedFilesError, match=r"Image size .144000000 pixels. exceeds"):
        decode_image(bytes(content))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP"])
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
