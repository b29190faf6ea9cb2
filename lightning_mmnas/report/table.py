"""The comparison of a run as a table for the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightning_mmnas.report.budgets import budget_of, counted, score_text, unit_name
from lightning_mmnas.report.verdicts import verdicts


def render_comparison(comparison: Sequence[dict[str, Any]]) -> RenderableType:
    """Rows of models, columns of label budgets, and the sentences of `verdicts` below.

    Args:
        comparison: `results.json`'s list of {"name", "labels_per_class" (or "labels_total"), "metric", "mean", "std",
            "n", "scores"}.
    """
    budgets = list(dict.fromkeys(budget_of(entry) for entry in comparison))
    cells = {(entry["name"], budget_of(entry)): entry for entry in comparison}
    metrics = ", ".join(dict.fromkeys(str(entry["metric"]) for entry in comparison))
    draws = max(entry["n"] for entry in comparison)
    title = f"{metrics} by {unit_name(comparison[0])}, mean ± deviation over {counted(draws, 'draw')}"
    table = Table(title=title, title_justify="left")
    table.add_column("model")
    for budget in budgets:
        table.add_column(str(budget), justify="right")
    for name in dict.fromkeys(entry["name"] for entry in comparison):
        row = [cells.get((name, budget)) for budget in budgets]
        table.add_row(Text(name), *map(_cell, row))
    return Group(table, *map(Text, verdicts(comparison)))


def _cell(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ""
    spread = f" ± {entry['std']:.3f}" if entry["n"] > 1 and math.isfinite(entry["std"]) else ""
    return score_text(entry["mean"]) + spread
