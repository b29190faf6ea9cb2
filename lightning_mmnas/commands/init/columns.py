"""What the columns of a user's table are: proposals of `mmnas init`."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from lightning_mmnas.data.columns.arrays import open_array
from lightning_mmnas.data.spec import Kind
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.reading import Cell, Table, number, number_share, values
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError

_SUFFIXES: dict[str, Kind] = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"), "image"),
    **dict.fromkeys((".wav", ".flac", ".ogg", ".mp3"), "audio"),
    **dict.fromkeys((".mp4", ".avi", ".mov", ".mkv", ".webm"), "video"),
}
_SEEN = 20
"""Files that are opened to propose a size."""
_WORDS = 3
"""Mean number of words from which a column is text."""


def propose(table: Table, taken: Sequence[str | None]) -> tuple[dict[str, ColumnSpec], dict[str, str]]:
    """Proposes the modalities of a table.

    Args:
        table: The table.
        taken: Columns that are something else: label, split, group, id.

    Returns:
        The modalities, and why each other column is left out.
    """
    found: dict[str, ColumnSpec] = {}
    left: dict[str, str] = {}
    numbers: list[str] = []
    for name in table.names:
        if name in taken:
            continue
        cells = list(values(table, name))
        reason = _useless(cells)
        if reason is not None:
            left[name] = reason
        elif (kind := _file_kind(table, cells)) is not None:
            found[_modality(name)] = describe(table, ColumnSpec(kind, [name], files=kind == "features"))
        elif number_share(table, name) > 0.5:
            if _counts(table.numbers(name)):
                left[name] = "it numbers the rows"
            else:
                numbers.append(name)
        elif all(isinstance(cell, str) for cell in cells) and _mean_words(cells) >= _WORDS:
            found[_modality(name)] = describe(table, ColumnSpec("text", [name]))
        else:
            left[name] = "short texts, no numbers and no files that exist; give it with --label, --group or --modality"
    if numbers:
        key = "numbers" if "numbers" not in found else "numbers_of_table"
        found[key] = ColumnSpec("features", numbers)
    return found, left


def parse_modality(table: Table, text: str) -> tuple[str, ColumnSpec]:
    """Reads `name=kind:column,column`.

    Raises:
        ConfigError: It is not of that form, or names no kind or column that exists.
    """
    name, equals, rest = text.partition("=")
    kind, colon, listed = rest.partition(":")
    columns = [column.strip() for column in listed.split(",") if column.strip()]
    if not (equals and colon and name.strip() and columns):
        raise ConfigError(f"--modality {text!r} is not of the form name=kind:column,column")
    if kind not in get_args(Kind):
        raise ConfigError(f"--modality {text!r}: kind {kind!r} is not in {list(get_args(Kind))}")
    for column in columns:
        table.need(column, "--modality")
    files = kind == "features" and not any(map(_is_number, list(values(table, columns[0]))[:_SEEN]))
    spec = ColumnSpec(cast(Kind, kind), columns, files=files)
    spec.check(name.strip())
    return name.strip(), describe(table, spec)


def describe(table: Table, spec: ColumnSpec) -> ColumnSpec:
    """Fills in the sizes, from the first files that can be read."""
    cells = list(values(table, spec.columns[0]))
    if spec.kind == "text":
        words = sorted(len(str(cell).split()) for cell in cells)
        length = words[int(0.9 * (len(words) - 1))] if words else 1
        distinct = len({word.lower() for cell in cells for word in str(cell).split()})
        return replace(spec, length=min(256, max(8, -(-length // 8) * 8)), vocabulary=min(8192, max(64, distinct)))
    if spec.kind == "features" and not spec.files:
        return spec
    paths = [table.path.parent / str(cell).strip() for cell in cells]
    paths = [path for path in paths if path.is_file()][:_SEEN]
    if spec.kind == "audio":
        return _describe_audio(spec, paths)
    arrays = []
    for path in paths:
        if path.suffix.lower() == ".npy":
            try:
                arrays.append(open_array(path))
            except DamagedFilesError:  # all of them are listed when every file is checked
                continue
    if not arrays:
        return replace(spec, length=16) if spec.kind == "video" else spec
    shapes = [array.shape for array in arrays]
    longest = sorted(shape[0] if shape else 1 for shape in shapes)[len(shapes) // 2]
    if spec.kind == "features":
        return replace(spec, length=longest)
    if spec.kind == "motion":
        channels = shapes[0][1] if len(shapes[0]) > 1 else 1
        return replace(spec, channels=channels, length=min(256, max(16, longest)))
    if spec.kind == "skeleton":
        joints = shapes[0][1] if len(shapes[0]) > 1 else 25
        return replace(spec, joints=joints, length=min(64, max(32, longest)))
    colour = len(shapes[0]) == (4 if spec.kind == "video" else 3)
    whites = [float(array.max()) for array in arrays if array.size]
    bounded = all(a.dtype.name in ("uint8", "bool") for a in arrays) or (
        arrays[0].dtype.kind == "f" and max(whites) <= 1
    )
    maximum = None if bounded or not whites or max(whites) <= 0 else max(whites)
    return replace(
        spec, channels=3 if colour else 1, maximum=maximum, length=16 if spec.kind == "video" else spec.length
    )


def _describe_audio(spec: ColumnSpec, paths: Sequence[Path]) -> ColumnSpec:
    rates, seconds = [], []
    for path in paths:
        try:
            with wave.open(str(path), "rb") as sound:
                rates.append(sound.getframerate())
                seconds.append(sound.getnframes() / sound.getframerate())
        except (wave.Error, EOFError, OSError, ZeroDivisionError):  # another format, or damaged
            continue
    if not rates:
        return spec
    middle = sorted(seconds)[len(seconds) // 2]
    return replace(spec, rate=min(16_000, min(rates)), seconds=round(min(10.0, max(0.2, middle)), 2))


def _file_kind(table: Table, cells: Sequence[Cell]) -> Kind | None:
    first = [table.path.parent / cell.strip() for cell in cells[:_SEEN] if isinstance(cell, str) and len(cell) < 1000]
    suffixes = {path.suffix.lower() for path in first}
    if not first or not any(path.is_file() for path in first):
        return None
    for suffix, kind in _SUFFIXES.items():
        if suffix in suffixes:
            return kind
    if suffixes != {".npy"}:
        return None
    for path in first:
        try:
            shape, dtype = (array := open_array(path)).shape, array.dtype
        except DamagedFilesError:
            continue
        if len(shape) == 3:
            # (t, joints, 3) and (h, w, 3) look alike; pixels are bytes.
            return "image" if shape[2] == 3 and dtype.name == "uint8" else "skeleton" if shape[2] == 3 else "video"
        if len(shape) == 2:
            # (t, channels) and (h, w) look alike; pixels are bytes, or many in both directions.
            return "image" if dtype.name == "uint8" or min(shape) > 64 else "motion"
        return "features" if len(shape) == 1 else "video" if len(shape) == 4 else None
    return None


def _useless(cells: Sequence[Cell]) -> str | None:
    if not cells:
        return "it is empty"
    if any(isinstance(cell, list | dict) for cell in cells):
        return "lists are labels only; give it with --label"
    if len({str(cell) for cell in cells}) == 1:
        return f"it is constant: {str(cells[0])[:40]!r}"
    return None


def _is_number(cell: Cell) -> bool:
    try:
        number(cell)
    except ValueError:
        return False
    return True


def _counts(numbers: np.ndarray[Any, np.dtype[np.float64]]) -> bool:
    found = np.sort(numbers[~np.isnan(numbers)])
    return len(found) > 2 and bool((np.diff(found) == 1).all())


def _mean_words(cells: Sequence[str]) -> float:
    return sum(len(cell.split()) for cell in cells) / len(cells)


def _modality(name: str) -> str:
    kept = "".join(c if c.isalnum() else "_" for c in name).strip("_") or "column"
    return f"{kept}_" if kept == "label" or kept[0].isdigit() else kept


def check_proposal(table: Table, columns: dict[str, ColumnSpec], left: dict[str, str]) -> None:
    """Raises `DataError` where nothing is left to learn from."""
    if not columns:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in left.items())
        raise DataError(f"{table.path} has no column that is a modality ({reasons}); name some with --modality")
