"""What the arrays of a column are: by their shapes and their type, and asked for where that is doubtful."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mmnas.data.columns.arrays import array_in, open_array
from lightning_mmnas.data.columns.axes import Reading, ShapeReading, read_shapes
from lightning_mmnas.data.names import safe_name
from lightning_mmnas.data.spec import Kind
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.listed import Array
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.errors import DamagedFilesError, DataError

_OVER_TIME = Reading("motion", "t", "moments of one channel")


def read_arrays(
    table: Table, name: str, sources: Sequence[Path | bytes | Array], places: Sequence[str] = ()
) -> ColumnSpec | str:
    """How a column of arrays is read.

    Args:
        table: The table.
        name: The column.
        sources: Some of its files, their contents, or its arrays.
        places: What messages call each of the arrays; none: the column.

    Returns:
        The modality; or why these arrays are none.

    Raises:
        DataError: It is doubtful what they are; lists the options.
    """
    arrays, reason = opened(sources, None)
    if not arrays:
        return f"its arrays cannot be read: {reason}"
    try:
        found = shape_reading(arrays)
    except DataError as error:
        return f"{error}; name how they are read with --modality"
    _refuse_odd_lengths(name, arrays, places or [f"{table.path}, column {name!r}"] * len(arrays))
    ask_if_doubtful(table, name, arrays, found)
    return ColumnSpec(found.kind, [name], files=found.kind == "features", axes=_axes(found))


def ask_if_doubtful(table: Table, name: str, arrays: Sequence[Any], found: ShapeReading, called: str = "") -> None:
    """Raises `DataError` with the options where arrays can be read in several ways."""
    if not found.doubtful:
        return
    first = Reading(found.kind, found.axes, found.text)
    options = "\n".join(
        f"  {_option(name, reading, called)}   ({reading.text})" for reading in (first, *found.alternatives)
    )
    raise DataError(
        f"{table.path}, column {name!r}: arrays of shape {arrays[0].shape} and type {arrays[0].dtype} can be read "
        f"in several ways; say which one it is (and name the other modalities likewise, since --modality replaces "
        f"what is proposed), or leave the column out: --without {name!r}\n{options}"
    )


def _refuse_odd_lengths(name: str, arrays: Sequence[Array], places: Sequence[str]) -> None:
    """Raises `DataError` where a few arrays of numbers have another length: damaged vectors, or recordings?"""
    lengths = Counter(array.shape for array in arrays)
    usual, count = lengths.most_common(1)[0]
    if len(arrays) / 2 < count < len(arrays) and all(array.ndim == 1 for array in arrays):
        odd = next(index for index, array in enumerate(arrays) if array.shape != usual)
        place = getattr(arrays[odd], "filename", None) or places[odd]  # of a memory map
        raise DataError(
            f"{place}: {arrays[odd].size} numbers, and {usual[0]} in most arrays of the column; if they are "
            f"vectors, mend that one; if they are recordings over time: {_option(name, _OVER_TIME, '')}; or leave the "
            f"column out: --without {name!r}"
        )


def shape_reading(arrays: Sequence[Any], kind: Kind | None = None) -> ShapeReading:
    """How most of the arrays are read: those of the most usual number of axes and type, and not the empty ones."""
    filled = [array for array in arrays if array.size]
    arrays = filled if 2 * len(filled) > len(arrays) else arrays
    usual = Counter((array.ndim, array.dtype) for array in arrays).most_common(1)[0][0]
    shapes = [array.shape for array in arrays if (array.ndim, array.dtype) == usual]
    return read_shapes(shapes, usual[1], kind)


def opened(sources: Sequence[Any], key: str | None) -> tuple[list[Any], str]:
    """The arrays that can be read, and the first reason why others cannot."""
    arrays, reason = [], ""
    read: Callable[[Any, str | None], Any]
    for source in sources:
        if isinstance(source, np.ndarray):
            arrays.append(source)
            continue
        read = array_in if isinstance(source, bytes) else open_array
        try:
            arrays.append(read(source, key))
        except DamagedFilesError as error:  # all of them are listed when every file is checked
            reason = reason or f"{error.files[0][0]}: {error.files[0][1]}"
    return arrays, reason


def _axes(reading: Reading | ShapeReading) -> str | None:
    known = Reading(reading.kind, reading.axes, reading.text)
    return None if known.default else reading.axes


def _option(name: str, reading: Reading, called: str) -> str:
    column = f'"{name}"' if "," in name or ";" in name else name
    given = f"{called or safe_name(name, reading.kind)}={reading.kind}:{column},axes={reading.axes}"
    return f"--modality {shlex.quote(given)}"
