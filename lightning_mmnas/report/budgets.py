"""Label budgets of a comparison in words: labels per class, or labelled samples in all where targets are numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

PER_CLASS, TOTAL = "labels_per_class", "labels_total"
"""What the budget of a comparison's row counts: the key that it lies under."""

_UNITS = {PER_CLASS: "labels per class", TOTAL: "labelled samples"}


def unit_of(row: Mapping[str, Any]) -> str:
    """What the budget of a row counts."""
    return TOTAL if TOTAL in row else PER_CLASS


def budget_of(row: Mapping[str, Any]) -> Any:
    """The budget of a row: a number or "all"."""
    return row[unit_of(row)]


def unit_name(row: Mapping[str, Any]) -> str:
    """What the budget of a row counts, in words."""
    return _UNITS[unit_of(row)]


def budget_name(budget: object, unit: str = PER_CLASS) -> str:
    """A label budget in words.

    Args:
        budget: A number or "all".
        unit: What it counts.
    """
    return "all labels" if budget == "all" else f"{budget} {_UNITS[unit]}"


def counted(number: int, name: str) -> str:
    """A number of things, ``1 draw`` or ``3 draws``."""
    return f"{number} {name}" if number == 1 else f"{number} {name}s"


def measured(comparison: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows whose score is a number: R2 of a single sample is not, nor is that of a network that has diverged."""
    return [row for row in comparison if math.isfinite(row["mean"])]


def score_text(value: float, digits: int = 3) -> str:
    """A score, or that it is none."""
    return f"{value:.{digits}f}" if math.isfinite(value) else "not defined"
