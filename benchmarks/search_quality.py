"""Tables and pictures of docs/search-quality.md, from the shipped tables and the results of strategies.py.

    python benchmarks/search_quality.py avmnist watch --pictures docs/pictures

Prints Markdown. Means over search seeds with 95 % t-intervals; random search is drawn from the table itself, so often
that its intervals do not matter.
"""

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from lightning_mmnas import FusionTable
from lightning_mmnas.criteria import label_free_criteria
from lightning_mmnas.tabular.plots import plot_cost, plot_criterion, plot_distribution

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("finetune_20", "supervised")
DEFAULT = "softmax (DARTS)"
DRAWS = 4000
Run = dict[str, Any]


def main() -> None:
    """Prints one section per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="+", help="names of shipped tables")
    parser.add_argument("--pictures", type=Path, help="folder of the pictures")
    options = parser.parse_args()
    for name in options.tables:
        table = FusionTable.load(name)
        path = RESULTS / f"strategies-{name}.json"
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"] if path.is_file() else []
        print(f"\n## {name}\n")
        print(card(table), criteria(table), sep="\n\n")
        if runs:
            print(strategies(table, runs), aims(table, runs), sep="\n\n")
        if options.pictures is not None:
            draw(name, table, runs, options.pictures)


def card(table: FusionTable) -> str:
    """What is in the table: spread, noise and simple baselines of every accuracy."""
    lines = [f"{len(table)} of {table.space.size()} architectures, seeds {list(table.seeds)}.", ""]
    names = [name for name in table.columns if name.startswith(("probe", "finetune", "scratch", "supervised"))]
    lines += [f"| | {' | '.join(names)} |", "|-|" + "-|" * len(names)]
    values = {name: table.values(name) for name in names}
    rows = {
        "worst": [f"{values[n].min():.3f}" for n in names],
        "median": [f"{np.median(values[n]):.3f}" for n in names],
        "best": [f"{values[n].max():.3f}" for n in names],
        "standard deviation": [f"{values[n].std():.4f}" for n in names],
        "noise of one training": [f"{table.noise(n):.4f}" for n in names],
        "agreement of seeds (Spearman)": [f"{_agreement(table, n):.2f}" for n in names],
    }
    rows |= {
        baseline: [f"{row[n]:.3f}" if n in row else "" for n in names] for baseline, row in table.baselines.items()
    }
    return "\n".join(lines + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()])


def criteria(table: FusionTable) -> str:
    """Rank correlations of every label-free criterion, with bootstrap intervals."""
    lines = ["| criterion | " + " | ".join(f"Spearman, {c} | Kendall, {c}" for c in COLUMNS) + " |"]
    lines.append("|-|" + "-|-|" * len(COLUMNS))
    found = []
    for name in [*label_free_criteria(), "parameters", "flops"]:
        cells, first = [], None
        for column in COLUMNS:
            rho = table.correlation(name, column)
            tau = table.correlation(name, column, "kendall", resamples=200)
            first = rho.value if first is None else first
            cells += [
                f"{rho.value:.2f} ({rho.low:.2f} to {rho.high:.2f})",
                f"{tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f})",
            ]
        found.append((first, f"| {name} | {' | '.join(cells)} |"))
    return "\n".join(lines + [line for _, line in sorted(found, key=lambda item: -(item[0] or 0))])


def strategies(table: FusionTable, runs: list[Run]) -> str:
    """Percentile, regret, area under the best-so-far curve, collapse and seconds of every strategy."""
    budget, screening = _budget(runs)
    once, tenfold = max(1, round(budget / screening)), max(1, round(10 * budget / screening))
    head = "| strategy | n | percentile | regret, points | area | blind | parameter-free | CPU s |"
    parts = []
    for column in COLUMNS:
        lines = [f"`{column}`", "", head, "|-|" + "-|" * 7]
        rows: list[tuple[float, str]] = []
        for name, sort, percentile, regret, area in _random(table, column, once, tenfold):
            rows.append((sort, f"| {name} | | {percentile:.1f} | {regret:.1f} | {area} | | | |"))
        for name in dict.fromkeys(run["strategy"] for run in runs):
            mine = [run for run in runs if run["strategy"] == name and run["seed"] < 5]
            kinds = ("favourite", "selected") if "favourite_without_rules" in mine[0] else ("selected",)
            for kind in kinds:
                values = [run[kind][column] for run in mine]
                percentiles = [table.percentile_of(value, column) for value in values]
                regrets = [100 * table.regret_of(value, column) for value in values]
                seconds = statistics.fmean(
                    run["seconds"] + (run["selection_seconds"] if kind == "selected" else 0.0) for run in mine
                )
                area = statistics.fmean(_area(table, run, column, kind, budget) for run in mine)
                free = [run.get("favourite_without_rules", run[kind]) for run in mine]
                label = f"{name}, {'favourite of the logits' if kind == 'favourite' else 'best of the candidates'}"
                rows.append((
                    statistics.fmean(percentiles),
                    f"| {label if len(kinds) > 1 else name} | {len(mine)} | {_interval(percentiles, 1)} | "
                    f"{_interval(regrets, 1)} | {area:.0f} | {sum(f['blind'] for f in free)} | "
                    f"{sum(f['parameter_free'] for f in free)} | {seconds:.0f} |",
                ))  # fmt: skip
        lines += [line for _, line in sorted(rows, key=lambda row: -row[0])]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def aims(table: FusionTable, runs: list[Run]) -> str:
    """The default search against medians, baselines and supervised search, in points."""
    mine = [run for run in runs if run["strategy"] == DEFAULT and run["seed"] < 5]
    lines = ["| default search, points | " + " | ".join(COLUMNS) + " |", "|-|" + "-|" * len(COLUMNS)]

    def line(name: str, found: list[list[float]]) -> str:
        return f"| {name} | " + " | ".join(_interval(values, 1) for values in found) + " |"

    def above(reference: dict[str, float]) -> list[list[float]]:
        return [[100 * (run["selected"][c] - reference[c]) for run in mine] for c in COLUMNS]

    medians = {c: float(np.median(table.values(c))) for c in COLUMNS}
    late = table.baselines["late_fusion"]
    simple = {c: max(row[c] for name, row in table.baselines.items() if c in row) for c in COLUMNS}
    best_simple = {
        c: max(simple[c], *[r.get("scratch_20", 0) for r in table.baselines.values()])
        if c == "finetune_20"
        else simple[c]
        for c in COLUMNS
    }
    lines.append(line("above the median architecture", above(medians)))
    lines.append(line("above the late-fusion MLP", above(late)))
    lines.append(line("above the best simple baseline", above(best_simple)))
    gain = [[100 * (run["selected"]["finetune_20"] - run["selected"]["scratch_20"]) for run in mine]]
    lines.append(f"| gain of pretraining | {_interval(gain[0], 1)} | |")
    other = [run for run in runs if run["strategy"] == "supervised" and run["seed"] < 5]
    if other:
        found = []
        for column in COLUMNS:
            theirs = {run["seed"]: run["favourite"][column] for run in other}
            found.append(
                [100 * (run["selected"][column] - theirs[run["seed"]]) for run in mine if run["seed"] in theirs]
            )
        lines.append(line("above supervised search", found))
    blind = [run["favourite_without_rules"]["blind"] for run in runs if run["strategy"] == DEFAULT]
    lines += ["", f"Without the coverage rule, {sum(blind)} of {len(blind)} default searches were blind to a modality."]
    return "\n".join(lines)


def draw(name: str, table: FusionTable, runs: list[Run], folder: Path) -> None:
    """Writes the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = [run["selected"] for run in runs if run["strategy"] == DEFAULT and run["seed"] < 5]
    for column in COLUMNS:
        marks = {"search (mean)": statistics.fmean(found[column] for found in mine)} if mine else {}
        plot_distribution(table, column, marks).savefig(folder / f"{name}-{column}.png", dpi=110)
    plot_criterion(table, "nt_xent", "finetune_20").savefig(folder / f"{name}-nt_xent.png", dpi=110)
    plot_cost(table, "finetune_20").savefig(folder / f"{name}-cost.png", dpi=110)


def _random(table: FusionTable, column: str, once: int, tenfold: int) -> list[tuple[str, float, float, float, str]]:
    """Random search: a single architecture, or the one of n that NT-Xent prefers."""
    generator = np.random.default_rng(0)
    values = table.values(column)
    rows = []
    for label, count in (
        ("random", 1),
        (f"random, best of {once} by NT-Xent", once),
        (f"random, best of {tenfold} by NT-Xent (ten times the budget)", tenfold),
    ):
        picked = []
        for draw in range(DRAWS):
            criterion = table.columns["nt_xent"][:, draw % len(table.seeds)]
            chosen = generator.integers(len(table), size=count)
            picked.append(values[chosen[np.argmin(criterion[chosen])]])
        percentile = statistics.fmean(table.percentile_of(v, column) for v in picked[:1000])
        regret = 100 * float(values.max() - np.mean(picked))
        area = f"{_random_area(table, column, once):.0f}" if count == once and count > 1 else ""
        rows.append((label, percentile, percentile, regret, area))
    return rows


def _random_area(table: FusionTable, column: str, count: int) -> float:
    generator = np.random.default_rng(1)
    values, found = table.values(column), []
    for draw in range(300):
        criterion = table.columns["nt_xent"][:, draw % len(table.seeds)]
        chosen = generator.integers(len(table), size=count)
        best = [chosen[: k + 1][np.argmin(criterion[chosen[: k + 1]])] for k in range(count)]
        found.append(statistics.fmean([50.0, *(table.percentile_of(values[i], column) for i in best)]))
    return statistics.fmean(found)


def _area(table: FusionTable, run: Run, column: str, kind: str, budget: float) -> float:
    """Mean percentile of the incumbent over the budget; before anything is found it is that of the median, 50."""
    if "path" in run:
        step = run["seconds"] / len(run["path"])
        values = [table.percentile_of(found[column], column) for found in run["path"]]
        times = np.linspace(0, budget, 200)
        at = [int(t / step) for t in times]
        return statistics.fmean(50.0 if k == 0 else values[min(k, len(values)) - 1] for k in at)
    first, then = run["seconds"], run["seconds"] + run["selection_seconds"]
    favourite = table.percentile_of(run["favourite"][column], column)
    selected = table.percentile_of(run[kind][column], column)
    first, then = min(first, budget), min(then, budget)
    return (50.0 * first + favourite * (then - first) + selected * (budget - then)) / budget


def _budget(runs: list[Run]) -> tuple[float, float]:
    """CPU seconds of a default search with its candidates, and of training and scoring one candidate."""
    mine = [run for run in runs if run["strategy"] == DEFAULT and run["seed"] < 5]
    budget = statistics.fmean(run["seconds"] + run["selection_seconds"] for run in mine)
    return budget, statistics.fmean(run["selection_seconds"] / run["candidates"] for run in mine)


def _interval(values: list[float], digits: int) -> str:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def _agreement(table: FusionTable, column: str) -> float:
    values = table.columns[column]
    return float(stats.spearmanr(values[:, 0], values[:, 1]).statistic) if values.shape[1] > 1 else float("nan")


if __name__ == "__main__":
    main()
