"""Pictures of what a run has measured: scores, curves, weights of the search, candidates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lightning_mmnas.report.budgets import budget_name, budget_of, unit_name, unit_of
from lightning_mmnas.report.verdicts import FOUND, half_width

INK, GRID, PAPER = "#263238", "#cfd8dc", "#fffffe"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#997700", "#56B4E9", "#CC3311", "#44AA99")
"""Told apart by colour-blind eyes, on white and on dark grey."""

Rows = Sequence[Mapping[str, Any]]
_LINES = 6
"""Models in the picture of scores against labels."""


_IN_UNIT = ("mae", "rmse")
"""How metrics end that are in a target's unit, and need an axis of their own."""

_ELSEWHERE = ("lr", "arch/lr", "alpha/", "beta/", "gamma/")
"""How metrics begin that are no curves of a report: rates, and weights of choices, which are heat maps."""


def blank(height: float, width: float = 4.7) -> Figure:
    """An empty figure in inches; narrow, so that its text can be read on a phone."""
    return Figure(figsize=(width, height), facecolor=PAPER, layout="constrained")


def style(axes: Axes, grid: str | None = "both") -> Axes:
    """No frame but the two axes, a faint grid, all text in one colour."""
    axes.set_facecolor("none")
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(GRID)
    axes.tick_params(colors=INK, labelsize=9)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)
    if grid == "both":
        axes.grid(color=GRID, linewidth=0.6)
    elif grid is not None:
        axes.grid(color=GRID, linewidth=0.6, axis="x" if grid == "x" else "y")
    axes.set_axisbelow(True)
    return axes


def plain(text: object) -> str:
    """Text as it is: a dollar would start a formula."""
    return str(text).replace("$", r"\$")


def plot_comparison(comparison: Rows, budget: object) -> Figure:
    """Every model as a row: its draws as small dots, its mean as a large one with a 95 % interval."""
    rows = sorted((r for r in comparison if budget_of(r) == budget), key=lambda r: float(r["mean"]))
    figure = blank(1.2 + 0.27 * max(len(rows), 2))
    axes = style(figure.add_subplot(), "x")
    scores = [float(s) for r in rows for s in (r.get("scores") or [r["mean"]])]
    low, high = min(scores), max(scores)
    room = 0.08 * ((high - low) or 0.1)
    for y, row in enumerate(rows):
        colour = COLOURS[1] if row["name"] == FOUND else COLOURS[0]
        draws = row.get("scores") or []
        axes.plot(draws, [y - 0.28] * len(draws), "o", color=colour, alpha=0.6, markersize=3.5, markeredgewidth=0)
        half = half_width(draws)
        if half is not None:
            left, right = max(row["mean"] - half, low - room), min(row["mean"] + half, high + room)
            axes.plot([left, right], [y, y], "-", color=colour, linewidth=1.6)
        axes.plot(row["mean"], y, "o", color=colour, markersize=7)
    axes.set_yticks(range(len(rows)), [plain(row["name"]) for row in rows])
    axes.set_xlim(low - room, high + room)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set(xlabel=plain(rows[0]["metric"]), title=budget_name(budget, unit_of(rows[0])))
    return figure


def plot_labels(comparison: Rows) -> Figure:
    """Mean score against the label budget, for the found network and the best others."""
    budgets = list(dict.fromkeys(budget_of(row) for row in comparison))
    means: dict[str, dict[object, float]] = {}
    for row in comparison:
        means.setdefault(row["name"], {})[budget_of(row)] = float(row["mean"])
    ranked = sorted(means, key=lambda name: -sum(means[name].values()) / len(means[name]))
    shown = [FOUND, *(name for name in ranked if name != FOUND)][:_LINES] if FOUND in means else ranked[:_LINES]
    figure = blank(3.6)
    axes = style(figure.add_subplot())
    for k, name in enumerate(shown):
        places = [i for i, budget in enumerate(budgets) if budget in means[name]]
        line: dict[str, Any] = {"linewidth": 2.2, "zorder": 5} if name == FOUND else {"linewidth": 1.2}
        colour = COLOURS[1] if name == FOUND else (COLOURS[0], *COLOURS[2:])[k % 7]
        axes.plot(places, [means[name][budgets[i]] for i in places], "o-", color=colour, label=plain(name), **line)
    axes.set_xticks(range(len(budgets)), [plain(budget) for budget in budgets])
    axes.set(xlabel=unit_name(comparison[0]), ylabel=plain(comparison[0]["metric"]))
    _legend(figure, axes)
    return figure


def plot_curves(curves: Mapping[str, Sequence[Sequence[float]]], title: str) -> Figure:
    """Metrics of a stage over its epochs: losses above, others, which have 1 at most, below, then errors in a unit."""
    losses = [name for name in curves if name.endswith("loss")]
    others = [name for name in curves if name not in losses and not name.startswith(_ELSEWHERE)]
    errors = [name for name in others if name.endswith(_IN_UNIT)]
    others = [name for name in others if name not in errors]
    parts = [names for names in (losses, others, errors) if names]
    figure = blank(0.5 + 2.1 * len(parts))
    for axes, names in zip(figure.subplots(len(parts), squeeze=False)[:, 0], parts, strict=True):
        style(axes)
        for k, name in enumerate(names):
            epochs, values = [p[0] for p in curves[name]], [p[1] for p in curves[name]]
            mark = "o-" if len(values) < 3 else "-"
            axes.plot(epochs, values, mark, color=COLOURS[k % len(COLOURS)], label=plain(name))
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    figure.suptitle(title, color=INK, fontsize=11)
    return figure


def plot_weights(record: Mapping[str, Any], cell: str) -> Figure:
    """The weights of a cell's choices as heat maps: a row per option, a column per epoch."""
    chosen = {name: options for name, options in record["choices"].items() if name.split()[0] == cell}
    epochs = record["epochs"]
    heights = [len(options) for options in chosen.values()]
    figure = blank(1.0 + 0.2 * sum(heights) + 0.42 * len(chosen))
    panels = figure.subplots(len(chosen), squeeze=False, gridspec_kw={"height_ratios": heights}, sharex=True)[:, 0]
    first, last = epochs[0]["epoch"], epochs[-1]["epoch"]
    for axes, (name, options) in zip(panels, chosen.items(), strict=True):
        style(axes, None)
        values = [[entry["weights"][name][k] for entry in epochs] for k in range(len(options))]
        extent = (first - 0.5, last + 0.5, len(options) - 0.5, -0.5)
        image = axes.imshow(
            values, aspect="auto", cmap="viridis", vmin=0, vmax=1, extent=extent, interpolation="nearest"
        )
        axes.set_yticks(range(len(options)), [plain(option) for option in options], fontsize=7.5)
        axes.set_title(name, loc="left", fontsize=9)
    axes.set_xlabel("epoch")
    bar = figure.colorbar(image, ax=list(panels), shrink=min(1.0, 2.0 / figure.get_figheight()), pad=0.02)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.set_label("weight", color=INK)
    return figure


def plot_candidates(scores: Sequence[float], criterion: str, chosen: int = 0) -> Figure:
    """Scores of the candidates, best first; lower is better, the chosen one is marked."""
    known = [(k, s) for k, s in enumerate(scores) if math.isfinite(s)]
    figure = blank(2.6)
    axes = style(figure.add_subplot())
    axes.plot([k + 1 for k, _ in known], [s for _, s in known], "o", color=COLOURS[0])
    marked = [(k, s) for k, s in known if k == chosen]
    axes.plot([k + 1 for k, _ in marked], [s for _, s in marked], "o", color=COLOURS[1], markersize=10, label="chosen")
    axes.set(xlabel="candidate", ylabel=f"{plain(criterion)}\n(lower is better)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False, labelcolor=INK)
    return figure


def _legend(figure: Figure, axes: Axes) -> None:
    """Below the picture: beside it there is no room on a phone."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False, fontsize=8, labelcolor=INK)
