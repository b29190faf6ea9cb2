"""Targets of a regression in a table: one column of real numbers."""

import torch
from torch import Tensor

from lightning_mmnas.data.table.reading import Table
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


def no_target(reason: str, place: str) -> DataError:
    """The error for a cell that is no target, and why."""
    return DataError(f"{place}: {reason}{_WAY_OUT}")
