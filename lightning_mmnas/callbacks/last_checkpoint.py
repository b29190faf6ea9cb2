"""The checkpoint from which a run that dies at any moment goes on."""

import time
from pathlib import Path
from typing import Any
from weakref import proxy

from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException
from typing_extensions import override

from lightning_mmnas.callbacks.checkpoint_files import write_whole_checkpoints
from lightning_mmnas.callbacks.contract import require
from lightning_mmnas.callbacks.ending import nobody_waited_for, reduce_metrics
from lightning_mmnas.errors import RunDirectoryError, TrainingError
from lightning_mmnas.modules.finite import require_finite
from lightning_mmnas.modules.length import is_trial


class LastCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint, ``last.ckpt``, that is never older than an epoch or some minutes.

    It is written after every epoch, every few minutes within a longer one, at the end and on an exception. (Lightning's
    ``save_last=True`` with ``save_top_k=0`` writes at the end and on an exception only: a run that is killed has none.)
    The file is replaced as a whole: whatever happens while it is written, the one before is still there.

    It is written after the trainer's other checkpoints, whose state (which epoch was the best one) is part of it.

    Args:
        dirpath: Folder of the file; None: where `ModelCheckpoint` would write.
        minutes: Minutes after which a long epoch does not wait for its end, > 0.

    Raises:
        MisconfigurationException: Minutes that are not positive.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[LastCheckpoint("runs/mine", minutes=30)], logger=False)
    """

    def __init__(self, dirpath: str | Path | None = None, minutes: float = 15.0) -> None:
        require(minutes > 0, f"minutes={minutes} is not positive")
        super().__init__(dirpath, filename="last", save_top_k=0, save_on_exception=True, enable_version_counter=False)
        self._seconds = 60 * minutes
        self._written_at = 0.0
        self._written_step: int | None = None  # None: training has not begun

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        self._written_step = None
        write_whole_checkpoints(trainer)
        others: list[Callback] = [c for c in trainer.callbacks if c is not self]  # type: ignore[attr-defined]
        trainer.callbacks = [*others, self]  # type: ignore[attr-defined]  # a new list: Lightning is iterating the old one

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._written_at, self._written_step = time.monotonic(), trainer.global_step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches != 0:
            return
        # Asked whether or not this is the last batch, which it may be for one rank alone.
        due = trainer.strategy.reduce_boolean_decision(time.monotonic() - self._written_at >= self._seconds, all=False)
        # After the last batch comes the epoch's end, which Lightning would leave out when it goes on from here.
        if due and not trainer.is_last_batch and batch_idx + 1 != trainer.num_training_batches:
            self._write(trainer)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        reduce_metrics(trainer)  # a checkpoint holds what all ranks give
        self._write(trainer)

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Writes nothing: validation changes nothing."""

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._write(trainer)  # once more: other callbacks may have averaged the weights

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.global_step == 0:
            rank_zero_warn(
                "The training ended without one weight step, so that nothing was trained: check trainer.max_steps,"
                " trainer.max_time and trainer.limit_train_batches."
            )

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        # Of a run that has made no step of its own, the file that it came from is worth more.
        if self._written_step in (None, trainer.global_step):
            return
        try:
            if trainer.world_size == 1 or isinstance(exception, SIGTERMException):  # which all ranks raise
                self._write(trainer)
            elif trainer.is_global_zero:
                with nobody_waited_for(trainer):
                    self._write(trainer)
        except (
            RunDirectoryError,
            TrainingError,
        ) as error:  # the message is what has ended the run
            rank_zero_warn(f"no checkpoint of this moment: {error}")

    def _write(self, trainer: Trainer) -> None:
        if is_trial(trainer):
            return
        require_finite(trainer.lightning_module)
        path = self.last_model_path = self.format_checkpoint_name({})
        trainer.save_checkpoint(path)
        self._written_at, self._written_step = time.monotonic(), trainer.global_step
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.after_save_checkpoint(proxy(self))
