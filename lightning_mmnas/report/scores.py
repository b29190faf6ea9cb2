"""Scores of a delivered model as tables for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from lightning_mmnas.report.budgets import counted, score_text

_MOST = 20
"""Classes of a confusion matrix that is printed."""


def render_scores(scores: Mapping[str, Any]) -> RenderableType:
    """Metrics, and below them the confusion matrix, or the F1 of every label; of a regression nothing.

    Args:
        scores: What `DeliveredModel.evaluate` returns.
    """
    left = f", {scores['skipped']} left out" if scores["skipped"] else ""
    title = Text(f"{counted(scores['samples'], 'sample')}{left}", style="italic")
    table = Table()
    table.add_column("metric")
    table.add_column("score", justify="right")
    for name, value in scores["metrics"].items():
        table.add_row(Text(name), score_text(value, 4))
    if "per_label" not in scores and "confusion" not in scores:
        return Group(title, table)
    below = _labels(scores["per_label"]) if "per_label" in scores else _confusion(scores)
    return Group(title, table, below)


def _confusion(scores: Mapping[str, Any]) -> RenderableType:
    names = scores["class_names"]
    if len(names) > _MOST:
        return f"{len(names)} classes: the confusion matrix is in the file of --output"
    table = Table(title="true class in rows, predicted in columns", title_justify="left")
    table.add_column("")
    for name in names:
        table.add_column(Text(name), justify="right")
    for name, row in zip(names, scores["confusion"], strict=True):
        table.add_row(Text(name), *(str(count) if count else "·" for count in row))
    return table


def _labels(scores: Mapping[str, float]) -> RenderableType:
    table = Table(title="F1 by label", title_justify="left")
    table.add_column("label")
    table.add_column("F1", justify="right")
    for name, value in scores.items():
        table.add_row(Text(name), f"{value:.3f}")
    return table
