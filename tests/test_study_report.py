"""What `benchmarks/study_report.py` makes of the study's records, and that the committed ones are whole."""

import importlib.util
import json
import statistics
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
COMMITTED = sorted((BENCHMARKS / "results").glob("study-*.json"))


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("study_report", BENCHMARKS / "study_report.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def record(row: str, rate: float, val: float, test: float, draw: int = 0) -> dict[str, Any]:
    return {"row": row, "fraction": 0.05, "draw": draw, "labels": 10, "rate": rate, "val": val, "test": test}


def test_the_learning_rate_is_chosen_on_the_validation_split(report: ModuleType) -> None:
    runs = [
        {"seconds": {"search": 1.0}, "records": [record("found+ssl", 1.0, 0.9, 0.5), record("found+ssl", 3.0, 0.7, 1)]},
        {"seconds": {"search": 3.0}, "records": [record("found+ssl", 1.0, 0.6, 0.7), record("found+ssl", 3.0, 0.7, 1)]},
    ]
    assert report.chosen({"runs": runs}) == {"found+ssl": {0.05: [0.5, 0.7]}}


def test_a_runs_number_is_the_mean_over_draws_and_random_architectures(report: ModuleType) -> None:
    names = ["random0+ssl", "random1+ssl", "random0", "found+ssl", "paper+ssl"]
    scores = {name: [0.1 * i, 0.1 * i + 0.2] for i, name in enumerate(names)}
    records = [record(name, 1.0, 0.5, scores[name][draw], draw) for name in names for draw in (0, 1)]
    found = report.chosen({"runs": [{"records": records}]})
    assert set(found) == {"random+ssl", "random", "found+ssl", "paper"}
    assert found["random+ssl"][0.05] == [pytest.approx(statistics.fmean([0.0, 0.2, 0.1, 0.3]))]
    assert found["found+ssl"][0.05] == [pytest.approx(0.4)]


def test_intervals_hold_the_mean_and_are_those_of_all_resamples(report: ModuleType) -> None:
    assert report.interval([2.0, 2.0, 2.0]) == (2.0, 2.0)
    low, high = report.interval([0.0, 1.0])  # means 0, 1/2, 1/2, 1
    assert (low, high) == (0.0, 1.0)
    low, high = report.interval([-1.0, 0.0, 1.0, 2.0, 3.0])
    assert low < 1.0 < high
    assert (low + high) / 2 == pytest.approx(1.0)  # as the differences are symmetric


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: str(path.stem))
def test_every_committed_run_has_every_row_at_every_share(path: Path, report: ModuleType, tmp_path: Path) -> None:
    study = json.loads(path.read_text(encoding="utf-8"))
    assert len({run["seed"] for run in study["runs"]}) == len(study["runs"]) >= 2
    rows = [{(r["row"], r["fraction"], r["draw"], r["rate"]) for r in run["records"]} for run in study["runs"]]
    assert all(other == rows[0] for other in rows)
    scores = report.chosen(study)
    assert set(report.TITLES) <= set(scores)
    assert all(len(values) == len(study["runs"]) for row in scores.values() for values in row.values())
    text = report.tables(study)
    assert text.count("\n| ") == 2 * len(scores)  # one line per row in both tables, ours in the first only
    report.draw({path.stem: scores}, tmp_path / "study.svg")
    assert (tmp_path / "study.svg").stat().st_size > 10_000
