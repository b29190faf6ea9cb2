"""Whether the labels of a table are classes or real numbers: the proposal of `mmnas init`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from lightning_mmnas.data.table.labels import is_unlabelled
from lightning_mmnas.data.table.reading import Cell, Table, number, number_share
from lightning_mmnas.errors import ConfigError, DataError

Choice = Literal["classes", "regression"]

_FEW = 10
"""Different numbers up to which labels may be classes, whatever the number of rows."""
_MANY = 50
"""Different whole numbers from which somebody has to say what they are."""
_ROWS = 10
"""Rows of a class, on average, below which its number is rather a quantity."""


def task_of(table: Table, label: str) -> tuple[Choice, str | None]:
    """Says what the labels of a table are; see `propose_task`.

    Raises:
        ConfigError: Both are plausible.
        DataError: They are real numbers but for a few cells; names these.
    """
    share, place = number_share(table, label), str(table.path)
    if share <= 0.5:
        return propose_task(table.cells(label), label, place)
    found = table.parsed(label).values
    numbers = found[~np.isnan(found)].tolist()
    if share == 1:
        return propose_task(numbers, label, place)
    try:
        amounts = propose_task(numbers, label, place)[0] == "regression"
    except ConfigError:
        amounts = False
    if amounts:
        try:
            table.numbers(label)
        except DataError as error:
            raise DataError(f"{error}; if they are names of classes after all: --task classes") from None
    return "classes", None


def propose_task(cells: Sequence[Cell], column: str, place: str) -> tuple[Choice, str | None]:
    """Says what the labels of a table are, where the command line does not.

    Numbers with fractions and many different values are targets; text and few whole numbers are classes.

    Args:
        cells: Those of the label column.
        column: Its name.
        place: The table, for messages.

    Returns:
        What they are; and why they are targets, None for classes.

    Raises:
        ConfigError: Both are plausible.
    """
    try:
        found = [number(cell) for cell in cells if not is_unlabelled(cell)]
    except ValueError:  # text, or lists
        return "classes", None
    distinct = len(set(found))
    fractions = sum(not value.is_integer() for value in found)
    if fractions and distinct > _FEW:
        return "regression", (
            f"column {column!r} has {distinct} different numbers, {fractions} of {len(found)} with a fraction: a "
            "regression is configured (otherwise: --task classes)"
        )
    if fractions or distinct >= _MANY or (distinct > _FEW and len(found) < _ROWS * distinct):
        kind = "numbers with a fraction" if fractions else "whole numbers"
        raise ConfigError(
            f"{place}: the labels in column {column!r} are {distinct} different {kind} in {len(found)} rows; say what "
            "they are: --task regression (to be predicted as numbers) or --task classes"
        )
    return "classes", None
