"""Progress of a stage: one bar over all its batches."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from typing_extensions import override

_REFRESH = 0.1  # seconds between two drawings
_NOISE = (
    ".*does not have many workers",
    ".*The number of training batches",
    ".*exists and is not empty",
    ".*isinstance\\(treespec, LeafSpec\\)",
    ".*module\\(s\\) in eval mode at the start of training",
    ".*You defined a `validation_step` but have no `val_dataloader`",
)


class StageProgress(Callback):
    """Shows how far one stage has come, as a bar on a terminal, on rank zero.

    Args:
        stage: the stage's name, shown in front.
        console: where to draw; where it is no terminal, nothing is drawn.
    """

    def __init__(self, stage: str, console: Console) -> None:
        super().__init__()
        self._stage = stage
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._drawn = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero or not self._console.is_terminal:
            return
        # No refresh thread: drawing happens in the batches' own hooks.
        self._progress = Progress(
            TextColumn(f"{self._stage:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[metrics]}"),
            console=self._console,
            transient=True,
            auto_refresh=False,
        )
        self._task = self._progress.add_task(self._stage, total=_total(trainer), metrics="")
        self._progress.start()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self._progress is not None and now - self._drawn > _REFRESH:
            self._drawn = now
            self._draw(trainer, trainer.current_epoch * trainer.num_training_batches + batch_idx + 1)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _draw(self, trainer: Trainer, completed: float | None) -> None:
        assert self._progress is not None
        self._progress.update(self._task, completed=completed, metrics=metrics_line(trainer))
        self._progress.refresh()


def _total(trainer: Trainer) -> float | None:
    epochs, batches = trainer.max_epochs, trainer.num_training_batches
    if epochs is None or epochs < 0 or batches == float("inf"):
        return None
    return epochs * batches


def metrics_line(trainer: Trainer) -> str:
    """The latest losses and validation metrics in one line."""
    metrics = trainer.callback_metrics
    names = [name for name in sorted(metrics) if name.startswith(("train/loss", "val/"))]
    return "  ".join(f"{name} {float(metrics[name]):.3f}" for name in names[:3])


@contextmanager
def quiet() -> Iterator[None]:
    """Silences what Lightning says about the machine and about data loaders of in-memory data."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message in _NOISE:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
