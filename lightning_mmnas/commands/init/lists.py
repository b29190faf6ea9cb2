"""Columns whose cells are lists of numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from lightning_mmnas.commands.init.arrays import read_arrays
from lightning_mmnas.commands.init.sampling import spread
from lightning_mmnas.data.names import safe_name
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.listed import Array, array_of, holds_array
from lightning_mmnas.data.table.reading import Table, number_share
from lightning_mmnas.errors import DataError

_ACCOUNT = re.compile(r"\s*\(\d[\d.]*,\d+\)\s*")
_LONG = 16
"""Whole numbers without brackets that are no telephone number, no ISBN and no other code."""


def find_lists(table: Table, name: str) -> ColumnSpec | str | None:
    """Looks at the lists of numbers that a column holds, or spells.

    Args:
        table: The table.
        name: The column.

    Returns:
        The modality; or why these lists are none; or None: most of its cells are no lists of numbers.

    Raises:
        DataError: Most of its cells are, but one is not, or it is doubtful what they are; says the way out.
    """
    if not table.has_lists(name) and number_share(table, name) > 0.5:
        return None
    rows = spread(np.flatnonzero(table.filled(name)).tolist())
    cells = [table.cell(row, name) for row in rows]
    if 2 * sum(map(holds_array, cells)) <= len(cells):
        return None
    arrays = []
    for row, cell in zip(rows, cells, strict=True):
        try:
            arrays.append(array_of(cell))
        except ValueError as error:
            raise DataError(
                f"{table.place(row, name)}: most cells of the column are lists of numbers, but of this one {error}; "
                f"mend or empty it, or leave the column out: --without {name!r}"
            ) from None
    accounts = [
        row for row, cell in zip(rows, cells, strict=True) if isinstance(cell, str) and _ACCOUNT.fullmatch(cell)
    ]
    if accounts and table.decimal == ",":
        raise DataError(
            f"{table.place(accounts[0], name)}: is {table.cell(accounts[0], name)!r} a negative number with a decimal "
            f"comma, or a list of two? Write -1,5 or [1, 5], or leave the column out: --without {name!r}"
        )
    _ask_about_bare_numbers(table, name, cells, arrays)
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1 and all(array.ndim == 1 and array.dtype.kind in "iu" for array in arrays):
        least, most = (pick(len(array) for array in arrays) for pick in (min, max))
        return f"lists of {least} to {most} whole numbers, which may be labels (--label) or steps of time (--modality)"
    return read_arrays(table, name, arrays, [table.place(row, name) for row in rows])


def _ask_about_bare_numbers(table: Table, name: str, cells: Sequence[Any], arrays: Sequence[Array]) -> None:
    """Raises `DataError` for a few whole numbers without brackets, which may be a code."""
    bare = all(isinstance(cell, str) and cell.strip()[:1] not in ("[", "(") and "(" not in cell for cell in cells)
    if bare and all(array.dtype.kind in "iu" and array.size < _LONG for array in arrays):
        ways = [f"--modality {safe_name(name, kind)}={kind}:{name}" for kind in ("features", "text")]
        raise DataError(
            f"{table.path}, column {name!r}: are cells such as {cells[0]!r} numbers, a text, or neither, such as a "
            f"code? Say {' or '.join(ways)} (and name the other modalities likewise, since --modality replaces what is "
            f"proposed), or --without {name!r}"
        )
