"""The comparison of a run as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

_FOUND, _RANDOM = "found+ssl", "random+ssl"
_SIMPLE = ("late_fusion", "raw_features")  # beginnings of the names of simple baselines


def render_comparison(comparison: Sequence[dict[str, Any]]) -> RenderableType:
    """Rows of models, columns of label budgets, and the sentences of `verdicts` below.

    Args:
        comparison: `results.json`'s list of {"name", "labels_per_class", "metric", "mean", "std",
            "n"}.
    """
    budgets = list(dict.fromkeys(entry["labels_per_class"] for entry in comparison))
    cells = {(entry["name"], entry["labels_per_class"]): entry for entry in comparison}
    metrics = ", ".join(dict.fromkeys(str(entry["metric"]) for entry in comparison))
    table = Table(title=f"{metrics} by labels per class", title_justify="left")
    table.add_column("model")
    for budget in budgets:
        table.add_column(str(budget), justify="right")
    for name in dict.fromkeys(entry["name"] for entry in comparison):
        row = [cells.get((name, budget)) for budget in budgets]
        table.add_row(name, *(f"{e['mean']:.3f} ± {e['std']:.3f}" if e else "" for e in row))
    return Group(table, *verdicts(comparison))


def verdicts(comparison: Sequence[dict[str, Any]]) -> list[str]:
    """One sentence per label budget at which the found network does not lead, else one of praise.

    Compared are the pretrained found network, the median random architecture pretrained in the
    same way, and the best simple baseline.
    """
    sentences = []
    for budget in dict.fromkeys(entry["labels_per_class"] for entry in comparison):
        means = {e["name"]: e["mean"] for e in comparison if e["labels_per_class"] == budget}
        found = means.get(_FOUND)
        if found is None:
            continue
        simple = {name: mean for name, mean in means.items() if name.startswith(_SIMPLE)}
        rivals = {name: means[name] for name in (_RANDOM,) if name in means}
        if simple:
            best = max(simple, key=lambda name: simple[name])
            rivals[best] = simple[best]
        sentences += [
            f"At {budget} labels per class the search did not beat {name}: {found:.3f} against {mean:.3f}."
            for name, mean in rivals.items()
            if found < mean
        ]
    if not sentences and any(entry["name"] == _FOUND for entry in comparison):
        return ["The found network is at or above the random median and every simple baseline."]
    return sentences
