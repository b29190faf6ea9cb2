"""The page that compares several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_mmnas.report import plots
from lightning_mmnas.report.budgets import budget_name, budget_of, measured, score_text, unit_of
from lightning_mmnas.report.facts import STAGES, Facts
from lightning_mmnas.report.page import Page, build
from lightning_mmnas.report.section import Picture, Section, Table
from lightning_mmnas.report.sections import describe
from lightning_mmnas.report.verdicts import FOUND, half_width, headline

Runs = list[tuple[str, Facts]]


def runs_page(names: Sequence[str], facts: Sequence[Facts], strict: bool = False) -> Page:
    """The page of several runs.

    Args:
        names: Of the runs, all different.
        facts: Contents of their `analysis.json`.
        strict: See `run_page`.
    """
    runs = list(zip(names, facts, strict=True))
    makers = (_overview, _scores, _curves, _networks)
    built, left_out = build(makers, {"runs": runs}, strict)
    verdicts = [f"{name}: {verdict}" for name, one in runs if (verdict := headline(one["comparison"]))]
    if built and verdicts:
        built[0].paragraphs += verdicts
    return Page("Comparison of runs", f"{len(runs)} runs compared", ", ".join(names), [], built, left_out)


def _overview(facts: Facts) -> Section | str:
    runs: Runs = facts["runs"]
    rows = []
    for name, one in runs:
        model: dict[str, Any] = one.get("model") or {}
        score = f"{model['metric']} {score_text(model['scores'][model['metric']])}" if model else "not known"
        missing = (one["parameters"] or {}).get("network")
        size = "not known" if missing is None else f"{missing:,}"
        rows.append([name, str(one["seed"]), score, size, f"{one['total_seconds']:.0f}"])
    header = ["run", "seed", "fine-tuned model", "parameters of the network", "seconds"]
    return Section("Overview", [], [], [Table(header, rows)])


def _scores(facts: Facts) -> Section | str:
    """The found network of every run, per metric and label budget."""
    runs: Runs = facts["runs"]
    rows = [{**row, "name": name} for name, one in runs for row in one["comparison"] if row["name"] == FOUND]
    if not rows:
        return "None of the runs has a comparison with other models."
    pictures = []
    for metric in dict.fromkeys(row["metric"] for row in rows):
        same = [row for row in rows if row["metric"] == metric]
        for budget in dict.fromkeys(budget_of(row) for row in measured(same)):
            name = f"runs-{metric}-{budget}"
            caption = (
                f"{budget_name(budget, unit_of(same[0])).capitalize()}: the found, pretrained network of every run."
            )
            pictures.append(Picture(name, caption, plots.plot_comparison(measured(same), budget)))
    table = Table(
        ["run", "labels", "metric", "mean", "half of the 95 % interval", "draws"],
        [
            [
                row["name"],
                budget_name(budget_of(row), unit_of(row)),
                row["metric"],
                score_text(row["mean"]),
                "" if (half := half_width(row.get("scores") or [])) is None else f"{half:.3f}",
                str(row["n"]),
            ]
            for row in rows
        ],
    )
    words = "Runs can only be compared where data, splits and label budgets are the same."
    return Section("The found networks", [words], pictures, [table])


def _curves(facts: Facts) -> Section | str:
    runs: Runs = facts["runs"]
    pictures = []
    for stage in STAGES:
        found = {f"{name} loss": one["curves"].get(stage, {}).get("train/loss") for name, one in runs}
        known = {name: points for name, points in found.items() if points}
        if known:
            picture = plots.plot_curves(known, stage)
            pictures.append(Picture(f"runs-curves-{stage}", f"Training loss of stage {stage}.", picture))
    return Section("Losses", [], pictures) if pictures else "No run has left a metrics.csv."


def _networks(facts: Facts) -> Section | str:
    runs: Runs = facts["runs"]
    rows = [[name, describe(one["genotype"])] for name, one in runs if one["genotype"]]
    if not rows:
        return "No run has a genotype."
    return Section("Architectures", [], [], [Table(["run", "found network"], rows, numbers=False)])
