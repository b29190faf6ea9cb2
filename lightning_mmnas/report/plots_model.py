"""Pictures of the model that a run has left: confusions, F1 of labels, vectors in a plane, missing modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from lightning_mmnas.report.plots import COLOURS, GRID, INK, blank, plain, style

_WRITTEN = 14
"""Classes up to which the numbers are written into the confusion matrix."""
NAMED = 40
"""Classes up to which the axes of the confusion matrix have names; of more, they have numbers."""
_BARS = 30
_GROUPS = 8
"""Classes that have a colour of their own."""


def plot_confusion(confusion: Sequence[Sequence[int]], names: Sequence[str]) -> Figure:
    """Counts of true (rows) and predicted (columns) classes; the colour is the share of the row."""
    counts = np.asarray(confusion, dtype=float)
    shares = counts / counts.sum(1, keepdims=True).clip(1)
    n = len(names)
    figure = blank(5.2 if n > 6 else 4.2)
    axes = style(figure.add_subplot(), None)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if n <= _WRITTEN:
        for i, j in np.ndindex(n, n):
            if counts[i, j]:
                colour = "white" if shares[i, j] > 0.5 else "#1b2a33"
                axes.text(j, i, f"{counts[i, j]:.0f}", ha="center", va="center", fontsize=8, color=colour)
    if n <= NAMED:
        size = 9 if n <= _WRITTEN else 6
        axes.set_xticks(range(n), [plain(_short(name)) for name in names], rotation=90, fontsize=size)
        axes.set_yticks(range(n), [plain(_short(name)) for name in names], fontsize=size)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def plot_scatter(scatter: Mapping[str, Sequence[float]], name: str) -> Figure:
    """Predicted against true targets of a regression, with the line on which they are equal."""
    true, predicted = np.asarray(scatter["true"]), np.asarray(scatter["predicted"])
    low, high = float(min(true.min(), predicted.min())), float(max(true.max(), predicted.max()))
    room = 0.04 * ((high - low) or 1.0)
    figure = blank(4.4)
    axes = style(figure.add_subplot())
    axes.plot([low, high], [low, high], "-", color=COLOURS[1], linewidth=1.2)
    axes.plot(true, predicted, ".", color=COLOURS[0], markersize=5, alpha=0.6, rasterized=True)
    axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room), aspect="equal")
    axes.locator_params(nbins=5)
    axes.set(xlabel=plain(f"true {_short(name)}"), ylabel=plain(f"predicted {_short(name)}"))
    return figure


def plot_label_scores(rows: Sequence[Mapping[str, Any]]) -> Figure:
    """F1 of the most frequent labels as bars, the most frequent at the top."""
    shown = list(rows)[:_BARS]
    figure = blank(0.9 + 0.22 * len(shown))
    axes = style(figure.add_subplot(), "x")
    places = range(len(shown))[::-1]
    axes.barh(list(places), [row["f1"] for row in shown], color=COLOURS[0], height=0.7)
    axes.set_yticks(list(places), [plain(f"{_short(row['label'])} ({row['samples']})") for row in shown], fontsize=8)
    axes.set_xlim(0, 1)
    axes.set(xlabel="F1, samples in brackets")
    return figure


def plot_embeddings(embeddings: Mapping[str, Any], names: Sequence[str]) -> Figure:
    """The vectors of the test samples before and after pretraining, each in its own two principal components."""
    if "targets" in embeddings:
        return _plot_targets(embeddings, names[0])
    labels = np.asarray(embeddings["labels"])
    moments = [moment for moment in ("before", "after") if moment in embeddings]
    present = [int(k) for k, _ in sorted(_counts(labels).items(), key=lambda item: -item[1])]
    groups = sorted(present[:_GROUPS])
    figure = blank(3.4)
    for axes, moment in zip(figure.subplots(1, len(moments), squeeze=False)[0], moments, strict=True):
        style(axes, None)
        points = np.asarray(embeddings[moment]["points"])
        rest = ~np.isin(labels, groups)
        if rest.any():
            axes.plot(*points[rest].T, ".", color=GRID, markersize=3, label="others", rasterized=True)
        for k, group in enumerate(groups):
            chosen = labels == group
            dots: dict[str, Any] = {"color": COLOURS[k], "markersize": 3.5, "alpha": 0.7, "rasterized": True}
            axes.plot(*points[chosen].T, ".", label=_name(group, names), **dots)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{moment} pretraining", fontsize=10)
    handles, texts = axes.get_legend_handles_labels()
    figure.legend(
        handles, texts, loc="outside lower center", ncols=4, frameon=False, fontsize=8, labelcolor=INK, markerscale=2.5
    )
    return figure


def plot_missing(missing: Mapping[str, Any]) -> Figure:
    """The score with all modalities, and with each of them replaced by its mean."""
    rows = [("all modalities", missing["all"]), *((f"without {k}", v) for k, v in missing["without"].items())]
    figure = blank(0.9 + 0.36 * len(rows))
    axes = style(figure.add_subplot(), "x")
    places = list(range(len(rows)))[::-1]
    axes.barh(places, [v for _, v in rows], color=[COLOURS[1], *[COLOURS[0]] * (len(rows) - 1)], height=0.65)
    for y, (_, value) in zip(places, rows, strict=True):
        axes.text(max(value, 0.0), y, f" {value:.3f}", va="center", fontsize=9, color=INK)
    axes.set_yticks(places, [plain(name) for name, _ in rows])
    axes.set_xlim(1.12 * min(0.0, *(v for _, v in rows)), 1.12 * max(1.0, *(v for _, v in rows)))
    axes.set(xlabel=plain(missing["metric"]))
    return figure


def _plot_targets(embeddings: Mapping[str, Any], name: str) -> Figure:
    """Vectors before and after pretraining, coloured by a target."""
    moments = [moment for moment in ("before", "after") if moment in embeddings]
    figure = blank(3.0)
    panels = figure.subplots(1, len(moments), squeeze=False)[0]
    for axes, moment in zip(panels, moments, strict=True):
        style(axes, None)
        points = np.asarray(embeddings[moment]["points"])
        dots = axes.scatter(*points.T, c=embeddings["targets"], cmap="viridis", s=8, rasterized=True)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_title(f"{moment} pretraining", fontsize=10)
    bar = figure.colorbar(dots, ax=list(panels), location="bottom", aspect=40)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.set_label(plain(_short(name)), color=INK)
    return figure


def _counts(labels: np.ndarray[Any, Any]) -> dict[int, int]:
    values, counts = np.unique(labels[labels >= 0], return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


def _name(index: int, names: Sequence[str]) -> str:
    # A leading underscore would hide the entry from the legend.
    return plain(_short(names[index])).lstrip("_") if 0 <= index < len(names) else "none"


def _short(name: object) -> str:
    """A name in a line of 18 characters: of a long one both ends, as names of one data set often begin alike."""
    text = " ".join(str(name).split())
    return text if len(text) <= 18 else f"{text[:8]}…{text[-9:]}"
