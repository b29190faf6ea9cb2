"""A sample of a column that is spread over the whole table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SAMPLE = 256
"""Cells or files that are looked at to propose what a column is."""


def spread(items: Sequence[T], count: int = SAMPLE) -> list[T]:
    """Up to so many items from all over a sequence, in their order; the same ones every time."""
    if len(items) <= count:
        return list(items)
    drawn = np.random.default_rng(0).choice(len(items), count, replace=False)
    return [items[i] for i in sorted(drawn.tolist())]


def quantile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * len(ordered) * 1000) // 1000) - 1))]


def percent(part: int, whole: int) -> str:
    """A share for a message: "12 %", "under 1 %"."""
    share = 100 * part / whole
    return "under 1 %" if 0 < share < 1 else f"{share:.0f} %"
