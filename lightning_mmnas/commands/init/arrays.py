"""What the arrays of a column are: by their shapes and their type, and asked for where that is doubtful."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightning_mmnas.data.columns.arrays import open_array
from lightning_mmnas.data.spec import Kind
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.errors import DamagedFilesError, DataError


def read_arrays(table: Table, name: str, paths: Sequence[Path | bytes], folder: Path) -> ColumnSpec:
    """How a column of arrays is read.

    Args:
        table: The table.
        name: The column.
        paths: Some of its files.
        folder: What paths are relative to.

    Raises:
        DataError: It is doubtful what they are; lists the options.
    """
    for path in paths:
        try:
            shape, dtype = (array := open_array(path)).shape, array.dtype  # type: ignore[arg-type]
        except DamagedFilesError:
            continue
        kind = _kind(shape, dtype.name)
        if kind is not None:
            return ColumnSpec(kind, [name], files=kind == "features")
    raise DataError(f"{table.path}, column {name!r}: no array of a known shape")


def _kind(shape: tuple[int, ...], dtype: str) -> Kind | None:
    if len(shape) == 3:
        return "image" if shape[2] == 3 and dtype == "uint8" else "skeleton" if shape[2] == 3 else "video"
    if len(shape) == 2:
        return "image" if dtype == "uint8" or min(shape) > 64 else "motion"
    return "features" if len(shape) == 1 else "video" if len(shape) == 4 else None
