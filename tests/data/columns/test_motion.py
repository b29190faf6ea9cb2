"""Arrays of sensor channels against independent readings: their spectrum, their ends, their precision."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from lightning_mmnas.data.columns.motion import lowpass, read_motion, resample_linearly
from lightning_mmnas.errors import DamagedFilesError

Array = np.ndarray[Any, np.dtype[Any]]


def tone(cycles: float, t: int) -> Array:
    return np.sin(2 * np.pi * cycles * np.arange(t) / t)


def test_what_is_too_fast_does_not_come_back_as_something_slow() -> None:
    found = read_motion(tone(245, 5000)[:, None], 1, 256)[0].numpy()
    spectrum = np.abs(np.fft.rfft(found)) / 128  # amplitudes
    assert spectrum.max() < 0.01
    aliased = np.abs(np.fft.rfft(np.interp(np.linspace(0, 4999, 256), np.arange(5000), tone(245, 5000)))) / 128
    assert aliased.max() > 0.6  # what was read without a low-pass


@pytest.mark.parametrize("cycles", [3, 20, 60, 90])
def test_what_is_slow_stays_what_it_is(cycles: int) -> None:
    found = read_motion(tone(cycles, 5000), 1, 256)[0].numpy()
    wanted = np.sin(2 * np.pi * cycles * np.linspace(0, 4999, 256) / 5000)
    assert np.abs(found - wanted).max() < 0.03


def test_constants_ramps_and_ends_stay() -> None:
    assert torch.equal(read_motion(np.full((1000, 2), 7.25), 2, 33), torch.full((2, 33), 7.25))
    assert set(read_motion(np.full((1000, 1), 7.3), 1, 33)[0].tolist()) == {7.3}
    ramp = read_motion(np.linspace(-3, 5, 1000), 1, 33)[0]
    torch.testing.assert_close(ramp, torch.linspace(-3, 5, 33), atol=1e-4, rtol=0)
    assert read_motion(np.arange(10.0), 1, 1).tolist() == [[4.5]]


def test_equal_and_longer_lengths_are_linear() -> None:
    draw = np.random.default_rng(0).normal(5, 2, (40, 3))
    plain = torch.from_numpy(draw.astype(np.float32)).T
    assert torch.equal(read_motion(draw, 3, 40), plain)
    longer = interpolate(plain[None].contiguous(), 64, mode="linear", align_corners=True)[0]
    assert torch.equal(read_motion(draw, 3, 64), longer)
    assert torch.equal(read_motion(draw, 3, 20, "crop"), plain[:, 10:30])
    assert torch.equal(read_motion(draw, 3, 50, "crop")[:, :40], plain)
    assert torch.equal(resample_linearly(plain, 40), plain)


def test_channels_first_is_the_same_array() -> None:
    draw = np.random.default_rng(0).normal(size=(6, 128))
    assert torch.equal(read_motion(draw, 6, 128, axes="ct"), torch.from_numpy(draw).float())
    assert torch.equal(read_motion(draw, 6, 128, axes="ct"), read_motion(draw.T, 6, 128))
    with pytest.raises(DamagedFilesError, match=r"128 channels instead of 6; if it is 128 moments of 6 ch.* axes: ct"):
        read_motion(draw, 6, 128)


@pytest.mark.parametrize("dtype", ["i8", "f8", "u4", "i4"])
def test_what_float32_would_hide_is_kept(dtype: str) -> None:
    seconds = (1_700_000_000 + np.arange(100) % 26).astype(dtype)  # 26 values within half a minute
    found = read_motion(seconds, 1, 100)
    assert found.dtype == torch.float64
    assert found[0].tolist() == seconds.tolist()
    beside = np.stack([seconds, 7 * np.arange(100) - 300], 1).astype("f8")  # one of two channels needs it
    assert torch.equal(read_motion(beside, 2, 100), torch.from_numpy(beside.T))
    shorter = read_motion(seconds, 1, 50)[0]
    assert 1_700_000_000 <= shorter.min() < shorter.max() <= 1_700_000_026
    assert read_motion((np.arange(100) % 26).astype(dtype), 1, 100).dtype == torch.float32
    exact = (1_700_000_000 + 128 * np.arange(100)).astype(dtype)  # varies as little, but float32 has it as it is
    kept = read_motion(exact, 1, 100)
    assert (kept.dtype, kept[0].tolist()) == (torch.float32, exact.tolist())


def test_big_endian_half_precision_and_small_integers() -> None:
    values = np.arange(-6, 6).reshape(6, 2)
    for dtype in (">f4", ">f8", "<f2", "i1", ">i2", ">i8"):
        assert read_motion(values.astype(dtype), 2, 6).tolist() == values.T.tolist()


def test_a_lowpass_of_long_recordings_is_stable() -> None:
    found = lowpass(torch.from_numpy(tone(20, 300_000)[None] + 1e6), 64)
    assert (found[0] - 1e6 - torch.from_numpy(tone(20, 300_000))).abs().max() < 0.01
