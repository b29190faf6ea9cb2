"""Columns of numbers that are no inputs: they determine the label or the row, or are codes."""

from __future__ import annotations

import re
import shlex
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_mmnas.data.table.reading import Cell

_LONG = re.compile(r"\s*[+-]?\d{16,}\s*")
"""Whole numbers that double precision may not tell apart."""
_REPEATED = 3
"""Rows per value, on average, from which it is no chance that each value goes with one label only."""


def gives_label_away(cells: Sequence[Cell], labels: Sequence[Cell]) -> str | None:
    """Why a column is no input beside these labels; None: nothing speaks against it.

    Args:
        cells: The column; None where a cell is empty.
        labels: The label of each row, None where there is none.
    """
    pairs = [(_key(a), _key(b)) for a, b in zip(cells, labels, strict=True) if a is not None and b is not None]
    if len(pairs) < 2 * _REPEATED:
        return None
    values, classes = len({a for a, _ in pairs}), len({b for _, b in pairs})
    if classes < 2 or values < 2:
        return None
    together = len(set(pairs))
    if together == values and values * _REPEATED <= len(pairs):
        return "each of its values goes with one label only, so it tells the label"
    if together == classes and classes * _REPEATED <= len(pairs):
        return "each label goes with one of its values only, so it tells of the label"
    return "it is the label in another unit" if _is_linear(pairs) else None


def gives_row_away(
    name: str, cells: Sequence[Cell], numbers: np.ndarray[Any, np.dtype[np.float64]] | None
) -> str | None:
    """Why a column is no input whatever the labels are: it numbers or names the rows; None: it does not.

    Args:
        name: Its name.
        cells: Its cells that are not empty.
        numbers: The same as numbers, where they are.
    """
    words = re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower())
    if words[-1] in ("id", "ids", "uid", "uuid", "guid") and len(words) > 1:
        return f"it is called like an id{in_several_rows(name, cells)}"
    if len(cells) < 3:
        return None
    if numbers is not None:
        ordered = np.sort(numbers)
        steps = np.diff(ordered)
        whole = bool((ordered == np.floor(ordered)).all())
        if whole and bool((steps == 1).all()):
            return "it numbers the rows"
        if (
            whole
            and steps[0] > 0
            and bool((steps == steps[0]).all())
            and bool((np.abs(np.diff(numbers)) == steps[0]).all())
        ):
            return "it numbers the rows"
        return None
    if all(map(_is_uuid, cells)):
        return "it is an id, another one in every row"
    return None


def reads_as_code(cells: Sequence[Cell], numbers: np.ndarray[Any, np.dtype[np.float64]]) -> str | None:
    """Why numbers are no amounts: they have leading zeros, as postal codes, or are dates; None: they may be.

    Args:
        cells: A column's cells that are not empty.
        numbers: The same as numbers.
    """
    zeros = next((c.strip() for c in cells if isinstance(c, str) and re.fullmatch(r"\s*0\d+\s*", c)), None)
    if zeros is not None:
        return f"it holds codes with leading zeros, such as {zeros!r}, and no amounts"
    far = bool((np.abs(numbers) >= 2**53).any())
    long = (
        {int(c) for c in cells if isinstance(c, int) or (isinstance(c, str) and _LONG.fullmatch(c))} if far else set()
    )
    if len(long) > len({float(c) for c in long}):
        return (
            f"it holds whole numbers such as {max(long)}, longer than numbers that are told apart: ids and no amounts"
        )
    whole = numbers[(numbers == np.floor(numbers)) & (np.abs(numbers) < 1e9)].astype(np.int64)
    year, month, day = whole // 10_000, whole // 100 % 100, whole % 100
    dates = (year >= 1900) & (year <= 2100) & (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    if len(whole) == len(numbers) and bool(dates.all()):
        return f"it holds dates, such as {int(whole[0])}, whose differences are no days"
    return None


def in_several_rows(name: str, cells: Sequence[Cell]) -> str:
    """What to do with ids that are in several rows each, as the end of a reason; empty: each is in one."""
    count = len({_key(cell) for cell in cells})
    if count == len(cells):
        return ""
    way = f"--group {shlex.quote(name)} keeps its rows in one split"
    return f", and {count} of them are in {len(cells)} rows: where one is a recording or a person, {way}"


def determines(first: Sequence[Cell], second: Sequence[Cell]) -> bool:
    """Whether each value of one column goes with one value of the other, empty cells included."""
    pairs = {(_key(a), _key(b)) for a, b in zip(first, second, strict=True)}
    return len(pairs) == len({a for a, _ in pairs})


def _is_linear(pairs: Sequence[tuple[Any, Any]]) -> bool:
    try:
        values = np.array([(float(a), float(b)) for a, b in pairs])
    except (TypeError, ValueError):
        return False
    if not np.isfinite(values).all() or len(np.unique(values[:, 1])) <= 2:
        return False
    centred = values - values.mean(0)
    norms = np.sqrt((centred**2).sum(0))
    return bool(norms.min() > 0) and abs(float(centred[:, 0] @ centred[:, 1] / norms.prod())) > 1 - 1e-9


def _key(cell: Cell) -> Any:
    """Something hashable that is the same for the same content."""
    return cell.strip() if isinstance(cell, str) else cell if isinstance(cell, int | float) else repr(cell)


def _is_uuid(cell: Cell) -> bool:
    if not isinstance(cell, str) or len(cell.strip()) < 32:
        return False
    try:
        uuid.UUID(cell.strip())
    except ValueError:
        return False
    return True
