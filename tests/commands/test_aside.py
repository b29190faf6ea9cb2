"""Stages that are done again: nothing of the earlier result is lost, whatever happens."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from lightning_mmnas.commands.aside import (
    recover,
    redoing,
    renews_features,
    restore,
    reusable,
    reuse,
    set_aside,
    take_up,
)
from lightning_mmnas.commands.changes import read_manifest
from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import write_text
from tests.commands.runs import contents, finish, make_run, stages_with

REDONE = ("pretrain", "finetune", "comparison")
NEW = stages_with(pretrain=1)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    make_run(tmp_path / "run", stages_with())
    return tmp_path / "run"


def test_the_earlier_result_stands_aside_until_the_new_one_is_whole(run_dir: Path) -> None:
    set_aside(run_dir, REDONE, NEW, 0)
    assert {p.name for p in run_dir.iterdir()} == {
        *("encoders", "search", "features", "genotype.json", "manifest.json", "previous")
    }
    assert renews_features(run_dir)
    with redoing(run_dir):
        for stage in NEW[2:]:
            finish(run_dir, stage, "new")
    assert not (run_dir / "previous").exists()
    assert not renews_features(run_dir)
    assert (run_dir / "results.json").read_text() == "new"
    assert (run_dir / "genotype.json").read_text() == "old"
    assert read_manifest(run_dir) != read_manifest(run_dir.parent)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failing_redo_gives_the_earlier_result_back_and_is_gone_on_with(
    run_dir: Path, error: type[BaseException]
) -> None:
    before = contents(run_dir)
    set_aside(run_dir, REDONE, NEW, 0)
    said: list[str] = []

    @redoing(run_dir, said.append)
    def fail() -> None:
        finish(run_dir, NEW[2], "new")
        (run_dir / "features" / "shard.npy").unlink()  # as the cache does: never changed in place
        write_text(run_dir / "features" / "shard.npy", "new")
        write_text(run_dir / "finetune" / "checkpoints" / "last.ckpt", "half")
        raise error

    with pytest.raises(error):
        fail()
    assert "the earlier result is back" in said[0]
    assert {name: text for name, text in contents(run_dir).items() if not name.startswith("redo/")} == before

    set_aside(run_dir, REDONE, NEW, 0)
    take_up(run_dir, NEW)
    now = contents(run_dir)
    assert now["pretrain/checkpoints/last.ckpt"] == "new"
    assert now["finetune/checkpoints/last.ckpt"] == "half"
    assert now["features/shard.npy"] == "new"
    assert now["previous/features/shard.npy"] == "old"
    assert not (run_dir / "redo").exists()


def test_only_what_has_the_settings_of_now_is_taken_up(run_dir: Path) -> None:
    set_aside(run_dir, REDONE, NEW, 0)
    finish(run_dir, NEW[2], "new")
    finish(run_dir, NEW[3], "new")
    restore(run_dir)
    other = stages_with(pretrain=1, finetune=3)
    set_aside(run_dir, REDONE, other, 0)
    take_up(run_dir, other)
    assert (run_dir / "pretrain" / "done.json").is_file()
    assert not (run_dir / "finetune").exists()


def test_a_killed_redo_is_gone_on_with_or_taken_back(run_dir: Path) -> None:
    before = contents(run_dir)
    set_aside(run_dir, REDONE, NEW, 0)
    finish(run_dir, NEW[2], "new")
    half = contents(run_dir)
    recover(run_dir, NEW, 0)  # the same command: it goes on
    assert contents(run_dir) == half
    recover(run_dir, stages_with(), 0)  # that of the earlier result
    assert {name: text for name, text in contents(run_dir).items() if not name.startswith("redo/")} == before
    assert (run_dir / "redo" / "pretrain" / "done.json").is_file()


@pytest.mark.parametrize("steps", range(17))
def test_killed_while_files_change_places(run_dir: Path, monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    before = contents(run_dir)
    left = steps

    def rename(self: Path, target: Path) -> Path:
        nonlocal left
        if left == 0:
            raise SystemExit
        left -= 1
        shutil.move(self, target)
        return target

    with monkeypatch.context() as patch, suppress(SystemExit):
        patch.setattr(Path, "rename", rename)
        set_aside(run_dir, REDONE, NEW, 0)
        finish(run_dir, NEW[2], "new")
        restore(run_dir)
    recover(run_dir, stages_with(), 0)
    assert {name: text for name, text in contents(run_dir).items() if not name.startswith("redo/")} == before


def test_what_was_left_of_the_earlier_result_by_a_killed_end_is_removed(run_dir: Path) -> None:
    write_text(run_dir / "previous" / "results.json", "old")
    recover(run_dir, stages_with(), 0)
    assert not (run_dir / "previous").exists()


def test_another_run_takes_over_the_stages_with_its_settings(run_dir: Path, tmp_path: Path) -> None:
    other, stages = tmp_path / "other", stages_with(finetune=1)
    make_run(other, stages, finished=0)
    assert reuse(run_dir, other, stages, 0) == ["encoders", "search", "pretrain"]
    names = {"encoders", "search", "pretrain", "features", "genotype.json", "manifest.json"}
    assert {p.name for p in other.iterdir()} == names
    assert yaml.safe_load((other / "search" / "config.yaml").read_text())["run_dir"] == str(other)
    assert (other / "features" / "shard.npy").samefile(run_dir / "features" / "shard.npy")
    assert not (other / "search" / "done.json").samefile(run_dir / "search" / "done.json")
    write_text(other / "search" / "done.json", "mine")
    reuse(run_dir, other, stages, 0)  # what is there stays
    assert (other / "search" / "done.json").read_text() == "mine"


def test_what_cannot_be_taken_over(run_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="is no run of mmnas"):
        reusable(tmp_path, NEW, 0)
    with pytest.raises(RunDirectoryError, match="its seed is 0, not 1"):
        reusable(run_dir, NEW, 1)
    with pytest.raises(RunDirectoryError, match="no finished stage of it has these settings"):
        reusable(run_dir, stages_with(encoders=1), 0)
    (run_dir / "genotype.json").unlink()
    assert reusable(run_dir, NEW, 0) == ["encoders"]
