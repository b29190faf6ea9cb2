"""Numbers far away from all others of their column: what stands for a missing one, or one wrong cell."""

from __future__ import annotations

import numpy as np

from lightning_mmnas.data.table.reading import Table

_CODES = [sign * (10**digits - 1.0) for digits in (2, 3, 4, 5, 6) for sign in (-1, 1)]
"""Numbers that people write where one is missing: -99, 999, ..."""
_LEAST = 8
"""Numbers of a column that tell what is usual."""
_FAR = 1e4
"""Widths of the middle half of a column that a number lies from its middle to be far away."""


def far_numbers(table: Table, column: str) -> str | None:
    """What to tell of the numbers of a column that are far away from the others; None: nothing.

    Args:
        table: The table.
        column: A column of numbers.
    """
    numbers = table.parsed(column).values
    known = numbers[~np.isnan(numbers)]
    if len(known) < _LEAST:
        return None
    for code in _CODES:
        rest = known[known != code]
        if len(rest) == len(known) or len(rest) < _LEAST:
            continue
        low, high = float(rest.min()), float(rest.max())
        if max(low - code, code - high) > high - low:
            return (
                f"column {column!r}: {len(known) - len(rest)} cells are {code:.0f}, and the others from {low:g} to "
                f"{high:g}; if it stands for a missing number: --empty {code:.0f}"
            )
    low, middle, high = np.percentile(known, (25, 50, 75))
    distance = np.abs(np.nan_to_num(numbers, nan=float(middle)) - middle)
    far = np.flatnonzero(distance > _FAR * (high - low))
    if low == high or len(far) == 0:
        return None
    return (
        f"column {column!r}: {len(far)} cell(s) are far away from the others, which nearly become one number beside "
        f"them: {table.lines(far[:1].tolist())}: {numbers[far[0]]:g}, and most from {low:g} to {high:g}"
    )
