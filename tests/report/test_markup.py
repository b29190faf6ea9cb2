"""Names of the user's own are printed as they are, also where they look like rich's markup."""

import io

import pytest
from rich.console import Console, RenderableType

from lightning_mmnas.data.summary import DataSummary, SplitSummary
from lightning_mmnas.report.data_summary import render_summary
from lightning_mmnas.report.scores import render_scores
from lightning_mmnas.report.table import render_comparison

NAMES = ["[/b]", "[b]cat", "[red]", "a[0]"]


def printed(what: RenderableType) -> str:
    stream = io.StringIO()
    Console(file=stream, width=200, color_system=None).print(what)
    return stream.getvalue()


def summary() -> DataSummary:
    counts = dict.fromkeys(NAMES, 3)
    modality = {"kind": "features", "shape": [1], "dtype": "float32"}
    splits = {"train": SplitSummary(12, 0, None, counts, dict.fromkeys(NAMES, 0))}
    return DataSummary(dict.fromkeys(NAMES, modality), splits)  # type: ignore[arg-type]


def entry(name: str, budget: str = "all") -> dict[str, object]:
    return {"name": name, "labels_per_class": budget, "metric": "m", "mean": 0.5, "std": 0.0, "n": 1, "scores": [0.5]}


SCORES = {"samples": 4, "skipped": 0, "metrics": {"test/[b]": 0.5}, "class_names": NAMES, "confusion": [[1] * 4] * 4}


@pytest.mark.parametrize(
    "table",
    [
        render_summary(summary()),
        render_scores(SCORES),
        render_scores({**SCORES, "per_label": dict.fromkeys(NAMES, 0.5)}),
        render_comparison([entry("found+ssl"), *(entry(f"modality:{name}") for name in NAMES)]),
    ],
)
def test_names_with_brackets(table: RenderableType) -> None:
    text = printed(table)
    for name in NAMES:
        assert name in text
