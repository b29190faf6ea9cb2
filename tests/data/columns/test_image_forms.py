"""Pictures as a viewer shows them: range, transparency, orientation, frames, size; against numpy."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin, features

from lightning_mmnas.data.columns import images
from lightning_mmnas.data.columns.images import (
    decode_frames,
    decode_image,
    frame_seconds,
    image_column,
    image_info,
    image_maximum,
    picture_pixels,
)
from lightning_mmnas.data.columns.pixels import BITS
from lightning_mmnas.errors import DamagedFilesError

GENERATOR = np.random.default_rng(0)
COLOURS = GENERATOR.integers(0, 256, (6, 9, 3), dtype=np.uint8)
TWELVE = GENERATOR.permutation(4096)[: 6 * 9].reshape(6, 9).astype(np.uint16)


def encoded(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def shown(content: bytes, **options: object) -> np.ndarray:
    """(h, w, 3) int."""
    return decode_image(content, **options).permute(1, 2, 0).numpy().astype(int)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_twelve_bits_in_sixteen_keep_their_levels(kind: str) -> None:
    content = encoded(Image.fromarray(TWELVE), kind)
    found = decode_image(content, channels=1, maximum=4095)
    wanted = np.round(TWELVE / 4095 * 255).astype(int)
    assert np.array_equal(found[0].numpy(), wanted)
    assert len(np.unique(found)) > 40 > len(np.unique(decode_image(content, channels=1)))
    assert torch.equal(decode_image(content, maximum=4095), found.expand(3, -1, -1))
    assert image_maximum(content) == TWELVE.max()
    assert image_info(content).bits == 16
    assert image_info(content).deep


def test_range_of_integers_and_floats() -> None:
    depth = GENERATOR.integers(0, 90_000, (6, 9)).astype(np.int32)  # millimetres
    found = decode_image(encoded(Image.fromarray(depth), "TIFF"), channels=1, maximum=90_000)
    assert np.array_equal(found[0].numpy(), np.round(depth / 90_000 * 255).astype(int))
    metres = GENERATOR.random((6, 9), dtype=np.float32) * 7
    content = encoded(Image.fromarray(metres), "TIFF")
    assert np.abs(decode_image(content, channels=1, maximum=7.0)[0].numpy() - metres / 7 * 255).max() <= 0.51
    assert image_maximum(content) == metres.max()


def test_the_range_is_applied_before_the_size() -> None:
    values = np.repeat(np.array([[0, 10], [30, 40]], np.uint16), 4, 0).repeat(4, 1)
    found = decode_image(encoded(Image.fromarray(values)), (1, 1), 1, maximum=40)
    assert found.item() == 128  # the mean, 20 of 40


def test_what_is_above_the_maximum_is_refused_or_clipped(tmp_path: Path) -> None:
    path = tmp_path / "depth.png"
    path.write_bytes(encoded(Image.fromarray(np.array([[0, 500, 2000]], np.uint16))))
    with pytest.raises(DamagedFilesError, match=r"depth\.png: .*up to 2000, above maximum 1000; raise it, or set clip"):
        image_column([path], (1, 3), 1, maximum=1000).read(0)
    assert decode_image(path, channels=1, maximum=1000, clip=True).flatten().tolist() == [0, 128, 255]


def test_values_without_a_grey_are_refused() -> None:
    below = encoded(Image.fromarray(np.array([[-1, 5]], np.int32)), "TIFF")
    nothing = encoded(Image.fromarray(np.array([[1, np.nan]], np.float32)), "TIFF")
    with pytest.raises(DamagedFilesError, match="from -1 to 5; below 0"):
        decode_image(below, maximum=5)
    for low, high in ((-1, 5), (0, 70_000)):
        beyond = encoded(Image.fromarray(np.array([[low, high]], np.int32)), "TIFF")
        with pytest.raises(DamagedFilesError, match=f"from {low} to {high}, outside of 16 bits; set maximum"):
            decode_image(beyond)
    with pytest.raises(DamagedFilesError, match="floating point, whose range is not known; set maximum"):
        decode_image(encoded(Image.fromarray(np.array([[0.25, 0.5]], np.float32)), "TIFF"))
    with pytest.raises(DamagedFilesError, match="NaN or infinity"):
        decode_image(nothing, maximum=5)
    with pytest.raises(DamagedFilesError, match="NaN or infinity"):
        image_maximum(nothing)


@pytest.mark.parametrize(("bits", "white"), [(12, 4095), (10, 1023), (16, 65535)])
def test_white_is_what_the_header_says(bits: int, white: int) -> None:
    picture = Image.fromarray(TWELVE // 4)  # up to 1023
    picture.info[BITS] = bits  # as the readers of TIFF and PNG note it
    found = picture_pixels(picture, None, 1, "it")[0].numpy()
    assert np.array_equal(found, np.round(TWELVE // 4 / white * 255))


def test_twelve_bits_of_a_file() -> None:
    """A TIFF of 12 bits, two pixels in three bytes, which Pillow reads but does not write."""
    values = TWELVE[:, :8].astype(int)
    left, right = values[:, ::2], values[:, 1::2]
    raw = np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], 2).astype(np.uint8).tobytes()
    content = tiff(raw, 8, 6, bits=12)
    assert image_info(content).bits == 12
    assert np.array_equal(decode_image(content, channels=1)[0].numpy(), np.round(values / 4095 * 255))


def tiff(raw: bytes, w: int, h: int, bits: int, white: int = 1, form: int = 1) -> bytes:
    """A TIFF of one channel; white is 0 where `white` is, and `form` 2 says that values are signed."""
    tags = {256: w, 257: h, 258: bits, 259: 1, 262: white, 273: 8, 277: 1, 278: h, 279: len(raw), 339: form}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0" + struct.pack("<I", 8 + len(raw)) + raw + struct.pack("<H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize("bits", [8, 16])
def test_zero_is_white_where_the_header_says_so(bits: int) -> None:
    values = np.arange(256).reshape(16, 16)
    content = tiff((values * (257 if bits == 16 else 1)).astype(f"<u{bits // 8}").tobytes(), 16, 16, bits, white=0)
    assert np.array_equal(decode_image(content, channels=1)[0].numpy(), 255 - values)
    if bits == 16:
        assert image_maximum(content) == 65535
        assert image_info(content).bits == 16


def test_signed_bytes_are_refused() -> None:
    content = tiff(bytes(range(256)), 16, 16, 8, form=2)
    with pytest.raises(DamagedFilesError, match="its pixels are signed bytes, which are not read"):
        decode_image(content)


def test_eight_bits_have_their_own_maximum() -> None:
    content = encoded(Image.fromarray(COLOURS))
    assert torch.equal(decode_image(content, maximum=4095), decode_image(content))
    assert image_maximum(content) is None


def sixteen_bit_colours(values: np.ndarray) -> bytes:
    """A PNG of 16-bit RGB, which Pillow does not write."""
    h, w, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def test_colours_of_sixteen_bits_are_read_only_where_the_upper_eight_say_enough() -> None:
    full = GENERATOR.integers(0, 65536, (6, 9, 3))
    full[0, 0] = 65535
    assert np.array_equal(shown(sixteen_bit_colours(full)), full // 256)
    assert image_info(sixteen_bit_colours(full)).bits == 16
    with pytest.raises(DamagedFilesError, match="only the upper 8 bits can be read; save it with 8 bits, or as grey"):
        decode_image(sixteen_bit_colours(full), maximum=4095)
    with pytest.raises(DamagedFilesError, match="its colours have 16 bits but end below 4096"):
        decode_image(sixteen_bit_colours(full // 16))
    with pytest.raises(DamagedFilesError, match="its colours have 16 bits but end below 256"):
        decode_image(sixteen_bit_colours(full // 256))  # 8 bits in 16: all would be black


def over(colours: np.ndarray, alpha: np.ndarray, background: int) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + background * (1 - share)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparency_shows_white(kind: str) -> None:
    alpha = GENERATOR.integers(0, 256, (6, 9), dtype=np.uint8)
    picture = Image.fromarray(np.dstack([COLOURS, alpha]))
    content = encoded(picture, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert image_info(content).transparent
    assert np.abs(shown(content) - over(COLOURS, alpha, 255)).max() <= 1
    assert torch.equal(picture_pixels(picture, None, 3, "it"), decode_image(content))
    grey = decode_image(content, channels=1)[0].numpy()
    assert np.abs(grey - over(COLOURS, alpha, 255) @ np.array([0.299, 0.587, 0.114])).max() <= 2


@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (255, 0), (120, 255), (240, 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L", "RGB", "RGBa"])
def test_a_shape_in_alpha_is_seen(mode: str, ink: int, paper: int) -> None:
    shape = np.zeros((8, 8), np.uint8)
    shape[2:5, 3:7] = 255
    wanted = np.where(shape > 0, ink, paper)
    rgba = Image.fromarray(np.dstack([np.full((8, 8, 3), ink, np.uint8), shape]))
    if mode == "P":
        picture = Image.fromarray((shape > 0).astype(np.uint8)).convert("P")
        picture.putpalette([ink] * 768)
        content = encoded(picture, transparency=0)
    elif mode in ("L", "RGB"):  # one colour is transparent
        hidden = 7
        grey = Image.fromarray(np.where(shape > 0, ink, hidden).astype(np.uint8))
        content = encoded(grey.convert(mode), transparency=hidden if mode == "L" else (hidden,) * 3)
    elif mode == "RGBa":
        assert np.array_equal(picture_pixels(rgba.convert(mode), None, 1, "it")[0].numpy(), wanted)
        return
    else:
        content = encoded(rgba.convert(mode))
    assert np.array_equal(shown(content), np.repeat(wanted[..., None], 3, 2))
    assert decode_image(content, (4, 4)).float().std() > 20


def test_transparency_without_a_shape_is_dropped() -> None:
    for alpha in (0, 90, 255):
        content = encoded(Image.fromarray(np.dstack([COLOURS, np.full((6, 9), alpha, np.uint8)])))
        assert np.array_equal(shown(content), COLOURS)


def test_cmyk_palettes_and_one_bit() -> None:
    inks = GENERATOR.integers(0, 256, (6, 9, 4), dtype=np.uint8)
    wanted = (255 - inks[..., :3].astype(int)) * (255 - inks[..., 3:].astype(int)) / 255
    assert np.abs(shown(encoded(Image.fromarray(inks, "CMYK"), "TIFF")) - wanted).max() <= 1
    numbers = GENERATOR.integers(0, 16, (6, 9), dtype=np.uint8)
    table = GENERATOR.integers(0, 256, (16, 3), dtype=np.uint8)
    palette = Image.fromarray(numbers).convert("P")
    palette.putpalette(table.flatten().tolist())
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert np.array_equal(shown(encoded(palette, kind)), table[numbers]), kind
    bits = GENERATOR.random((6, 9)) > 0.5
    for kind in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(shown(encoded(Image.fromarray(bits), kind))[..., 0], bits * 255), kind


def turned(values: np.ndarray, orientation: int) -> np.ndarray:
    """As the table of EXIF has it: which edge of the picture the first row and the first column are."""
    steps = {1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1], 5: values.swapaxes(0, 1)}
    steps |= {6: np.rot90(values, -1), 7: np.rot90(values, 2).swapaxes(0, 1), 8: np.rot90(values)}
    found: np.ndarray = steps[orientation]
    return found


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for kind in ("PNG", "TIFF"):
        content = encoded(Image.fromarray(COLOURS), kind, exif=exif)
        assert np.array_equal(shown(content), turned(COLOURS, orientation)), kind
        assert image_info(content).size == turned(COLOURS, orientation).shape[:2]
        deep = encoded(Image.fromarray(TWELVE), kind, exif=exif)
        found = decode_image(deep, channels=1, maximum=4095)[0].numpy()
        assert np.array_equal(found, np.round(turned(TWELVE, orientation) / 4095 * 255)), kind
    smooth = Image.fromarray(COLOURS).resize((72, 48), Image.Resampling.BICUBIC)
    jpeg = encoded(smooth, "JPEG", exif=exif, quality=95)
    assert np.abs(shown(jpeg) - turned(np.asarray(smooth), orientation).astype(int)).mean() < 4
    assert image_info(jpeg).size == turned(np.asarray(smooth), orientation).shape[:2]


def test_a_turned_jpeg_is_not_reduced_below_its_size() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = GENERATOR.integers(0, 256, (1000, 4000), dtype=np.uint8)
    content = encoded(Image.fromarray(noise), "JPEG", exif=exif, quality=95)
    wide = decode_image(content, (8, 500), 1)[0].float()  # 500 of the 1000 rows of the file
    upright = Image.fromarray(np.rot90(np.asarray(Image.open(io.BytesIO(content))), -1))
    exact = np.asarray(upright.resize((500, 8), Image.Resampling.BILINEAR)).astype(np.float32)
    assert np.corrcoef(wide.numpy().ravel(), exact.ravel())[0, 1] > 0.9


def frames_of(kind: str, values: list[np.ndarray], **options: object) -> bytes:
    first, *others = [Image.fromarray(value) for value in values]
    return encoded(first, kind, save_all=True, append_images=others, **options)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "TIFF"])
def test_all_frames_of_animations_and_pages(kind: str) -> None:
    wanted = [GENERATOR.integers(0, 256, (6, 9), dtype=np.uint8) for _ in range(3)]
    durations = {} if kind == "TIFF" else {"duration": [100, 40, 250]}
    content = frames_of(kind, wanted, **durations, **({"lossless": True} if kind == "WEBP" else {}))
    assert image_info(content).frames == 3
    found = list(decode_frames(content, channels=1))
    assert [frame.dtype for frame in found] == [torch.uint8] * 3
    for frame, value in zip(found, wanted, strict=True):
        assert np.array_equal(frame[0].numpy(), value)
    assert torch.equal(decode_image(content, channels=1), found[0])
    assert frame_seconds(content) == ([0, 0, 0] if kind == "TIFF" else [0.1, 0.04, 0.25])
    assert [tuple(frame.shape) for frame in decode_frames(content, (4, 5))] == [(3, 4, 5)] * 3


def test_pages_of_sixteen_bits() -> None:
    pages = [TWELVE, TWELVE[::-1].copy()]
    content = frames_of("TIFF", pages)
    for frame, page in zip(decode_frames(content, channels=1, maximum=4095), pages, strict=True):
        assert np.array_equal(frame[0].numpy(), np.round(page / 4095 * 255))


def test_an_animation_has_one_background() -> None:
    """The first frame is dark on white, the second, nearly white, would alone be on black."""
    values = []
    for ink in (30, 250):
        frame = np.full((8, 8, 4), ink, np.uint8)
        frame[..., 3] = 0
        frame[2:5, 2:5, 3] = 255
        values.append(frame)
    first, second = decode_frames(frames_of("PNG", values, disposal=1, blend=0), channels=1)
    assert [first[0, 0, 0].item(), second[0, 0, 0].item(), second[0, 3, 3].item()] == [255, 255, 250]


def test_damage_in_a_later_frame_is_named() -> None:
    content = frames_of("TIFF", [COLOURS, COLOURS, COLOURS])
    frames = decode_frames(content[: len(content) * 2 // 3])
    with pytest.raises(DamagedFilesError, match="an animation in memory"):
        list(frames)


def test_a_frame_that_is_open_leaves_pillow_as_it_was() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    frames = decode_frames(frames_of("GIF", [COLOURS[..., 0], COLOURS[..., 1]]))
    next(frames)
    assert limit == Image.MAX_IMAGE_PIXELS
    frames.close()  # type: ignore[attr-defined]


def test_a_picture_of_many_pixels_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # of Pillow, which would refuse more than 20
    monkeypatch.setattr(images, "_MANY_PIXELS", 20)
    assert np.array_equal(shown(encoded(Image.fromarray(COLOURS))), COLOURS)
    assert Image.MAX_IMAGE_PIXELS == 10
    monkeypatch.setattr(images, "_MOST_PIXELS", 50)
    with pytest.raises(DamagedFilesError, match=r"Image size \(54 pixels\) exceeds 50; save it smaller"):
        decode_image(encoded(Image.fromarray(COLOURS)))
    with pytest.raises(DamagedFilesError, match=r"exceeds 50; save it smaller"):
        image_info(encoded(Image.fromarray(COLOURS)))


def test_ninety_five_megapixels() -> None:
    grey = Image.new("L", (9_500, 10_000), 100)
    grey.paste(200, (0, 0, 4_750, 10_000))
    content = encoded(grey, "JPEG")
    assert image_info(content).size == (10_000, 9_500)
    assert decode_image(content, (1, 8), 1).flatten().tolist() == pytest.approx([200] * 4 + [100] * 4, abs=13)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"something else", "it is not a picture, or of a format that is not read; .*BMP, GIF, ICO, JPEG"),
        (b"<!DOCTYPE html><html>not found</html>", "it is not a picture but an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a picture but a Git LFS pointer.*run git lfs pull"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is HEIC, which Pillow does not decode; save it as JPEG or PNG"),
        (b"\xff\x0a\xfa\x1f", "it is JPEG XL, which Pillow does not decode"),
        (b"\x93NUMPY\x01\0", "not a picture but an array of NumPy"),
        (b"II*\0" + bytes(20), "it is TIFF, but damaged or of a variant"),
        (bytes(1000), "zeros only"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not a picture but WAV"),
    ],
)
def test_the_reason_is_what_the_file_is(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(DamagedFilesError, match=rf"a\.jpg: .*{reason}"):
        decode_image(path)
    with pytest.raises(DamagedFilesError, match=reason):
        image_info(content)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "AVIF", "JPEG2000", "ICO"])
def test_the_name_of_a_file_says_nothing(kind: str, tmp_path: Path) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow without AVIF")
    content = encoded(Image.fromarray(COLOURS), kind)
    for name in ("photo", "photo.jfif", "photo.txt", "photo.png", "photo.heic"):
        path = tmp_path / name
        path.write_bytes(content)
        assert torch.equal(decode_image(path), decode_image(content))
        assert image_info(path).format == kind


def test_pages_of_photographs_are_previews() -> None:
    stream = io.BytesIO()
    photo = Image.fromarray(COLOURS)
    photo.save(stream, "MPO", save_all=True, append_images=[photo])
    assert image_info(stream.getvalue()).frames == 1


def test_text_chunks_do_no_harm() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Comment", "x" * 1000, zip=True)
    assert np.array_equal(shown(encoded(Image.fromarray(COLOURS), pnginfo=notes)), COLOURS)
