"""How shapes of arrays are read: the reading in words, what is doubtful, and that axes are put in order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mmnas.data.columns.axes import arrange, check_axes, read_shape, read_shapes
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError

CLEAR = [
    ((128, 6), "f4", "tc", "motion: 128 moments of 6 channels"),
    ((50, 17, 2), "f4", "tjc", "skeleton: 50 moments of 17 joints with 2 coordinates"),
    ((50, 17, 3), "f8", "tjc", "skeleton: 50 moments of 17 joints with 3 coordinates"),
    ((3, 50, 25, 2), "f4", "ctjb", "skeleton: 50 moments of 25 joints with 3 coordinates, 2 bodies"),
    ((48, 64, 4), "u1", "hwc", "image: 48 x 64 pixels (h, w) of red, green, blue and opacity"),
    ((3, 48, 64), "u1", "chw", "image: 48 x 64 pixels (h, w) of 3 colours, channels first"),
    ((48, 64), "u2", "hw", "image: 48 x 64 pixels (h, w) of grey"),
    ((5, 48, 64, 3), "u1", "thwc", "video: 5 frames of 48 x 64 pixels (h, w) of 3 colours"),
    ((5, 3, 48, 64), "u1", "tchw", "video: 5 frames of 48 x 64 pixels (h, w) of 3 colours, channels first"),
    ((3, 5, 48, 64), "u1", "cthw", "video: 5 frames of 48 x 64 pixels (h, w) of 3 colours, channels first"),
    ((5, 8, 8), "u2", "thw", "video: 5 frames of 8 x 8 pixels (h, w) of grey"),
    ((768,), "f4", "d", "features: 768 numbers"),
    ((4096,), "f4", "d", "features: 4096 numbers"),
    ((300, 17, 3), "u2", "tjc", "skeleton: 300 moments of 17 joints with 3 coordinates"),
    ((3, 300, 17), "u2", "ctj", "skeleton: 300 moments of 17 joints with 3 coordinates"),
    ((64, 48, 3), "u2", "hwc", "image: 64 x 48 pixels (h, w) of 3 colours"),
    ((100, 151, 3), "f4", "hwc", "image: 100 x 151 pixels (h, w) of 3 colours"),
    ((3, 25, 25), "f4", "chw", "image: 25 x 25 pixels (h, w) of 3 colours, channels first"),
    ((8, 64), "u1", "hw", "image: 8 x 64 pixels (h, w) of grey"),
    ((100, 25, 3, 6), "f4", "tjcb", "skeleton: 100 moments of 25 joints with 3 coordinates, 6 bodies"),
    ((60, 25, 3, 1), "f4", "tjcb", "skeleton: 60 moments of 25 joints with 3 coordinates, 1 body"),
    ((60, 543, 3, 1), "f4", "tjcb", "skeleton: 60 moments of 543 joints with 3 coordinates, 1 body"),
    ((100, 17, 3, 2), "u2", "tjcb", "skeleton: 100 moments of 17 joints with 3 coordinates, 2 bodies"),
]


@pytest.mark.parametrize(("shape", "dtype", "axes", "text"), CLEAR)
def test_what_is_clear(shape: tuple[int, ...], dtype: str, axes: str, text: str) -> None:
    reading = read_shape(shape, dtype)
    assert (reading.axes, reading.text, reading.doubtful) == (axes, text, False)
    assert reading.kind == text.partition(":")[0]


DOUBTFUL = [
    ((6, 128), "f4", {"motion ct", "motion tc"}),
    ((1, 768), "f4", {"features 1d", "motion ct"}),
    ((48, 64), "f4", {"motion ct", "motion tc", "image hw"}),
    ((64, 48, 3), "f4", {"image hwc", "skeleton tjc"}),
    ((4, 48, 64), "u1", {"image chw", "video thw"}),
    ((3, 3, 48, 64), "u1", {"video tchw", "video cthw"}),
    ((16000,), "i2", {"features d", "motion t"}),
    ((4097,), "f4", {"features d", "motion t"}),
    ((60, 543, 3), "f4", {"image hwc", "skeleton tjc"}),  # bodies with hands and face of MediaPipe
    ((60, 478, 3), "f4", {"image hwc", "skeleton tjc"}),
    ((60, 553, 3), "f4", {"image hwc", "skeleton tjc"}),
    ((3, 60, 468), "f4", {"image chw", "skeleton ctj"}),
    ((64, 64, 3, 1), "u1", {"image hwc1", "video thwc"}),
    ((64, 64, 3, 1), "f4", {"image hwc1", "skeleton tjcb"}),
    ((100, 12, 3), "f4", {"image hwc", "skeleton tjc"}),  # an unusual number of joints
    ((100, 26, 3), "f4", {"image hwc", "skeleton tjc"}),
    ((100, 150, 3), "f4", {"image hwc", "skeleton tjc"}),
    ((25, 25, 3), "f4", {"image hwc", "skeleton tjc"}),
    ((7, 64), "u1", {"motion ct", "motion tc"}),
    ((64, 64, 13), "u2", {"video thw"}),  # or a picture of 13 bands, which nothing reads
    ((48, 64, 2), "f4", {"skeleton tjc"}),  # or the motion of pixels, which nothing reads
]


@pytest.mark.parametrize(("shape", "dtype", "options"), DOUBTFUL)
def test_what_is_doubtful_is_not_chosen(shape: tuple[int, ...], dtype: str, options: set[str]) -> None:
    reading = read_shape(shape, dtype)
    assert reading.doubtful
    others = {f"{other.kind} {other.axes}" for other in reading.alternatives}
    assert {f"{reading.kind} {reading.axes}", *others} >= options


@pytest.mark.parametrize("joints", [*range(13, 26), 33])
def test_usual_numbers_of_joints_are_skeletons(joints: int) -> None:
    assert read_shape((100, joints, 3), "f4")[:2] == ("skeleton", "tjc")
    assert not read_shape((100, joints, 3), "f4").doubtful
    assert read_shape((3, 100, joints), "f4")[:2] == ("skeleton", "ctj")
    assert not read_shape((3, 100, joints), "f4").doubtful


def test_channels_first_is_the_more_likely_of_two() -> None:
    reading = read_shape((6, 128), "f4")
    assert reading.text == "motion: 128 moments of 6 channels"
    assert reading.alternatives[0].text == "motion: 6 moments of 128 channels"


def test_lengths_that_vary_are_time() -> None:
    for shapes, axes in (
        ([(6, 128), (6, 140)], "ct"),
        ([(6, 128), (9, 128)], "tc"),
        ([(3, 90, 40), (3, 95, 40)], "ctj"),
    ):
        reading = read_shapes(shapes, "f4")
        assert (reading.axes, reading.doubtful) == (axes, False)
    assert read_shapes([(6, 128), (9, 128)], "f4").text == "motion: 6 to 9 moments of 128 channels"
    assert read_shapes([(64, 48, 3), (65, 48, 3)], "f4")[:2] == ("skeleton", "tjc")
    assert read_shapes([(700,), (900,)], "f4")[:2] == ("motion", "t")
    assert read_shapes([(700, 1), (900, 1)], "f4").alternatives == ()
    others: list[tuple[list[tuple[int, ...]], str, str]] = [
        ([(48, 64), (50, 66)], "f4", "hw"),
        ([(64, 48, 3), (65, 49, 3)], "f4", "hwc"),
        ([(3, 48, 64), (4, 48, 64)], "u1", "thw"),  # films of three frames and of four
        ([(2, 48, 64), (3, 48, 64)], "u1", "thw"),
        ([(2, 30, 17), (3, 30, 17)], "f4", "thw"),
        ([(1, 6), (1, 6), (2, 6)], "f4", "tc"),
        ([(1, 48, 64, 3), (1, 48, 64, 3), (2, 48, 64, 3)], "u1", "thwc"),
        ([(60, 543, 3), (70, 543, 3)], "f4", "tjc"),
        ([(60, 50, 3), (70, 50, 3)], "u2", "tjc"),
        ([(60, 50, 2), (70, 50, 2)], "f4", "tjc"),
    ]
    for some, dtype, axes in others:
        assert read_shapes(some, dtype)[1:4:2] == (axes, False)


def test_a_known_kind_leaves_fewer_readings() -> None:
    assert read_shape((64, 48), "f4", "motion")[1:4:2] == ("tc", False)
    assert read_shape((6, 128), "f4", "motion").doubtful
    assert read_shape((1, 768), "f4", "features")[1:4:2] == ("1d", False)
    assert read_shape((64, 48), "f4", "image")[1:4:2] == ("hw", False)
    with pytest.raises(DataError, match=r"shape \(6, 128\) and type float32 do not fit kind 'skeleton'"):
        read_shape((6, 128), "f4", "skeleton")


def test_what_fits_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="different numbers of axes"):
        read_shapes([(3, 4), (3, 4, 5)], "f4")
    with pytest.raises(DataError, match="is empty"):
        read_shape((0, 3), "f4")
    for shape in ((2, 3, 4, 5, 6, 7), (100, 25, 3, 7)):  # so many bodies are none
        with pytest.raises(DataError, match="do not fit any kind"):
            read_shape(shape, "f4")


@pytest.mark.parametrize(
    ("kind", "axes", "shape", "order"),
    [
        ("motion", "ct", (2, 5), (1, 0)),
        ("image", "chw", (3, 4, 5), (1, 2, 0)),
        ("image", "wh", (4, 5), (1, 0)),
        ("video", "cthw", (3, 2, 4, 5), (1, 2, 3, 0)),
        ("video", "tchw", (2, 3, 4, 5), (0, 2, 3, 1)),
        ("skeleton", "ctjb", (3, 7, 5, 2), (1, 2, 0, 3)),
        ("skeleton", "tbjc", (7, 2, 5, 3), (0, 2, 3, 1)),
        ("motion", "tc", (5, 2), (0, 1)),
        ("video", None, (2, 4, 5, 3), (0, 1, 2, 3)),
    ],
)
def test_axes_are_put_in_order(kind: str, axes: str | None, shape: tuple[int, ...], order: tuple[int, ...]) -> None:
    array: np.ndarray[Any, Any] = np.arange(np.prod(shape)).reshape(shape)
    assert np.array_equal(arrange(array, kind, axes, "a"), array.transpose(order))


def test_axes_of_length_one_are_dropped() -> None:
    array: np.ndarray[Any, Any] = np.arange(12.0).reshape(1, 3, 4)
    assert np.array_equal(arrange(array, "motion", "1ct", "a"), array[0].T)
    assert np.array_equal(arrange(array.reshape(2, 2, 3, 1), "image", "hwc1", "a"), array.reshape(2, 2, 3))
    with pytest.raises(DamagedFilesError, match=r"a: an array of shape \(3, 4\) instead of \(1, d\)"):
        arrange(array[0], "features", "1d", "a")


def test_other_shapes_are_refused_with_the_way_out(tmp_path: Path) -> None:
    array: np.ndarray[Any, Any] = np.zeros((3, 48, 64), np.uint8)
    assert np.array_equal(arrange(array, "image", None, "a"), array)  # three axes are (h, w, colours), unless told
    with pytest.raises(DamagedFilesError, match=r"instead of \(d\); if it is 768 numbers, .* set axes: 1d"):
        arrange(np.zeros((1, 768)), "features", None, "a")
    with pytest.raises(DamagedFilesError, match=r"\(1, 9, 6\) instead of .*; if it is 9 moments.* set axes: 1tc"):
        arrange(np.zeros((1, 9, 6)), "motion", None, "a")


def test_impossible_axes_are_refused() -> None:
    check_axes("motion", "ct")
    check_axes("text", None)
    with pytest.raises(ConfigError, match=r"axes of kind 'motion' are the letters of 't' or 'tc' in any order .*'hw'"):
        check_axes("motion", "hw")
    with pytest.raises(ConfigError, match="kind 'audio' has none"):
        check_axes("audio", "t")
