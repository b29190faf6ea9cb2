"""What counts as another setting of a stage."""

import json
from pathlib import Path

import pytest
import yaml
from lightning.pytorch import Trainer

from lightning_mmnas.commands.changes import (
    digest_of,
    free_folder,
    listed,
    read_record,
    same,
)
from lightning_mmnas.commands.claiming import resolve
from lightning_mmnas.commands.parser_types import read_whole_numbers_first
from lightning_mmnas.commands.stages import read_stages
from lightning_mmnas.errors import ConfigError, RunDirectoryError
from lightning_mmnas.files import write_json
from tests.commands.test_run import _stage


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    for name in ("search", "pretrain", "finetune"):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(_stage(name)))
    common = {"shared": {"hidden": 4, "other": 1}, "trainer": {"max_epochs": 3}}
    (tmp_path / "common.yaml").write_text(yaml.safe_dump(common))
    search = _stage("search", hidden="${shared.hidden}")
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(search))
    return tmp_path


def _digests(configs: Path, *overrides: str, run_dir: str = "runs/x", seed: int = 0) -> list[str]:
    return [digest_of(resolve(s, Path(run_dir), seed).settings) for s in read_stages(configs, overrides)]


def _changed(before: list[str], after: list[str]) -> list[str]:
    names = ["search", "pretrain", "finetune", "comparison"]
    return [name for name, old, new in zip(names, before, after, strict=True) if old != new]


@pytest.mark.slow
def test_only_what_a_stage_resolves_to_counts(configs: Path) -> None:
    before = _digests(configs)
    (configs / "finetune.yaml").write_text(f"# layout\n{json.dumps(_stage('finetune'))}")
    common = yaml.safe_load((configs / "common.yaml").read_text())
    common["shared"]["other"] = 2  # no stage takes it
    (configs / "common.yaml").write_text(yaml.safe_dump(common))
    options = ("--trainer.max_epochs", "3", "--finetune.model.hidden", "2")  # as in the file, and the default
    assert _digests(configs, *options, run_dir="/elsewhere") == before

    assert _changed(before, _digests(configs, "--shared.hidden", "5")) == ["search"]
    later = ("--finetune.trainer.max_epochs", "5", "--comparison.draws=1")
    assert _changed(before, _digests(configs, *later)) == ["finetune", "comparison"]
    assert _changed(before, _digests(configs, seed=1)) == ["search", "pretrain", "finetune"]


@pytest.mark.parametrize(
    ("given", "read"), [("1", 1), ("1.0", 1.0), ("0", 0), ("0.5", 0.5), ("null", None)], ids=lambda value: str(value)
)
def test_numbers_of_batches_are_read_as_they_are_written(
    configs: Path, monkeypatch: pytest.MonkeyPatch, given: str, read: float | None
) -> None:
    """To Python's cache of types, a union of float and int may be one of int and float."""
    hints = Trainer.__init__.__annotations__
    monkeypatch.setitem(hints, "limit_train_batches", float | int | None)
    monkeypatch.setitem(hints, "limit_val_batches", int | float | None)
    read_whole_numbers_first()
    options = ("--trainer.limit_train_batches", given, "--trainer.limit_val_batches", given)
    settings = resolve(read_stages(configs, options)[0], Path("runs/x"), 0).settings
    for name in ("trainer.limit_train_batches", "trainer.limit_val_batches"):
        assert (settings.get(name), type(settings.get(name))) == (read, type(read))


def test_no_batches_of_an_earlier_version_are_none(configs: Path) -> None:
    stage = resolve(read_stages(configs, ["--trainer.limit_val_batches", "0"])[0], Path("runs/x"), 0)
    assert same(digest_of(stage.settings), stage, 0)
    assert same(digest_of({**stage.settings, "trainer.limit_val_batches": 0.0}), stage, 0)
    assert not same(digest_of({**stage.settings, "trainer.limit_val_batches": 1.0}), stage, 0)


def test_mistakes_name_the_stage_and_the_real_folder(configs: Path) -> None:
    stages = read_stages(configs, ["--finetune.model.hidden", "${run_dir}"])
    with pytest.raises(ConfigError, match=r"stage finetune: .*runs/x") as error:
        resolve(stages[2], Path("runs/x"), 0)
    assert "@" not in str(error.value)


def test_free_folder(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "run") == tmp_path / "run-2"
    (tmp_path / "run-2").mkdir()
    assert free_folder(tmp_path / "run") == tmp_path / "run-3"
    assert free_folder(tmp_path / "run-2") == tmp_path / "run-3"
    assert free_folder(Path(".")).name.endswith("-2")


def test_listed() -> None:
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a"]) == "a"


@pytest.mark.parametrize("change", [{"seconds": None}, {"parameters": -1}, {"parameters": None}])
def test_a_damaged_record_is_told(change: dict[str, object], tmp_path: Path) -> None:
    write_json(
        tmp_path / "search" / "done.json", {"digest": "a", "seconds": 1.0, "parameters": {"network": 1}, **change}
    )
    with pytest.raises(RunDirectoryError, match=r"cannot read .*done.json .*; delete it and give the same command"):
        read_record(tmp_path, "search")
