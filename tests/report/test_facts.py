"""What is read of a finished run."""

from pathlib import Path
from typing import Any

import pytest

from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import read_json, write_json
from lightning_mmnas.report.facts import read_curves, read_facts
from tests.report.make_facts import make_run


def test_facts_of_a_finished_run(tmp_path: Path) -> None:
    facts = read_facts(make_run(tmp_path / "run"))
    assert facts["seed"] == 7
    assert facts["curves"] == {"search": {"train/loss": [[0.0, 3.0], [1.0, 2.0]], "val/loss": [[0.0, 2.5]]}}
    assert "above random+ssl" in facts["verdicts"][1]
    assert list(facts["configs"]) == ["search"]
    assert len(facts["architecture"]["epochs"]) == 3


def test_of_an_epoch_that_was_logged_twice_the_later_value_counts(tmp_path: Path) -> None:
    for version, loss in ((0, 3.0), (1, 1.0)):
        path = tmp_path / "logs" / f"version_{version}" / "metrics.csv"
        path.parent.mkdir(parents=True)
        path.write_text(f"epoch,train/loss\n4,{loss}\n{5 + version},2.0\n")
    assert read_curves(tmp_path) == {"train/loss": [[4.0, 1.0], [5.0, 2.0], [6.0, 2.0]]}


def test_of_a_damaged_log_the_rest_is_read(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_bytes(b"epoch,train/loss\n0,1.0\n1,\x8b\xff\x00\n2,0.5\n")
    assert read_curves(tmp_path) == {"train/loss": [[0.0, 1.0], [2.0, 0.5]]}


@pytest.mark.parametrize(
    "change",
    [{"total_seconds": None}, {"parameters": -1}, {"comparison": ["a"]}, {"comparison": [{"name": 1}]}],
)
def test_damaged_results_are_told(change: dict[str, Any], tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    write_json(run / "results.json", {**(read_json(run / "results.json") or {}), **change})
    with pytest.raises(RunDirectoryError, match=r"results.json is damaged; its mmnas run command makes it again"):
        read_facts(run)


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"there is no folder .*nothing; give the --output"):
        read_facts(tmp_path / "nothing")
    with pytest.raises(RunDirectoryError, match=r"is not the folder of a run"):
        read_facts(tmp_path)
    write_json(tmp_path / "manifest.json", {"seed": 0})
    write_json(tmp_path / "search" / "done.json", {})
    with pytest.raises(RunDirectoryError, match=r"is not finished \(to do: pretrain, finetune\)"):
        read_facts(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"cannot read .*results.json"):
        read_facts(tmp_path)
