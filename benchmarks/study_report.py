"""Tables and figure of the study: prints Markdown of results that `benchmarks/study.py` wrote.

    python benchmarks/study_report.py benchmarks/results/study-*.json --figure docs/pictures/study.svg

Of every row and share of labels the learning rate is taken that is best on the validation split, over all runs. A
number is the mean over runs, ± their standard deviation; a run's number is the mean over its label draws, and for
random architectures over three of them. Differences are paired by run; their intervals are the 95 % of the exact
bootstrap distribution over runs (all equally likely resamples), which is too narrow for few runs.
"""

import argparse
import itertools
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

OURS = "found+ssl"
TITLES = {
    "bmnas": "supervised search, supervised training (BM-NAS)",
    "ssl_search": "SSL search, supervised training",
    "paper": "SSL search, pretraining, fine-tuning (the paper)",
    OURS: "ours: search, pretraining, last stage",
    "found": "ours without pretraining",
    "supervised+ssl": "ours, but searched with all labels",
    "best_of_ten+ssl": "best of ten random by NT-Xent, pretrained",
    "random+ssl": "random architecture, pretrained",
    "random": "random architecture, not pretrained",
    "late_fusion+ssl": "late fusion, pretrained",
    "late_fusion": "late fusion",
    "raw_features": "logistic regression",
}
DRAWN = (OURS, "supervised+ssl", "random+ssl", "late_fusion+ssl", "raw_features", "paper", "bmnas")
"""Rows of the figure."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="JSON files of study.py --results")
    parser.add_argument("--figure", type=Path, help="write the figure to this file")
    options = parser.parse_args()
    found = {path.stem.removeprefix("study-"): json.loads(path.read_text(encoding="utf-8")) for path in options.results}
    for name, study in found.items():
        print(f"\n## {name}\n\n{tables(study)}")
    if options.figure is not None:
        draw({name: chosen(study) for name, study in found.items()}, options.figure)


Scores = dict[str, dict[float, list[float]]]


def chosen(study: dict[str, Any]) -> Scores:
    """Test score of every run by row and share of labels, at the learning rate that is best on the validation split."""
    val: dict[Any, list[float]] = defaultdict(list)
    test: dict[Any, list[list[float]]] = defaultdict(list)
    for run in study["runs"]:
        own: dict[Any, list[tuple[float, float]]] = defaultdict(list)
        for record in run["records"]:
            own[row_of(record["row"]), record["fraction"], record["rate"]].append((record["val"], record["test"]))
        for key, pairs in own.items():
            val[key].append(statistics.fmean(v for v, _ in pairs))
            test[key].append([t for _, t in pairs])
    best: dict[tuple[str, float], Any] = {}
    for key, values in val.items():
        known = best.get(key[:2])
        if known is None or statistics.fmean(values) > statistics.fmean(val[known]):
            best[key[:2]] = key
    scores: Scores = defaultdict(dict)
    for (row, fraction), key in best.items():
        scores[row][fraction] = [statistics.fmean(values) for values in test[key]]
    return dict(scores)


def row_of(name: str) -> str:
    """The row that a record counts for: random architectures are one row, what the paper does has a name of its own."""
    if name.startswith("random"):
        return "random+ssl" if name.endswith("+ssl") else "random"
    return {"paper+ssl": "paper"}.get(name, name)


def interval(differences: list[float]) -> tuple[float, float]:
    """The 2.5 % and 97.5 % quantiles of the mean of resampled differences, over all resamples with replacement.

    Args:
        differences: One per run; at most seven.
    """
    resampled = sorted(map(statistics.fmean, itertools.product(differences, repeat=len(differences))))
    last = len(resampled) - 1
    return resampled[round(0.025 * last)], resampled[round(0.975 * last)]


def tables(study: dict[str, Any]) -> str:
    """Scores, then paired differences of ours to every other row, in points."""
    scores = chosen(study)
    fractions = sorted(scores[OURS])
    names = [*(name for name in TITLES if name in scores), *(name for name in scores if name not in TITLES)]
    labels = [
        statistics.fmean(r["labels"] for run in study["runs"] for r in run["records"] if r["fraction"] == fraction)
        for fraction in fractions
    ]
    head = " | ".join(f"{100 * f:g} % ({n:.0f})" for f, n in zip(fractions, labels, strict=True))
    lines = [f"| {len(study['runs'])} runs | {head} |", "|-|" + "-|" * len(fractions)]
    for name in names:
        cells = [f"{statistics.fmean(scores[name][f]):.3f} ± {_spread(scores[name][f]):.3f}" for f in fractions]
        lines.append(f"| {title(name)} | {' | '.join(cells)} |")
    lines += ["", f"| ours less … | {head} |", "|-|" + "-|" * len(fractions)]
    for name in names:
        if name == OURS:
            continue
        cells = []
        for f in fractions:
            differences = [100 * (a - b) for a, b in zip(scores[OURS][f], scores[name][f], strict=True)]
            low, high = interval(differences)
            cells.append(f"{statistics.fmean(differences):+.1f} [{low:+.1f}, {high:+.1f}]")
        lines.append(f"| {title(name)} | {' | '.join(cells)} |")
    seconds = {
        name: statistics.fmean(run["seconds"][name] for run in study["runs"]) for name in study["runs"][0]["seconds"]
    }
    lines += ["", "CPU seconds a run: " + ", ".join(f"{name} {value:.0f}" for name, value in seconds.items()) + "."]
    return "\n".join(lines)


def title(name: str) -> str:
    """What the tables call a row."""
    kind, _, modality = name.partition(":")
    if modality:
        return f"{modality} alone" + (", logistic regression" if kind == "raw_features" else "")
    return TITLES.get(name, name)


def draw(studies: dict[str, Scores], path: Path) -> None:
    """Score against the share of labels, a panel per data set."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.2 * len(studies), 4.6), layout="constrained")
    panels = figure.subplots(1, len(studies), squeeze=False)[0]
    for axes, (name, scores) in zip(panels, studies.items(), strict=True):
        for row in DRAWN:
            fractions = sorted(scores[row])
            means = [statistics.fmean(scores[row][f]) for f in fractions]
            spreads = [_spread(scores[row][f]) for f in fractions]
            style = {"linewidth": 2.4, "color": "black", "zorder": 3} if row == OURS else {"linewidth": 1.2}
            axes.errorbar(
                [100 * f for f in fractions], means, spreads, label=title(row), marker="o", capsize=2, **style
            )
        axes.set_xscale("log")
        axes.set_xticks([100 * f for f in fractions], [f"{100 * f:g} %" for f in fractions])
        axes.minorticks_off()
        axes.set_title(name)
        axes.set_xlabel("labels of the training split")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("test score (accuracy; weighted F1 of films)")
    handles, names = panels[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path)


def _spread(values: list[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
