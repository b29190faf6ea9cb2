"""StageProgress, and what is not told."""

import io
import logging
import warnings
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from rich.console import Console

from lightning_mmnas.callbacks.progress import StageProgress, hide_advertisements, metrics_line, quiet
from lightning_mmnas.report.progress import RunProgress
from tests.commands.toys import ToyData, ToyModule


def _fit(progress: RunProgress, folder: Path) -> Trainer:
    with quiet(), progress, progress.stage("search"):
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=3,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[StageProgress("search", progress)],
        )
        trainer.fit(ToyModule(), ToyData())
    return trainer


def test_a_bar_over_all_epochs_on_a_terminal(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=140)
    progress = RunProgress(console, ["encoders", "search"])
    trainer = _fit(progress, tmp_path)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "search 2/2" in text
    assert "/6 batches" in text  # 3 epochs of 2 batches
    assert "supernet, epoch 3/3" in text
    assert progress.samples == trainer.num_training_batches * ToyData().batch_size
    assert metrics_line(trainer).startswith("train/loss 0.")
    assert " val/loss 0." in metrics_line(trainer)


def test_only_stages_where_there_is_no_terminal(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    _fit(RunProgress(console, ["encoders", "search"]), tmp_path)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue()[9:] == "search 2/2 begins\n"


@pytest.mark.parametrize("name", ["lightning.pytorch.utilities.rank_zero", "torch.utils.cpp_extension"])
def test_advertisements_are_left_out(caplog: pytest.LogCaptureFixture, name: str) -> None:
    logger = logging.getLogger(name)
    before = list(logger.filters)
    hide_advertisements()
    hide_advertisements()
    try:
        assert len(logger.filters) <= len(before) + 1
        logger.propagate, propagated = True, logger.propagate
        with caplog.at_level(logging.INFO, logger.name):
            left_out = ("Tip: try installing [litlogger]", "TPU available: False", "No CUDA runtime is found, using x")
            for text in (*left_out, "TPU available: True", "epoch 3"):
                logger.info(text)
        assert [record.getMessage() for record in caplog.records] == ["TPU available: True", "epoch 3"]
    finally:
        logger.filters[:] = before
        logger.propagate = propagated


def test_quiet_puts_everything_back() -> None:
    logger = logging.getLogger("lightning.pytorch")
    level, filters = logger.level, list(warnings.filters)
    with quiet():
        assert not logger.isEnabledFor(logging.INFO)
        warnings.warn("The loader does not have many workers", stacklevel=1)
    assert logger.level == level
    assert list(warnings.filters) == filters
