"""Columns whose cells are lists of numbers."""

from __future__ import annotations

from collections import Counter

import numpy as np

from lightning_mmnas.commands.init.arrays import read_arrays
from lightning_mmnas.commands.init.sampling import spread
from lightning_mmnas.data.names import safe_name
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.listed import array_of, holds_array
from lightning_mmnas.data.table.reading import Table, number_share
from lightning_mmnas.errors import DataError


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
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1 and all(array.ndim == 1 and array.dtype.kind in "iu" for array in arrays):
        least, most = (pick(len(array) for array in arrays) for pick in (min, max))
        return f"lists of {least} to {most} whole numbers, which may be labels (--label) or steps of time (--modality)"
    usual, count = Counter(array.shape for array in arrays).most_common(1)[0]
    if len(arrays) / 2 < count < len(arrays) and all(array.ndim == 1 for array in arrays):
        odd = next(row for row, array in zip(rows, arrays, strict=True) if array.shape != usual)
        shape = next(array.shape for array in arrays if array.shape != usual)
        raise DataError(
            f"{table.place(odd, name)}: its list is of shape {shape}, most of the column of {usual}; mend or empty it; "
            f"if they are recordings over time: --modality {safe_name(name, 'motion')}=motion:{name}; or leave the "
            f"column out: --without {name!r}"
        )
    return read_arrays(table, name, arrays)
