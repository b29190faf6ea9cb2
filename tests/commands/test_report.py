"""`mmnas report`: made-up runs, several runs, and what is refused. A real run's report is in test_run_watch.py."""

import io
import json
import logging
from pathlib import Path

import pytest
from rich.console import Console

from lightning_mmnas.commands import inspection
from lightning_mmnas.commands import report as of_report
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.report import analyse, compare_runs, make_report, report_after_run
from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import write_json
from lightning_mmnas.report import page, progress
from tests.report.make_facts import make_run, model


@pytest.mark.slow
def test_a_run_without_a_model_of_ours_has_a_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", comparison=[])
    (run / "finetune").mkdir()
    path = make_report(run, tmp_path / "elsewhere" / "page.html", strict=True)
    assert path == tmp_path / "elsewhere" / "page.html"
    assert "The model of this run was not looked at: cannot read" in path.read_text()
    assert (run / "pictures" / "genotype.svg").is_file()


def test_the_model_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Path] = []

    def look(run_dir: Path) -> tuple[dict[str, object], None]:
        looks.append(run_dir)
        return model(), None

    monkeypatch.setattr(inspection, "inspect_run", look)
    run = make_run(tmp_path / "run")
    analyse(run, strict=True)
    moved = run.rename(tmp_path / "moved")
    assert analyse(moved, strict=True)["model"] == model()
    assert looks == [run]
    analyse(moved, again=True)
    make_run(moved, stages={"finetune": {"seconds": 9.0}})  # trained again
    analyse(moved)
    (moved / "analysis.json").write_text("{")
    analyse(moved)
    assert looks == [run, moved, moved, moved]


def test_on_a_terminal_the_report_is_not_made_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "Console", lambda stderr: console)
    monkeypatch.setattr(page, "SECTIONS", page.SECTIONS[-1:])
    monkeypatch.setattr(inspection, "inspect_run", lambda _: (None, "There is no table."))
    runs = [make_run(tmp_path / name) for name in ("a", "b")]
    make_report(runs[0])
    assert "making the report" in console.file.getvalue()  # type: ignore[attr-defined]
    compare_runs(runs, tmp_path / "both.html")
    assert "2/2 runs" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_known_of_a_model_is_kept_where_its_data_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found: list[tuple[dict[str, object] | None, str | None]] = [(model(), None), (None, "There is no table.")]
    monkeypatch.setattr(inspection, "inspect_run", lambda _: found.pop(0))
    run = make_run(tmp_path / "run")
    analyse(run)
    facts = analyse(run, again=True)
    assert (facts["model"], facts["why_no_model"]) == (model(), None)
    assert f"There is no table. What {run / 'analysis.json'} knew of it is kept." in caplog.text
    assert found == []


@pytest.mark.parametrize("known", ["a text", {"metric": "accuracy"}, {"metric": "f1", "scores": {"accuracy": 1.0}}])
def test_what_was_known_of_a_model_is_made_again_where_it_is_damaged(
    known: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inspection, "inspect_run", lambda _: (model(), None))
    run = make_run(tmp_path / "run")
    facts = analyse(run)
    write_json(run / "analysis.json", {**facts, "model": known})
    assert analyse(run)["model"] == model()


def test_several_runs_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path / name / "run") for name in ("a", "b")]
    output = tmp_path / "both.html"
    assert main(["report", *map(str, runs), "--output", str(output)]) == 0
    assert f"wrote {output}" in capsys.readouterr().out
    assert "a/run, b/run" in output.read_text()
    assert (tmp_path / "both-pictures" / "runs-accuracy-all.png").is_file()


def test_what_is_no_finished_run_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run")
    for runs, message in (
        ([tmp_path / "nothing"], "there is no folder"),
        ([tmp_path], "is not the folder of a run"),
        ([run, tmp_path], "is not the folder of a run"),
        ([run, run], "a run is given twice"),
        ([run, "--output", run / "results.json"], "results.json is not .html; check --output"),
    ):
        assert main(["report", *map(str, runs)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (run / "analysis.json").exists()
    with pytest.raises(RunDirectoryError):
        compare_runs([run, tmp_path], tmp_path / "x.html")


def test_a_failing_report_does_not_lose_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **kwargs: object) -> Path:
        raise ZeroDivisionError("by zero")

    run = make_run(tmp_path / "run")
    monkeypatch.setattr(of_report, "make_report", broken)
    with caplog.at_level(logging.WARNING):
        assert report_after_run(run) is None
    assert f"no report: ZeroDivisionError: by zero; mmnas report {run} makes it" in caplog.text

    monkeypatch.setattr(inspection, "inspect_run", broken)
    facts = analyse(run)
    assert facts["why_no_model"] == "The model of this run could not be looked at (ZeroDivisionError)."
    assert json.loads((run / "analysis.json").read_text())["memory"]["process"] > 2**20
    with pytest.raises(ZeroDivisionError):
        analyse(run, strict=True)
