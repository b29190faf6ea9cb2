"""What is good for its price: the Pareto front of architectures, and its picture."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FRONT, REST, LIMIT = "#0072B2", "#90A4AE", "#D55E00"


def pareto_front(points: Sequence[Sequence[float]]) -> list[int]:
    """Returns the numbers of the points that no other point beats, in the order of their first coordinate.

    A point beats another one if it is smaller somewhere and larger nowhere; of equal points none beats the other. A
    point with a coordinate that is not a number is never on the front and beats nothing.

    Args:
        points: Each with the same number of coordinates, all of which are to be small.
    """
    if not points:
        return []
    values = np.asarray(points, dtype=float)
    known = np.flatnonzero(~np.isnan(values).any(axis=1))
    values = values[known]
    no_larger = np.all(values[None] <= values[:, None], axis=2)  # [i, j]: j is nowhere larger than i
    smaller = np.any(values[None] < values[:, None], axis=2)
    front = known[~np.any(no_larger & smaller, axis=1)]
    return sorted((int(i) for i in front), key=lambda i: (*points[i], i))


def plot_pareto(
    points: Sequence[tuple[float, float]],
    cost: str,
    score: str,
    chosen: int | None = None,
    limit: float | None = None,
) -> "Figure":
    """Returns a scatter plot of cost and score, both better when small, with the Pareto front as a line.

    Args:
        points: (cost, score) of every architecture, numbered from 1 in the picture.
        cost: What the cost is, with its unit.
        score: What the score is.
        chosen: Number, from 0, of the architecture that was taken.
        limit: The budget.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter, MaxNLocator

    figure = Figure(figsize=(5.6, 3.8), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    known = [i for i, point in enumerate(points) if np.isfinite(point).all()]
    front = [i for i in pareto_front(points) if i in known]
    beaten = [i for i in known if i not in front]
    axes.plot(*_columns(points, beaten), "o", color=REST, markersize=6, label="beaten")
    axes.plot(
        *_columns(points, front), "o-", color=FRONT, markersize=7, drawstyle="steps-post", label="Pareto front"
    )  # between two architectures only the cheaper one can be had
    if chosen is not None:
        ring: dict[str, Any] = {"markersize": 14, "markerfacecolor": "none", "markeredgewidth": 1.5}
        axes.plot(*_columns(points, [chosen]), "o", color="#263238", label="chosen", **ring)
    if limit is not None:
        axes.axvline(limit, color=LIMIT, linestyle="--", linewidth=1.2, label="budget")
    for i in known:
        axes.annotate(str(i + 1), points[i], (8, 6), textcoords="offset points", fontsize=8)
    axes.set(xlabel=cost, ylabel=f"{score} (lower is better)")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(0.12, 0.16)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#ECEFF1")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=8)
    return figure


def _columns(points: Sequence[tuple[float, float]], numbers: Sequence[int]) -> tuple[list[float], list[float]]:
    return [points[i][0] for i in numbers], [points[i][1] for i in numbers]
