"""Pictures of a table: how good its architectures are, what a criterion knows of it, what accuracy costs."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from lightning_mmnas.report.pareto import pareto_front
from lightning_mmnas.tabular.table import FusionTable, is_accuracy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_distribution(table: FusionTable, column: str, marks: Mapping[str, float] | None = None) -> "Figure":
    """Draws how a column is distributed over the architectures, the simple baselines and values of one's own.

    Args:
        table: The table.
        column: An accuracy, such as "finetune_20".
        marks: Further values by name, such as what a search found.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    values = table.values(column)
    axes.hist(values, bins=min(40, max(5, len(values) // 10)), color="#9bb7d4", edgecolor="white", linewidth=0.3)
    simple = {name: row[column] for name, row in table.baselines.items() if column in row}
    lines = {"median": float(np.median(values)), **simple, **(marks or {})}
    own = set(marks or {})
    top = axes.get_ylim()[1]
    for i, (name, value) in enumerate(sorted(lines.items(), key=lambda item: item[1])):
        colour = "#c23b22" if name in own else "black" if name == "median" else "#777777"
        axes.axvline(value, color=colour, linewidth=1.2, linestyle="-" if name in own or name == "median" else "--")
        height = top * (0.98 - 0.11 * (i % 8))
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1}
        axes.annotate(
            name,
            (value, height),
            xytext=(3, 0),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=colour,
            bbox=box,
        )
    axes.set_xlabel(f"{column}: test accuracy, mean over {len(table.seeds)} seeds")
    axes.set_ylabel("architectures")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_criterion(table: FusionTable, criterion: str, column: str) -> "Figure":
    """Draws every architecture by a label-free criterion and an accuracy, with their Spearman correlation.

    Args:
        table: The table.
        criterion: A criterion's column.
        column: An accuracy's column.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.subplots()
    axes.scatter(table.values(criterion), table.values(column), s=8, alpha=0.5, linewidths=0, color="#34648f")
    found = table.correlation(criterion, column)
    axes.set_title(f"Spearman {found.value:.2f} ({found.low:.2f} to {found.high:.2f})", fontsize=10)
    axes.set_xlabel(f"{criterion} (lower is better)" if not is_accuracy(criterion) else criterion)
    axes.set_ylabel(column)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def plot_cost(table: FusionTable, column: str, cost: str = "parameters") -> "Figure":
    """Draws every architecture by its cost and an accuracy, and the Pareto front.

    Args:
        table: The table.
        column: An accuracy's column.
        cost: "parameters" or "flops".
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6, 3.8), layout="constrained")
    axes = figure.subplots()
    costs, values = table.values(cost), table.values(column)
    axes.scatter(costs, values, s=8, alpha=0.4, linewidths=0, color="#34648f")
    front = pareto_front([(float(c), -float(v)) for c, v in zip(costs, values, strict=True)])
    points = sorted((costs[i], values[i]) for i in front)
    axes.step([c for c, _ in points], [v for _, v in points], where="post", color="#c23b22", label="Pareto front")
    axes.set_xlabel(cost)
    axes.set_ylabel(column)
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
