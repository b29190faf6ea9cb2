"""StageProgress and quiet."""

import io
import logging
import warnings
from pathlib import Path

from lightning.pytorch import Trainer
from rich.console import Console

from lightning_mmnas.callbacks.progress import StageProgress, metrics_line, quiet
from tests.commands.toys import ToyData, ToyModule


def _fit(console: Console, folder: Path) -> Trainer:
    with quiet():
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=3,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[StageProgress("search", console)],
        )
        trainer.fit(ToyModule(), ToyData())
    return trainer


def test_a_bar_over_all_epochs_on_a_terminal(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    trainer = _fit(console, tmp_path)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "search" in text
    assert "/6" in text  # 3 epochs of 2 batches
    assert metrics_line(trainer).startswith("train/loss 0.")
    assert " val/loss 0." in metrics_line(trainer)


def test_nothing_where_there_is_no_terminal(tmp_path: Path) -> None:
    console = Console(file=io.StringIO())
    _fit(console, tmp_path)
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == ""


def test_quiet_puts_everything_back() -> None:
    logger = logging.getLogger("lightning.pytorch")
    level, filters = logger.level, list(warnings.filters)
    with quiet():
        assert not logger.isEnabledFor(logging.INFO)
        warnings.warn("The loader does not have many workers", stacklevel=1)
    assert logger.level == level
    assert list(warnings.filters) == filters
