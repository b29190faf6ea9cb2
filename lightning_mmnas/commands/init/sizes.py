"""Sizes of a modality, measured on a sample of its cells or files from all over the table."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lightning_mmnas.commands.init.arrays import ask_if_doubtful, opened, shape_reading
from lightning_mmnas.commands.init.media import media_of
from lightning_mmnas.commands.init.outliers import far_numbers
from lightning_mmnas.commands.init.sampling import percent, quantile, spread
from lightning_mmnas.data.columns.audio import channels_cancel, sound_length
from lightning_mmnas.data.columns.axes import Reading, sizes
from lightning_mmnas.data.columns.images import ImageInfo, image_info, image_maximum
from lightning_mmnas.data.columns.texts import TextTokenizer
from lightning_mmnas.data.spec import Kind
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.embedded import source_in
from lightning_mmnas.data.table.paths import exists, locate
from lightning_mmnas.data.table.reading import Table, values
from lightning_mmnas.errors import DamagedFilesError, DataError, MissingExtraError

R = TypeVar("R")
_ENOUGH = 0.9
"""Share of the samples that a length is to hold as a whole."""
_MOST_SECONDS, _LEAST_SECONDS, _MOST_RATE = 10.0, 0.2, 16_000
_MOST_TOKENS, _MOST_WORDS, _MOST_MOMENTS, _MOST_POSES = 256, 8192, 256, 64
_HEARD = 32
"""Sounds of several channels that are decoded to see whether these cancel."""
_ALL = 2_000
"""Files whose greatest value is looked for in each of them."""


@dataclass(frozen=True)
class Measured:
    """How a modality is read.

    Attributes:
        spec: With its sizes.
        reading: What its samples are, in words.
        notes: What is lost of them.
        given: Settings that were given and not measured.
    """

    spec: ColumnSpec
    reading: str
    notes: list[str] = field(default_factory=list)
    given: frozenset[str] = frozenset()


def measure(table: Table, spec: ColumnSpec, folder: Path, given: Collection[str] = ()) -> Measured:
    """Fills in the sizes.

    Args:
        table: The table.
        spec: The modality.
        folder: What paths are relative to.
        given: Settings of `spec` that stay as they are.
    """
    return replace(_measure(table, spec, folder, {name: getattr(spec, name) for name in given}), given=frozenset(given))


def _measure(table: Table, spec: ColumnSpec, folder: Path, wanted: dict[str, Any]) -> Measured:
    if spec.kind == "features" and not spec.files:
        far = [note for column in spec.columns if (note := far_numbers(table, column)) is not None]
        return Measured(spec, f"{len(spec.columns)} number{'s' if len(spec.columns) > 1 else ''}", far)
    cells = _cells(table, spec.columns[0])
    if spec.kind == "text":
        return _measure_text(spec, [str(cell) for cell in spread(cells)], cells, wanted)
    every = [source for cell in cells if (source := source_in(cell, partial(locate, folder))) is not None]
    sample = [one for one in spread(every) if not isinstance(one, Path) or exists(one)]
    if not sample:
        sample = spread([one for one in every if not isinstance(one, Path) or exists(one)])
    if spec.kind == "audio":
        return _measure_audio(spec, sample, wanted)
    arrays = [one for one in sample if _is_array(one)]
    if len(arrays) > len(sample) / 2:
        return _measure_arrays(table, spec, arrays, every, wanted)
    if spec.kind == "video":
        found = replace(spec, **{"length": 16, **wanted})
        return Measured(found, f"{found.length} frames from all over each video, scaled to {_pixels(found)}")
    if spec.kind == "image":
        return _measure_pictures(spec, sample, every, wanted)
    return Measured(replace(spec, **wanted), f"of kind {spec.kind}")


def _cells(table: Table, column: str) -> list[Any]:
    """The cells of a column that are not empty; of lists, which are many numbers, at most one more than `_ALL`."""
    if table.has_lists(column):
        return [table.cell(row, column) for row in spread(np.flatnonzero(table.filled(column)).tolist(), _ALL + 1)]
    return list(values(table, column))


def _is_array(source: Any) -> bool:
    return isinstance(source, np.ndarray) or (isinstance(source, Path | bytes) and media_of(source) == "array")


def _pixels(spec: ColumnSpec) -> str:
    return f"{spec.size[0]} x {spec.size[1]} pixels (h x w), {'grey' if spec.channels == 1 else '3 colours'}"


def _measure_text(spec: ColumnSpec, texts: Sequence[str], cells: Sequence[Any], wanted: dict[str, Any]) -> Measured:
    tokenizer = TextTokenizer(wanted.get("tokenizer"), wanted.get("vocabulary", _MOST_WORDS))
    tokenizer.fit(lambda: [str(cell) for cell in cells])
    lengths = tokenizer.lengths(texts)
    longest = -(-int(quantile(lengths, _ENOUGH) if lengths else 1) // 8) * 8
    measured = {"length": min(_MOST_TOKENS, max(8, longest))}
    if wanted.get("tokenizer") is None:
        measured["vocabulary"] = max(64, tokenizer.known)
    found = replace(spec, **{**measured, **wanted})
    cut = [length for length in lengths if length > found.length]
    notes = [_cut(cut, lengths, "texts", f"{found.length} tokens", f"length={max(lengths)}")] if cut else []
    return Measured(found, f"texts of {found.length} tokens", notes)


def _measure_pictures(
    spec: ColumnSpec, sources: Sequence[Any], every: Sequence[Any], wanted: dict[str, Any]
) -> Measured:
    infos = [info for source in sources if (info := _or_none(image_info, source)) is not None]
    maximum = _white(infos, every) if any(info.deep for info in infos) else None
    found = replace(spec, **{"maximum": maximum, **wanted})
    notes = []
    if pages := [info for info in infos if info.frames > 1]:
        share = percent(len(pages), len(infos))
        notes.append(
            f"{share} of the pictures have up to {max(info.frames for info in pages)} pages; the first is read"
        )
    if clear := [info for info in infos if info.transparent and not info.deep]:
        notes.append(
            f"{percent(len(clear), len(infos))} of the pictures have transparency; it shows white, or black where "
            "the rest is nearly white"
        )
    white = "" if found.maximum is None else f", {found.maximum:g} becomes white"
    return Measured(found, f"pictures scaled to {_pixels(found)}{white}", notes)


def _white(infos: Sequence[ImageInfo], every: Sequence[Any]) -> float | None:
    """The value of deep pictures that becomes white; None: the largest of 16 bits."""
    known = [most for source in spread(every, _ALL) if (most := _or_none(image_maximum, source)) is not None]
    most = max(known, default=0.0)
    whole = not any(info.mode.startswith("F") for info in infos)
    if whole and (most <= 0 or 1 << 15 <= most < 1 << 16):
        return None
    if whole and len(every) > _ALL:
        return float((1 << int(most).bit_length()) - 1)
    return most if most > 0 else None


def _or_none(read: Callable[[Any], R], source: Any) -> R | None:
    try:
        return read(source)
    except (DamagedFilesError, MissingExtraError, OSError):  # told when every file is checked
        return None


def _measure_audio(spec: ColumnSpec, sources: Sequence[Any], wanted: dict[str, Any]) -> Measured:
    heard = [(source, one) for source in sources if (one := _or_none(sound_length, source)) is not None]
    known = [one for _, one in heard]
    rates, seconds = [rate for rate, _, _ in known], [length for _, _, length in known]
    if not rates:
        found = replace(spec, **wanted)
        return Measured(found, f"{found.seconds:g} s at {found.rate} Hz (no file could be measured)")
    length = quantile(seconds, _ENOUGH)
    rounded = -(-round(length * 1000) // 10) / 100  # up to hundredths
    measured = {
        "rate": int(min(_MOST_RATE, quantile(rates, 0.5))),
        "seconds": min(_MOST_SECONDS, max(_LEAST_SECONDS, rounded)),
    }
    found = replace(spec, **{**measured, **wanted})
    notes = []
    cut = [one for one in seconds if one > found.seconds + 0.01]
    if cut:
        notes.append(_cut(cut, seconds, "sounds", f"{found.seconds:g} s", f"seconds={max(seconds):.4g}"))
    higher = [one for one in rates if one > found.rate]
    if higher:
        share = percent(len(higher), len(rates))
        notes.append(
            f"{share} of the sounds have up to {max(higher)} Hz; what lies above {found.rate // 2} Hz is left out "
            f"(rate={max(higher)} keeps it)"
        )
    stereo = [source for source, (_, channels, _) in heard if channels > 1]
    cancelled = [source for source in stereo[:_HEARD] if _or_none(channels_cancel, source)]
    if cancelled:
        share = percent(len(cancelled), min(len(stereo), _HEARD))
        notes.append(f"the channels of {share} of the sounds with several cancel out; of these the loudest is read")
    return Measured(found, f"{found.seconds:g} s of sound at {found.rate} Hz", notes)


def _measure_arrays(
    table: Table, spec: ColumnSpec, sources: Sequence[Any], every: Sequence[Any], wanted: dict[str, Any]
) -> Measured:
    arrays, reason = opened(sources, spec.key)
    if not arrays:
        return Measured(replace(spec, **wanted), f"arrays of kind {spec.kind}, none of which can be read: {reason}")
    if spec.axes is None:
        try:
            reading = shape_reading(arrays, spec.kind)
        except DataError as error:
            raise DataError(f"{table.path}, column {spec.columns[0]!r}: {error}") from None
        ask_if_doubtful(table, spec.columns[0], arrays, reading)
        axes = reading.axes
        if not Reading(spec.kind, axes, "").default:
            spec = replace(spec, axes=axes)
        words = reading.text
    else:
        axes = spec.axes
        words = f"{spec.kind}: axes {axes}, such as {arrays[0].shape}"
    known = [sizes(array.shape, axes) for array in arrays if array.ndim == len(axes)]
    words = next((one.text for one in _readings_of(arrays, spec.kind) if one.axes == axes), words)
    lengths = [part.get("t", part.get("d", 1)) for part in known]
    if spec.kind == "features":
        found = replace(spec, **{"length": _middle(lengths), **wanted})
        return Measured(found, f"{words}, {found.length} taken" if len(set(lengths)) > 1 else words)
    if spec.kind in ("motion", "skeleton"):
        motion = spec.kind == "motion"
        least, most = (16, _MOST_MOMENTS) if motion else (32, _MOST_POSES)
        inner = _middle([part.get("c" if motion else "j", 1) for part in known])
        measured = {"length": min(most, max(least, _middle(lengths))), "channels" if motion else "joints": inner}
        found = replace(spec, **{**measured, **wanted})
        cut = [length for length in lengths if length > found.length]
        if cut and motion and found.fit == "crop":
            note = _cut(cut, lengths, "recordings", f"{found.length} moments", f"length={max(lengths)}")
            return Measured(found, f"{words}, cut to {found.length}", [note])
        return Measured(found, f"{words}, resampled to {found.length}")
    colours = _middle([part.get("c", 1) for part in known])
    pixels: dict[str, Any] = {"channels": 1 if colours == 1 else 3, "maximum": _maximum(arrays, every, spec.key)}
    found = replace(spec, **{**pixels, **({"length": 16} if spec.kind == "video" else {}), **wanted})
    white = "" if found.maximum is None else f", {found.maximum:g} becomes white"
    frames = f", {found.length} frames from all over it" if spec.kind == "video" else ""
    return Measured(found, f"{words}{frames}, scaled to {_pixels(found)}{white}")


def _readings_of(arrays: Sequence[Any], kind: Kind) -> Iterator[Reading]:
    try:
        found = shape_reading(arrays, kind)
    except DataError:
        return
    yield Reading(found.kind, found.axes, found.text)
    yield from found.alternatives


def _maximum(arrays: Sequence[Any], every: Sequence[Any], key: str | None) -> float | None:
    """The value that becomes white; None where the type says it."""
    if all(array.dtype.name in ("uint8", "bool") for array in arrays):
        return None
    if len(every) <= _ALL:
        there = [one for one in every if isinstance(one, bytes | np.ndarray) or (isinstance(one, Path) and exists(one))]
        arrays = opened(there, key)[0]
    most = max((float(array.max()) for array in arrays if array.size), default=0.0)
    if arrays[0].dtype.kind == "f" and most <= 1:
        return None
    if len(every) > _ALL and arrays[0].dtype.kind in "ui" and most > 0:  # what was not seen may be larger
        return float((1 << int(most).bit_length()) - 1)
    return most if most > 0 else None


def _cut(cut: Sequence[float], every: Sequence[float], what: str, size: str, way_out: str) -> str:
    return (
        f"{percent(len(cut), len(every))} of the {what} are longer than {size} and are cut there ({way_out} keeps all)"
    )


def _middle(numbers: Sequence[int]) -> int:
    return sorted(numbers)[len(numbers) // 2]
