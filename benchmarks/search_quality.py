"""Tables and pictures of docs/search-quality.md, from the shipped tables and the results of strategies.py.

    python benchmarks/search_quality.py avmnist watch --pictures docs/pictures

Prints Markdown. Searches: means over search seeds with 95 % t-intervals, which take the searches as independent though
several share their encoders. Random search is drawn from the table itself, without replacement; its 95 % interval is a
bootstrap of the table's architectures.
"""

import argparse
import json
import math
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from lightning_mmnas import FusionTable
from lightning_mmnas.objectives.criteria import label_free_criteria
from lightning_mmnas.tabular.plots import plot_cost, plot_criterion, plot_distribution

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("finetune_20", "supervised")
DEFAULT = "softmax (DARTS)"
DRAWS = 4000
SEEDS = 5
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
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"runs": []}
        runs, by_seed = found["runs"], found.get("by_seed", False)
        print(f"\n## {name}\n")
        print(card(table), criteria(table), sep="\n\n")
        if runs:
            print("", strategies(table, runs, by_seed), aims(table, runs, by_seed), sep="\n\n")
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
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
    return "\n".join([*lines, "", anatomy(table)])


def anatomy(table: FusionTable) -> str:
    """What the best tenth by fine-tuning at 20 labels is made of, and how many gained from pretraining."""
    best = [genotype for genotype, _ in table.best("finetune_20", len(table) // 10)]
    whole = sum(len(genotype.modalities_read()) == len(table.space.modalities) for genotype in best)
    steps = Counter(step.primitive for genotype in best for cell in genotype.cells for step in cell.steps)
    inputs = Counter(name for genotype in best for name in sorted(genotype.inputs_read()))
    gain = table.values("finetune_20") - table.values("scratch_20")
    listed = [", ".join(f"{name} {count}" for name, count in found.most_common()) for found in (steps, inputs)]
    return (
        f"Of the best tenth at 20 labels ({len(best)}), {whole} read all modalities; primitives: {listed[0]}; inputs: "
        f"{listed[1]}. Pretraining is worth {100 * float(np.median(gain)):.1f} points in the median; "
        f"{100 * float((gain > 0).mean()):.0f} % of all architectures gained."
    )


def criteria(table: FusionTable) -> str:
    """Rank correlations of every label-free criterion, with bootstrap intervals."""
    lines = ["| criterion | " + " | ".join(f"Spearman, {c} | Kendall, {c}" for c in COLUMNS) + " |"]
    lines.append("|-|" + "-|-|" * len(COLUMNS))
    found = []
    for name in [*label_free_criteria(), "parameters", "flops", "supervised"]:
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


def strategies(table: FusionTable, runs: list[Run], by_seed: bool) -> str:
    """Percentile, regret, area under the best-so-far curve, collapse and seconds of every strategy."""
    budget, screening = _budget(runs)
    once, tenfold = max(1, round(budget / screening)), max(1, round(10 * budget / screening))
    head = "| strategy | n | percentile | regret, points | area | blind | parameter-free | CPU s |"
    parts = [f"A budget is {budget:.0f} CPU seconds, {once} trained candidates."]
    for column in COLUMNS:
        lines = [f"`{column}`", "", head, "|-|" + "-|" * 7]
        labels = {1: "random", once: "random, {} by NT-Xent", tenfold: "random, {} by NT-Xent, ten budgets"}
        rows = _random(table, column, labels, by_seed)
        for name in dict.fromkeys(run["strategy"] for run in runs):
            mine = [run for run in runs if run["strategy"] == name and run["seed"] < SEEDS]
            kinds = ("favourite", "selected") if "favourite_without_rules" in mine[0] else ("selected",)
            for kind in kinds:
                seeds = [run["encoders"] if by_seed else None for run in mine]
                percentiles = [
                    table.percentile_of(r[kind][column], column, s) for r, s in zip(mine, seeds, strict=True)
                ]
                regrets = [100 * table.regret_of(r[kind][column], column, s) for r, s in zip(mine, seeds, strict=True)]
                seconds = statistics.fmean(
                    run["seconds"] + (run["selection_seconds"] if kind == "selected" else 0.0) for run in mine
                )
                area = statistics.fmean(_area(table, run, column, kind, budget, by_seed) for run in mine)
                free = [run.get("favourite_without_rules", run[kind]) for run in mine]
                end = {"favourite": ", favourite", "selected": ", best candidate"}[kind] if len(kinds) > 1 else ""
                rows.append((
                    statistics.fmean(percentiles),
                    f"| {name}{end} | {len(mine)} | {_interval(percentiles)} | {_interval(regrets)} | {area:.0f} | "
                    f"{sum(f['blind'] for f in free)} | {sum(f['parameter_free'] for f in free)} | {seconds:.0f} |",
                ))  # fmt: skip
        lines += [line for _, line in sorted(rows, key=lambda row: -row[0])]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def aims(table: FusionTable, runs: list[Run], by_seed: bool) -> str:
    """The default search against medians, baselines and supervised search, in points."""
    every = [run for run in runs if run["strategy"] == DEFAULT]
    mine = [run for run in every if run["seed"] < SEEDS]
    lines = ["| default search | " + " | ".join(COLUMNS) + " |", "|-|" + "-|" * len(COLUMNS)]

    def line(name: str, found: list[list[float]]) -> None:
        lines.append(f"| {name} | " + " | ".join(_interval(values) if values else "" for values in found) + " |")

    def home(run: Run) -> int | None:
        return run["encoders"] if by_seed else None

    for kind, what in (("favourite", "favourite"), ("selected", "best candidate")):
        line(f"{what}: percentile", [[table.percentile_of(r[kind][c], c, home(r)) for r in mine] for c in COLUMNS])
        line(f"{what}: regret", [[100 * table.regret_of(r[kind][c], c, home(r)) for r in mine] for c in COLUMNS])
        line(
            f"{what}: above the median architecture",
            [[100 * (r[kind][c] - float(np.median(table.values(c, home(r))))) for r in mine] for c in COLUMNS],
        )
        if not by_seed:  # baselines are means over seeds
            rows = table.baselines
            late = {
                c: max(rows["late_fusion"][c], rows["late_fusion"].get(c.replace("finetune", "scratch"), 0))
                for c in COLUMNS
            }
            best = {
                c: max(row.get(k, 0) for row in rows.values() for k in (c, c.replace("finetune", "scratch")))
                for c in COLUMNS
            }
            line(f"{what}: above the late-fusion MLP", [[100 * (r[kind][c] - late[c]) for r in mine] for c in COLUMNS])
            line(
                f"{what}: above the best simple baseline",
                [[100 * (r[kind][c] - best[c]) for r in mine] for c in COLUMNS],
            )
        line(
            f"{what}: gain of pretraining",
            [[100 * (r[kind]["finetune_20"] - r[kind]["scratch_20"]) for r in mine], []],
        )
        theirs = {run["seed"]: run for run in runs if run["strategy"] == "supervised"}
        pairs = [(r, theirs[r["seed"]]) for r in mine if r["seed"] in theirs]
        line(
            f"{what}: above that of supervised search",
            [[100 * (r[kind][c] - o[kind][c]) for r, o in pairs] for c in COLUMNS],
        )
    if len(every) > len(mine):
        for c in COLUMNS:
            test = stats.ttest_rel([r["favourite"][c] for r in every], [r["selected"][c] for r in every])
            shown = []
            for kind, what in (("favourite", "favourite"), ("selected", "best candidate")):
                percentiles = [table.percentile_of(r[kind][c], c, home(r)) for r in every]
                mean = 100 * statistics.fmean(r[kind][c] for r in every)
                shown.append(f"{what} {mean:.2f} (percentile {_interval(percentiles)})")
            lines.append(f"\n`{c}`, {len(every)} searches: {', '.join(shown)}; paired t-test p = {test.pvalue:.2f}.")
    blind = [run["favourite_without_rules"]["blind"] for run in every]
    lines += ["", f"Without the coverage rule, {sum(blind)} of {len(blind)} default searches were blind to a modality."]
    return "\n".join(lines)


def draw(name: str, table: FusionTable, runs: list[Run], folder: Path) -> None:
    """Writes the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    mine = [run["favourite"] for run in runs if run["strategy"] == DEFAULT and run["seed"] < SEEDS]
    for column in COLUMNS:
        marks = {"search (mean)": statistics.fmean(found[column] for found in mine)} if mine else {}
        plot_distribution(table, column, marks).savefig(folder / f"{name}-{column}.png", dpi=110)
    plot_criterion(table, "nt_xent", "finetune_20").savefig(folder / f"{name}-nt_xent.png", dpi=110)
    plot_cost(table, "finetune_20").savefig(folder / f"{name}-cost.png", dpi=110)


def _random(table: FusionTable, column: str, labels: dict[int, str], by_seed: bool) -> list[tuple[float, str]]:
    """Random search: of so many architectures, drawn from the table, the one that NT-Xent prefers."""
    rows = []
    for count, label in labels.items():
        if count > len(table):
            continue
        percentile, regret, area = _draws(table, column, count, np.arange(len(table)), DRAWS, by_seed)
        generator = np.random.default_rng(1)
        resampled = [
            _draws(table, column, count, generator.integers(len(table), size=len(table)), 200, by_seed)
            for _ in range(60)
        ]
        half = [1.96 * float(np.std([r[k] for r in resampled])) for k in (0, 1)]
        name = label.format(count)
        shown = f"{area:.0f}" if count > 1 and "ten" not in name else ""
        rows.append(
            (
                percentile,
                f"| {name} | | {percentile:.1f} ± {half[0]:.1f} | {regret:.1f} ± {half[1]:.1f} | {shown} | | | |",
            )
        )
    return rows


def _draws(
    table: FusionTable, column: str, count: int, rows: Any, draws: int, by_seed: bool
) -> tuple[float, float, float]:
    """Mean percentile and regret of what is picked, and mean percentile of the incumbent on the way."""
    generator = np.random.default_rng(0)
    criteria = [table.values("nt_xent", seed)[rows] for seed in table.seeds]
    values = [table.values(column, seed if by_seed else None)[rows] for seed in table.seeds]
    ranks = [100 * (stats.rankdata(found) - 0.5) / len(rows) for found in values]
    percentiles, regrets, areas = [], [], []
    for draw in range(draws):
        k = draw % len(table.seeds)
        chosen = generator.permutation(len(rows))[:count]
        picked = chosen[np.argmin(criteria[k][chosen])]
        percentiles.append(ranks[k][picked])
        regrets.append(100 * (values[k].max() - values[k][picked]))
        if draw < 300:
            best = np.minimum.accumulate(criteria[k][chosen])
            incumbents = [chosen[np.flatnonzero(criteria[k][chosen] == value)[0]] for value in best]
            areas.append(statistics.fmean([50.0, *ranks[k][incumbents]]))
    return float(np.mean(percentiles)), float(np.mean(regrets)), statistics.fmean(areas)


def _area(table: FusionTable, run: Run, column: str, kind: str, budget: float, by_seed: bool) -> float:
    """Mean percentile of the incumbent over the budget; before anything is found it is that of the median, 50."""
    home = run["encoders"] if by_seed else None
    if "path" in run:
        seconds = np.array(run["trial_seconds"])
        ends = run["seconds"] - seconds.sum() + seconds.cumsum()  # first of all a supernet may be trained
        values = [table.percentile_of(found[column], column, home) for found in run["path"]]
        done = np.searchsorted(ends, np.linspace(0, budget, 200), side="right")
        return statistics.fmean(50.0 if k == 0 else values[k - 1] for k in done)
    first, then = run["seconds"], run["seconds"] + run["selection_seconds"]
    favourite, last = (table.percentile_of(run[k][column], column, home) for k in ("favourite", kind))
    first, then = min(first, budget), min(then, budget)
    return (50.0 * first + favourite * (then - first) + last * (budget - then)) / budget


def _budget(runs: list[Run]) -> tuple[float, float]:
    """CPU seconds of a default search with its candidates, and of training and scoring one candidate."""
    mine = [run for run in runs if run["strategy"] == DEFAULT and run["seed"] < SEEDS]
    budget = statistics.fmean(run["seconds"] + run["selection_seconds"] for run in mine)
    return budget, statistics.fmean(run["selection_seconds"] / run["candidates"] for run in mine)


def _interval(values: list[float]) -> str:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.1f}"
    half = float(stats.t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.1f} ± {half:.1f}"


def _agreement(table: FusionTable, column: str) -> float:
    values = table.columns[column]
    return float(stats.spearmanr(values[:, 0], values[:, 1]).statistic) if values.shape[1] > 1 else float("nan")


if __name__ == "__main__":
    main()
