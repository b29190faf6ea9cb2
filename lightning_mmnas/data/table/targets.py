"""Targets of a regression in a table: one column of real numbers."""

import torch
from torch import Tensor

from lightning_mmnas.data.table.labels import is_unlabelled
from lightning_mmnas.data.table.reading import Cell, Table, number
from lightning_mmnas.errors import DataError

_WAY_OUT = (
    ", as the target of a regression is; mend it, leave it empty, or take the column for classes (task: null; mmnas "
    "init --task classes)"
)


def read_targets(table: Table, column: str) -> Tensor:
    """The target of each row, float64 of shape (n,), NaN where its cell is empty.

    Raises:
        DataError: A cell is no number, or all are empty; names the line.
    """
    try:
        found = torch.from_numpy(table.numbers(column))
    except DataError as error:
        raise DataError(f"{error}{_WAY_OUT}") from None
    if bool(found.isnan().all()):
        raise DataError(f"{table.path}: no row has a target in column {column!r}; leave label out")
    return found


def cell_target(cell: Cell, place: str) -> float:
    """The target in one cell, NaN where it is empty.

    Args:
        cell: The cell.
        place: Of the cell, for messages.

    Raises:
        DataError: It is no number.
    """
    if is_unlabelled(cell):
        return float("nan")
    try:
        return number(cell)
    except ValueError as error:
        raise DataError(f"{place}: {error}{_WAY_OUT}") from None
