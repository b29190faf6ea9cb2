"""What the axes of an array mean: time, channels, height, joints; said, and never chosen in silence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from lightning_mmnas.data.columns.column import damaged
from lightning_mmnas.data.spec import Kind
from lightning_mmnas.errors import ConfigError, DataError

Shape = tuple[int, ...]
Array = np.ndarray[Any, np.dtype[Any]]

LETTERS: Mapping[str, str] = {
    "t": "time",
    "c": "channels, colours or coordinates",
    "h": "height",
    "w": "width",
    "j": "joints",
    "b": "bodies",
    "d": "numbers of a vector",
    "1": "an axis of length 1 that means nothing",
}
"""What `axes` is spelt of."""

DEFAULT_AXES: Mapping[str, tuple[str, ...]] = {
    "image": ("hw", "hwc"),
    "video": ("thw", "thwc"),
    "motion": ("t", "tc"),
    "skeleton": ("tjc", "tjcb"),
    "features": ("d",),
}
"""How arrays of a kind are read where `axes` is not given."""

_ORDER = {kind: named[-1] for kind, named in DEFAULT_AXES.items()}
"""All axes of a kind in the order in which they are handed on."""
_JOINTS = frozenset({*range(13, 26), 33})
"""Joints of the usual skeletons: COCO, OpenPose, Human3.6M, Kinect, MediaPipe."""
_MESHES = frozenset({468, 478, 543, 553})
"""Joints of MediaPipe's faces and of its whole bodies, without and with irises."""
_MAX_JOINTS, _MAX_BODIES = 150, 6
_PIXELS = 8
"""Least height and width of what may be a picture without further evidence."""
_BANDS = 16
"""Length of a last axis behind a square from which it is rather the width of frames than bands of a picture."""
_VECTOR = 4096
"""Longest array that is a vector rather than a recording, where nothing else tells."""


@dataclass(frozen=True)
class Reading:
    """One way to read an array.

    Attributes:
        kind: Kind of the modality.
        axes: One letter of `LETTERS` per axis.
        text: The same in words, with its sizes.
        weight: 2: plausible, 1: possible, 0: only where the kind is known.
    """

    kind: Kind
    axes: str
    text: str
    weight: int = 2

    @property
    def default(self) -> bool:
        """Whether arrays of this kind are read like that where `axes` is not given."""
        return self.axes in DEFAULT_AXES[self.kind]


class ShapeReading(NamedTuple):
    """How arrays are read.

    Attributes:
        kind: Kind of the modality.
        axes: One letter of `LETTERS` per axis.
        text: The same in words.
        doubtful: Whether another reading is as plausible, or none is plausible; ask, do not choose.
        alternatives: The other readings, the more plausible ones first.
    """

    kind: Kind
    axes: str
    text: str
    doubtful: bool
    alternatives: tuple[Reading, ...]


def read_shape(shape: Shape, dtype: np.dtype[Any] | str, kind: Kind | None = None) -> ShapeReading:
    """Says how one array is read; see `read_shapes`.

    Examples:
        >>> read_shape((6, 128), "float32").doubtful
        True
        >>> read_shape((3, 48, 64), "uint8")[:3]
        ('image', 'chw', 'image: 48 x 64 pixels (h, w) of 3 colours, channels first')
    """
    return read_shapes([shape], dtype, kind)


def read_shapes(shapes: Sequence[Shape], dtype: np.dtype[Any] | str, kind: Kind | None = None) -> ShapeReading:
    """Says how the arrays of a column are read: by their shapes, by which axes vary in length, and by their type.

    Args:
        shapes: Shapes of some of the arrays, one or more; the axis whose length varies is time.
        dtype: Their type; bytes are pixels rather than coordinates.
        kind: Kind of the modality, where it is known.

    Raises:
        DataError: They have different numbers of axes, an empty one, or fit no kind.
    """
    axes_of = {len(shape): shape for shape in shapes}
    if len(axes_of) != 1:
        raise DataError(f"arrays of different numbers of axes: {', '.join(map(str, axes_of.values()))}")
    if any(0 in shape for shape in shapes):
        raise DataError(f"an array of shape {next(shape for shape in shapes if 0 in shape)} is empty")
    found = [reading for reading in _readings(shapes, np.dtype(dtype)) if kind in (None, reading.kind)]
    if kind is None:
        found = [reading for reading in found if reading.weight > 0]
    if not found:
        what = "any kind" if kind is None else f"kind {kind!r}"
        raise DataError(f"arrays of shape {shapes[0]} and type {np.dtype(dtype)} do not fit {what}")
    found.sort(key=lambda reading: -reading.weight)
    best, others = found[0], tuple(found[1:])
    doubtful = any(reading.weight == best.weight for reading in others) or (kind is None and best.weight < 2)
    return ShapeReading(best.kind, best.axes, best.text, doubtful, others)


def check_axes(kind: str, axes: str | None) -> None:
    """Raises `ConfigError` for axes that the kind does not have."""
    if axes is None:
        return
    if kind not in DEFAULT_AXES:
        raise ConfigError(f"axes are of arrays, and kind {kind!r} has none; got {axes!r}")
    letters = sorted(axes.replace("1", ""))
    if letters not in [sorted(accepted) for accepted in DEFAULT_AXES[kind]]:
        accepted = " or ".join(f"{name!r}" for name in DEFAULT_AXES[kind])
        named = ", ".join(f"{letter}: {LETTERS[letter]}" for letter in (*_ORDER[kind], "1"))
        raise ConfigError(f"axes of kind {kind!r} are the letters of {accepted} in any order ({named}), got {axes!r}")


def arrange(array: Array, kind: str, axes: str | None, source: object) -> Array:
    """Brings the axes of an array into the order of the kind: (t, h, w, c), (t, j, c, b), (t, c), (d,).

    Args:
        array: As the file has it.
        kind: Kind of the modality.
        axes: Its axes; None: those of `DEFAULT_AXES`.
        source: What to call it in messages.

    Raises:
        DamagedFilesError: It does not have these axes, or an axis is empty.
    """
    named = next((one for one in DEFAULT_AXES[kind] if len(one) == array.ndim), None) if axes is None else axes
    unsuitable = named is None or len(named) != array.ndim or 0 in array.shape
    if (
        named is None
        or unsuitable
        or any(size != 1 for size, name in zip(array.shape, named, strict=True) if name == "1")
    ):
        wanted = " or ".join(f"({', '.join(one)})" for one in ([axes] if axes else DEFAULT_AXES[kind]))
        raise damaged(str(source), f"an array of shape {array.shape} instead of {wanted}{way_out(array, kind, axes)}")
    kept = named.replace("1", "")
    array = array.reshape([size for size, name in zip(array.shape, named, strict=True) if name != "1"])
    arranged: Array = array.transpose([kept.index(name) for name in _ORDER[kind] if name in kept])
    return arranged


def sizes(shape: Shape, axes: str) -> dict[str, int]:
    """Length of each axis by its letter."""
    return {name: size for name, size in zip(axes, shape, strict=True) if name != "1"}


def way_out(array: Array, kind: str, axes: str | None) -> str:
    """The end of a message about an array that was read wrongly: the axes that it may have, if others than now."""
    if axes is not None or kind not in DEFAULT_AXES or 0 in array.shape:
        return ""
    try:
        reading = read_shape(array.shape, array.dtype, kind)  # type: ignore[arg-type]  # a key of DEFAULT_AXES
    except DataError:
        return ""
    if reading.axes in DEFAULT_AXES[kind]:
        return ""
    return f"; if it is {reading.text.partition(': ')[2]}, set axes: {reading.axes}"


def _readings(shapes: Sequence[Shape], dtype: np.dtype[Any]) -> list[Reading]:
    """All readings that the number of axes allows, in the order of preference among equals."""
    shape = sorted(shapes)[len(shapes) // 2]
    fixed = [len({one[axis] for one in shapes}) == 1 for axis in range(len(shape))]
    weigh = {1: _one_axis, 2: _two_axes, 3: _three_axes, 4: _four_axes}
    found = dict(weigh[len(shape)](shape, fixed, dtype)) if len(shape) in weigh else {}
    readings = [Reading(kind, axes, _words(kind, axes, shapes), weight) for (kind, axes), weight in found.items()]
    if len(shape) > 1 and shape[0] == 1 and fixed[0]:
        known = {(reading.kind, reading.axes.replace("c", "1", 1)) for reading in readings}  # the same, one channel
        lone = []
        for inner in _readings([one[1:] for one in shapes], dtype):
            axes = f"1{inner.axes}"
            if (inner.kind, axes) not in known:
                lone.append(Reading(inner.kind, axes, _words(inner.kind, axes, shapes), inner.weight))
        return lone + readings
    return readings


_Weights = list[tuple[tuple[Kind, str], int]]


def _one_axis(shape: Shape, fixed: list[bool], dtype: np.dtype[Any]) -> _Weights:
    if not fixed[0]:
        return [(("motion", "t"), 2)]
    long = shape[0] > _VECTOR
    return [(("features", "d"), 2), (("motion", "t"), 2 if long else 1)]


def _two_axes(shape: Shape, fixed: list[bool], dtype: np.dtype[Any]) -> _Weights:
    (rows, columns), pixels = shape, dtype.kind in "bu"
    if columns == 1:
        return [(("motion", "tc"), 2), (("features", "d1"), 1 if fixed[0] else 0)]
    if rows == 1 and fixed[0]:
        time: _Weights = [(("motion", "ct"), 2)]
        return [*time, (("motion", "tc"), 0), (("image", "hw"), 0)]
    narrow = min(shape) < 2 * _PIXELS
    first, last = 2, 2 if columns >= rows else 1  # time first is what we document, time last what torch takes
    picture = 1 if narrow else 2
    if fixed[0] != fixed[1]:
        first, last, picture = (2, 0, 1) if fixed[1] else (0, 2, 1)
    elif not fixed[0]:
        first, last, picture = 0, 0, 2
    if pixels:  # sensors rarely give unsigned numbers
        picture = 2 if min(shape) >= _PIXELS else 1
        first, last = (min(one, 1 if picture == 2 else 2) for one in (first, last))
    found: _Weights = [(("motion", "ct"), last), (("motion", "tc"), first)]
    if rows >= columns:
        found.reverse()
    return [*found, (("image", "hw"), picture)]


def _three_axes(shape: Shape, fixed: list[bool], dtype: np.dtype[Any]) -> _Weights:
    a, b, c = shape
    bytes_ = _are_bytes(dtype)
    found: _Weights = []
    if c in (1, 3, 4) and fixed[2]:
        weight = 2 if c < 4 or bytes_ else 1
        if not bytes_ and c == 3 and ((fixed[1] and not fixed[0]) or (b in _JOINTS and a != b)):
            weight = 1
        found.append((("image", "hwc"), weight))
    if a in (1, 3, 4) and fixed[0]:
        weight = 2 if min(b, c) >= _PIXELS and (a < 4 or bytes_) else 1
        if not bytes_ and a == 3 and ((fixed[2] and not fixed[1]) or (c in _JOINTS and b != c)):
            weight = 1
        found.append((("image", "chw"), weight))
    if c in (2, 3) and fixed[2]:
        likely = fixed[1] and _are_joints(b, dtype, not fixed[0])
        flow = c == 2 and fixed[0] and b > max(_JOINTS)  # the motion of pixels has two numbers too
        found.append((("skeleton", "tjc"), (1 if flow else 2) if likely else 0))
    if a in (2, 3) and fixed[0]:
        likely = fixed[2] and _are_joints(c, dtype, not fixed[1]) and (b != c or not fixed[1])
        sure = a == 2 or c in _JOINTS | _MESHES or not fixed[1]
        found.append((("skeleton", "ctj"), 2 if likely and sure else int(likely)))
    weight = 2 if bytes_ or min(b, c) >= _PIXELS else 1
    if a in (1, 3) and fixed[0]:
        weight = 1
    if all(fixed) and a == b >= _PIXELS and c < min(_BANDS, a):
        weight = 1  # pictures of many bands, which are not read?
    if c in (1, 2, 3, 4) and fixed[2]:
        weight = 0
    found.append((("video", "thw"), weight))
    return found


def _four_axes(shape: Shape, fixed: list[bool], dtype: np.dtype[Any]) -> _Weights:
    a, b, c, d = shape
    bytes_ = _are_bytes(dtype)
    found: _Weights = []
    if d == 1 and c in (1, 3, 4) and fixed[2] and fixed[3]:  # a picture, and an axis that means nothing
        found.append((("image", "hwc1"), 1 if not bytes_ and b in _JOINTS | _MESHES else 2))
    for axes, colours, sides in (("thwc", d, (b, c)), ("tchw", b, (c, d)), ("cthw", a, (c, d))):
        if colours in (1, 3, 4) and fixed[axes.index("c")]:
            sure = min(sides) >= _PIXELS or (axes == "thwc" and bytes_)
            weight = 2 if sure and (colours < 4 or bytes_) else 1
            if a == 1 and fixed[0]:
                weight = 1  # one frame, or an axis that means nothing
            found.append((("video", axes), weight))
    if not bytes_:
        for axes, dims, joints, bodies in (
            ("tjcb", c, b, d),
            ("tbjc", d, c, b),
            ("ctjb", a, c, d),
            ("btjc", d, c, a),
        ):
            if dims in (2, 3) and bodies <= _MAX_BODIES:
                sure = fixed[axes.index("j")] and fixed[axes.index("c")]
                sure = sure and _are_joints(joints, dtype, not fixed[axes.index("t")])
                found.append((("skeleton", axes), (1 if axes == "btjc" and bodies > 2 else 2) if sure else 0))
    return found


def _are_bytes(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "bu" and dtype.itemsize == 1


def _are_joints(count: int, dtype: np.dtype[Any], moving: bool) -> bool:
    """Whether an axis may be joints; unsigned numbers only by their usual count, or beside time."""
    if _are_bytes(dtype):
        return False
    return count in _JOINTS | _MESHES or (4 <= count <= _MAX_JOINTS and (dtype.kind != "u" or moving))


def _words(kind: Kind, axes: str, shapes: Sequence[Shape]) -> str:
    """A reading in words, such as "motion: 6 moments of 128 channels"."""
    parts = [sizes(shape, axes) for shape in shapes]

    def size(letter: str) -> str:
        least, most = min(part[letter] for part in parts), max(part[letter] for part in parts)
        return str(least) if least == most else f"{least} to {most}"

    def some(letter: str, noun: str) -> str:
        return f"{size(letter)} {noun}{'' if size(letter) == '1' else 's'}"

    colours = parts[0].get("c", 1)
    first = ", channels first" if "c" in axes and axes.find("c") < axes.find("h") else ""
    pixels = f"{size('h')} x {size('w')} pixels (h, w)" if "h" in axes else ""
    grey = {1: "grey", 4: "red, green, blue and opacity"}.get(colours, f"{colours} colours")
    if kind == "features":
        text = some("d", "number")
    elif kind == "motion":
        text = f"{some('t', 'moment')} of {some('c', 'channel') if 'c' in axes else '1 channel'}"
    elif kind == "skeleton":
        bodies = f", {size('b')} bod{'y' if size('b') == '1' else 'ies'}" if "b" in axes else ""
        text = f"{some('t', 'moment')} of {some('j', 'joint')} with {size('c')} coordinates{bodies}"
    elif kind == "image":
        text = f"{pixels} of {grey}{first}"
    else:
        text = f"{some('t', 'frame')} of {pixels} of {grey}{first}"
    lone = ", with an axis of length 1 that is dropped" if "1" in axes else ""
    return f"{kind}: {text}{lone}"
