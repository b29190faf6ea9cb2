"""Arrays of pixels against independent readings: their order, their range, their opacity."""

from typing import Any

import numpy as np
import pytest
import torch

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
