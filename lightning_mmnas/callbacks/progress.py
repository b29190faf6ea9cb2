"""Progress of a stage: all its batches; and what libraries say that is of no use to whoever waits."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_mmnas.callbacks import lightning_private as private
from lightning_mmnas.modules import length
from lightning_mmnas.report.progress import Activity, RunProgress

_NOISE = (
    ".*does not have many workers",
    ".*The number of training batches",
    ".*exists and is not empty",
    ".*isinstance\\(treespec, LeafSpec\\)",
    ".*module\\(s\\) in eval mode at the start of training",
    ".*You defined a `validation_step` but have no `val_dataloader`",
)
_TRAINED = {
    "encoders": "encoders",
    "search": "supernet",
    "pretrain": "found network",
    "finetune": "found network",
}
_ADVERTISEMENTS = (
    "litlogger",
    "litmodels",
    "LitLogger",
    "LitModelCheckpoint",
    "PU available:",
    "No CUDA runtime is found",
)
_LOGGERS = (
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.rank_zero",
    "torch.utils.cpp_extension",
)


class StageProgress(Callback):
    """Shows how far one stage has come, on rank zero.

    Args:
        stage: The stage's name.
        progress: Where it is shown.
    """

    def __init__(self, stage: str, progress: RunProgress) -> None:
        super().__init__()
        self._what = _TRAINED.get(stage, stage)
        self._progress = progress
        self._activity: Activity | None = None
        self._open = ExitStack()
        self._total: float | None = None
        self._unit = "batches"

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        batches = length.epoch_batches(trainer)
        if self._progress.samples is None and batches is not None:
            self._progress.samples = batches * _batch_size(trainer)
        self._total, self._unit = _extent(trainer)
        shown = self._progress.activity(self._what, self._total, self._unit, part=0)
        self._activity = self._open.enter_context(shown)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._activity is not None:
            known = trainer.max_epochs is not None and trainer.max_epochs > 0
            epoch = f"epoch {trainer.current_epoch + 1}{f'/{trainer.max_epochs}' if known else ''}"
            note = metrics_line(trainer) if batch_idx == 0 else None
            self._activity.update(self._done(trainer), f"{self._what}, {epoch}", note)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._close()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._close()

    def _done(self, trainer: Trainer) -> float:
        if self._unit == "seconds":
            return (length.seconds(trainer) or (0.0, 0.0))[0]
        return trainer.global_step if self._unit == "steps" else private.batches_begun(trainer)

    def _close(self) -> None:
        self._activity = None
        self._open.close()


def _extent(trainer: Trainer) -> tuple[float | None, str]:
    """How much there is to do, and what is counted; None where it is not known."""
    if (time := length.seconds(trainer)) is not None:
        return time[1], "seconds"
    epochs, batches, steps = trainer.max_epochs, length.epoch_batches(trainer), length.weight_steps(trainer)
    if epochs is None or epochs < 0 or batches is None:
        return steps, "steps" if steps is not None else "batches"
    ends = steps is not None and steps < (length.steps_of_epochs(trainer, epochs) or 0)
    return (steps, "steps") if ends else (epochs * batches, "batches")


def _batch_size(trainer: Trainer) -> int:
    return int(getattr(getattr(trainer, "datamodule", None), "batch_size", None) or 1)


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
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def hide_advertisements() -> None:
    """Leaves out what is said in favour of other products, and of accelerators that are not there."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if _is_told not in logger.filters:
            logger.addFilter(_is_told)


def _is_told(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return not any(word in text for word in _ADVERTISEMENTS) or "available: True" in text
