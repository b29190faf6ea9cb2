"""`LastCheckpoint`: when it writes, and what it leaves behind."""

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_mmnas.callbacks import ArchitectureAlternation, ExactResume, LastCheckpoint
from lightning_mmnas.errors import RunDirectoryError
from tests.callbacks.searchers import Searcher, differences, loaders, trainer, values
from tests.callbacks.test_alternation_resume import KilledError


class Watch(Callback):
    """Notes the epoch and step of the file at the start of every batch; may fail there."""

    def __init__(self, path: Path, fail_at: int = -1) -> None:
        self.path, self.fail_at = path, fail_at
        self.seen: list[tuple[int, int] | None] = []

    def on_train_batch_start(self, run: Trainer, *args: Any) -> None:
        self.seen.append(_stand(self.path))
        if run.global_step == self.fail_at:
            raise KilledError


def _stand(path: Path) -> tuple[int, int] | None:
    if not path.is_file():
        return None
    checkpoint = torch.load(path, weights_only=True)
    return checkpoint["epoch"], checkpoint["global_step"]


def test_a_training_without_a_step_is_told(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="without one weight step, so that nothing was trained: check trainer.max_st"):
        trainer(tmp_path, LastCheckpoint(tmp_path), max_steps=0).fit(Searcher(), loaders())
    assert not (tmp_path / "last.ckpt").exists()


@pytest.mark.parametrize(
    ("minutes", "expected"),
    [
        (60.0, [None, None, None, (0, 3), (0, 3), (0, 3)]),
        # Never after an epoch's last batch, but at its end.
        (1e-9, [None, (0, 1), (0, 2), (0, 3), (1, 4), (1, 5)]),
    ],
)
def test_it_writes_after_every_epoch_and_within_long_ones(minutes: float, expected: list[Any], tmp_path: Path) -> None:
    watch, last = Watch(tmp_path / "last.ckpt"), LastCheckpoint(tmp_path, minutes)
    trainer(tmp_path, ArchitectureAlternation(), watch, last).fit(Searcher(), loaders())
    assert watch.seen == expected
    assert _stand(tmp_path / "last.ckpt") == (2, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    assert last.last_model_path == str(tmp_path / "last.ckpt")


@pytest.mark.parametrize(("first", "left"), [(True, (1, 4)), (False, (0, 3))])
def test_an_error_of_one_rank_waits_for_no_other(
    first: bool, left: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are in another collective operation, and would never come to the barrier of a checkpoint."""

    def barrier(*args: Any) -> None:
        raise AssertionError("waits for the other rank")

    class OneOfTwo(Callback):
        def on_train_batch_start(self, run: Trainer, *args: Any) -> None:
            if run.global_step == 4:
                monkeypatch.setattr(Trainer, "world_size", 2)
                monkeypatch.setattr(Trainer, "is_global_zero", first)
                monkeypatch.setattr(type(run.strategy), "barrier", barrier)
                raise KilledError

    with pytest.raises(KilledError):
        trainer(tmp_path, LastCheckpoint(tmp_path), OneOfTwo()).fit(Searcher(), loaders())
    assert _stand(tmp_path / "last.ckpt") == left


def test_it_does_not_write_within_an_accumulation(tmp_path: Path) -> None:
    watch, last = Watch(tmp_path / "last.ckpt"), LastCheckpoint(tmp_path, 1e-9)
    trainer(tmp_path, watch, last, max_epochs=1, accumulate_grad_batches=2).fit(Searcher(), loaders(24))
    assert watch.seen == [None, None, (0, 1), (0, 1), (0, 2), (0, 2)]


def test_the_file_stays_whole_when_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced at once, by a file of the same folder, whatever folder temporary files have."""
    moved: list[tuple[str, bool]] = []
    replace = os.replace

    def record(source: str, target: str) -> None:
        moved.append((str(source), _stand(Path(source)) is not None))
        replace(source, target)

    monkeypatch.setattr(os, "replace", record)
    trainer(tmp_path, LastCheckpoint(tmp_path), max_epochs=1).fit(Searcher(), loaders())
    assert moved[0] == (str(tmp_path / ".last.ckpt"), True)


def _full(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the disk is full, after half of a file."""

    def write_bytes(path: Path, content: Any) -> None:
        with path.open("wb") as file:
            file.write(bytes(content)[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


def test_a_full_disk_ends_the_run_in_a_line_and_leaves_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"

    class Fill(Callback):
        def on_train_epoch_start(self, run: Trainer, *args: Any) -> None:
            if run.current_epoch == 1:
                _full(monkeypatch)

    message = f"cannot write the checkpoint {path}: No space left on device; make room or choose another folder"
    with (
        pytest.warns(UserWarning, match="no checkpoint of this moment: cannot write the checkpoint"),
        pytest.raises(RunDirectoryError, match=re.escape(message)),
    ):
        trainer(tmp_path, LastCheckpoint(tmp_path), Fill()).fit(Searcher(), loaders())
    assert _stand(path) == (0, 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_has_ended_a_run_is_told_where_its_checkpoint_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "last.ckpt"

    class Fail(Callback):
        def on_train_batch_start(self, run: Trainer, *args: Any) -> None:
            if run.global_step == 4:
                _full(monkeypatch)
                raise KilledError

    with pytest.warns(UserWarning, match="no checkpoint of this moment: cannot write"), pytest.raises(KilledError):
        trainer(tmp_path, LastCheckpoint(tmp_path), Fail()).fit(Searcher(), loaders())
    assert _stand(path) == (0, 3)


@pytest.mark.parametrize("first", ["last", "best"])
def test_it_knows_the_best_epoch_up_to_its_own(first: str, tmp_path: Path) -> None:
    """A run that is killed after an epoch and resumed delivers the same best epoch."""

    class Scored(Searcher):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/loss", float(self.current_epoch))  # the first epoch is the best one

    def fit(folder: Path, *more: Callback, **options: Any) -> Any:
        seed_everything(1, verbose=False)
        best = ModelCheckpoint(folder, filename="best", monitor="val/loss", enable_version_counter=False)
        pair = [LastCheckpoint(folder), best]
        run = trainer(folder, ExactResume(), *more, *(pair if first == "last" else pair[::-1]), max_epochs=3)
        run.fit(Scored(), loaders(), loaders(), **options)
        return best

    with pytest.raises(KilledError):
        fit(tmp_path, Watch(tmp_path / "last.ckpt", fail_at=3))
    stored: Mapping[str, Any] = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
    (state,) = [value for key, value in stored.items() if key.startswith("ModelCheckpoint")]
    assert state["best_model_score"] == 0
    best = fit(tmp_path, ckpt_path=tmp_path / "last.ckpt")
    assert best.best_model_score == 0
    assert _stand(tmp_path / "best.ckpt") == (0, 3)


def test_a_run_without_a_step_of_its_own_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    trainer(tmp_path, ExactResume(), LastCheckpoint(tmp_path)).fit(Searcher(), loaders())
    before = path.read_bytes()
    callbacks = [ExactResume(), Watch(path, fail_at=6), LastCheckpoint(tmp_path)]
    with pytest.raises(KilledError):
        trainer(tmp_path, *callbacks, max_epochs=3).fit(Searcher(), loaders(), ckpt_path=path)
    assert path.read_bytes() == before
    callbacks = [ExactResume(), Watch(path, fail_at=7), LastCheckpoint(tmp_path)]
    with pytest.raises(KilledError):
        trainer(tmp_path, *callbacks, max_epochs=3).fit(Searcher(), loaders(), ckpt_path=path)
    assert _stand(path) == (2, 7)


def test_nothing_is_written_by_fast_dev_run(tmp_path: Path) -> None:
    trainer(tmp_path, LastCheckpoint(tmp_path), fast_dev_run=True).fit(Searcher(), loaders())
    assert not list(tmp_path.iterdir())


def test_wrong_minutes() -> None:
    with pytest.raises(MisconfigurationException, match=r"minutes=0 is not positive"):
        LastCheckpoint(minutes=0)


def test_checkpoints_that_come_too_late_are_announced(tmp_path: Path) -> None:
    late = ModelCheckpoint(tmp_path, save_last=True, save_top_k=0)
    with pytest.warns(UserWarning, match="a run that is killed leaves no checkpoint. Use LastCheckpoint"):
        trainer(tmp_path, ExactResume(), late, max_epochs=1).fit(Searcher(), loaders())
    modules = Searcher(), Searcher()
    trainer(tmp_path, ExactResume(), late, LastCheckpoint(tmp_path)).fit(modules[0], loaders())  # no warning
    trainer(tmp_path, ExactResume(), LastCheckpoint(tmp_path)).fit(modules[1], loaders())
    assert not differences(values(modules[0]), values(modules[1]))
