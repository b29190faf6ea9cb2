"""Arrays of pixels against independent readings: their order, their range, their opacity."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lightning_mmnas.data.columns.frames import read_frames
from lightning_mmnas.errors import DamagedFilesError

Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def picture() -> Array:
    return np.random.default_rng(0).integers(0, 256, (4, 6, 3), dtype=np.uint8)


def test_channels_first_and_last_are_the_same_picture(picture: Array) -> None:
    wanted = torch.from_numpy(picture).permute(2, 0, 1)
    assert torch.equal(read_frames(picture, (4, 6), 3), wanted)
    assert torch.equal(read_frames(picture.transpose(2, 0, 1), (4, 6), 3, axes="chw"), wanted)
    assert torch.equal(read_frames(picture[None], (4, 6), 3, axes="1hwc"), wanted)
    for axes, order in (("thwc", (0, 1, 2, 3)), ("tchw", (0, 3, 1, 2)), ("cthw", (3, 0, 1, 2))):
        clip = np.stack([picture, picture[::-1]]).transpose(order)
        found = read_frames(clip, (4, 6), 3, frames=2, axes=axes)
        assert torch.equal(found, torch.stack([wanted, wanted.flip(1)], 1))
    with pytest.raises(DamagedFilesError, match=r"\(3, 40, 60\) has 60 colours .*; if it is 40 x 60 .* set axes: chw"):
        read_frames(np.zeros((3, 40, 60), np.uint8), (4, 6), 3)


def test_clips_have_the_middle_of_each_segment() -> None:
    clip = np.arange(12, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    assert read_frames(clip, (2, 2), 1, frames=3)[0, :, 0, 0].tolist() == [2, 6, 10]
    assert read_frames(clip, (2, 2), 1, frames=2)[0, :, 0, 0].tolist() == [3, 9]


def test_other_sizes_are_averages() -> None:
    """Of a quarter the height and a fifth of the width: weights of antialiasing, a triangle of twice that width."""
    values = np.random.default_rng(1).integers(0, 256, (8, 10), dtype=np.uint8)

    def weights(before: int, after: int) -> Array:
        scale = before / after
        distance = np.abs(np.arange(before)[None] + 0.5 - scale * (np.arange(after)[:, None] + 0.5)) / scale
        found = np.clip(1 - distance, 0, None)
        return np.asarray(found / found.sum(1, keepdims=True))

    found = read_frames(values, (2, 2), 1)[0].numpy()
    assert np.abs(found - weights(8, 2) @ values @ weights(10, 2).T).max() <= 0.51


def test_grey_of_colours_is_that_of_pictures(picture: Array) -> None:
    for channels in (slice(0, 3), slice(0, 1), slice(1, 2), slice(2, 3)):
        colours = np.zeros_like(picture)
        colours[..., channels] = picture[..., channels]
        exact = colours @ np.array([0.299, 0.587, 0.114])
        assert np.abs(read_frames(colours, (4, 6), 1)[0].numpy() - exact).max() <= 0.501
        grey = np.asarray(Image.fromarray(colours).convert("L")).astype(int)
        assert np.abs(read_frames(colours, (4, 6), 1)[0].numpy() - grey).max() <= 1  # of ties
    green: Array = np.array([[[0, 255, 0]]], np.uint8)
    assert read_frames(green, (1, 1), 1).item() == 150


def test_what_is_no_number_is_refused() -> None:
    for bad in (np.nan, np.inf, -np.inf):
        with pytest.raises(DamagedFilesError, match="it holds NaN or infinity"):
            read_frames(np.array([[0.5, bad]]), (1, 2), 1, maximum=1)


def test_white_of_every_type() -> None:
    for dtype, white in (("u1", 255), ("u2", 65535), (">u2", 65535), ("f4", 1), ("f8", 1), ("?", 1)):
        values = np.array([[0, white]]).astype(dtype)
        assert read_frames(values, (1, 2), 1).tolist() == [[[0, 255]]]
    assert read_frames(np.array([[4095, 32768]], np.uint16), (1, 2), 1).tolist() == [[[16, 128]]]


def test_opacity_lets_white_shine_through(picture: Array) -> None:
    shape = np.zeros((4, 6, 4), np.uint8)  # black all over: what it shows is in its opacity alone
    shape[1:3, 2:5, 3] = 255
    shape[0, 0, 3] = 51
    found = read_frames(shape, (4, 6), 1)[0]
    assert set(found[1:3, 2:5].flatten().tolist()) == {0}
    assert found[0, 0] == 204
    assert set(found[3].flatten().tolist()) == {255}
    shape[..., :3] = 250
    bright = read_frames(shape, (4, 6), 1)[0]
    assert set(bright[1:3, 2:5].flatten().tolist()) == {250}
    assert set(bright[3].flatten().tolist()) == {0}
    opaque = np.concatenate([picture, np.full((4, 6, 1), 255, np.uint8)], axis=2)
    assert torch.equal(read_frames(opaque, (4, 6), 3), read_frames(picture, (4, 6), 3))


@pytest.mark.parametrize("dtype", ["u2", "f4", "i4", ">u2"])
def test_twelve_bits_keep_their_levels(dtype: str) -> None:
    depth = (np.arange(24).reshape(4, 6) * 178).astype(dtype)  # up to 4094
    found = read_frames(depth, (4, 6), 1, maximum=4095)[0]
    assert torch.equal(found, (torch.from_numpy(np.arange(24.0).reshape(4, 6)) * 178 / 4095 * 255).round().byte())


def test_values_above_the_maximum_are_told(picture: Array) -> None:
    depth: Array = np.array([[0, 2000], [4000, 5000]], np.uint16)
    with pytest.raises(DamagedFilesError, match=r"pixels up to 5000, above maximum 4000; raise it, or set clip: true"):
        read_frames(depth, (2, 2), 1, maximum=4000)
    assert read_frames(depth, (2, 2), 1, maximum=4000, clip=True).tolist() == [[[0, 128], [255, 255]]]
    with pytest.raises(DamagedFilesError, match=r"pixels from 0 to 5000, not 0 to 1; set maximum"):
        read_frames(depth.astype(np.float32), (2, 2), 1)
    with pytest.raises(DamagedFilesError, match="pixels from -1 to 0"):
        read_frames(np.array([[-1, 0]], np.int16), (2, 2), 1, maximum=5)
    with pytest.raises(DamagedFilesError, match="int32 have no known white; set maximum"):
        read_frames(depth.astype(np.int32), (2, 2), 1)
