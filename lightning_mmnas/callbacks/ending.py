"""All ranks of a training end together when one of them is told to end."""

import math
from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from typing_extensions import override

from lightning_mmnas.callbacks import lightning_private as private


class EndTogether(Callback):
    """Ends all ranks before the same batch after SIGTERM, and requeues before the same one where SLURM asks for it.

    The ranks tell each other once per batch, in place of a broadcast of Lightning's: two numbers. In validation they do
    so for as many batches as every rank has.
    """

    def __init__(self) -> None:
        self._tell: Callable[[], None] | None = None
        self._batches = 0.0  # of this validation, in which they tell each other

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size > 1 and stage == "fit":
            self._tell = private.hear_signals_together(trainer)

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._tell is not None and not trainer.sanity_checking:
            own = torch.tensor(sum(trainer.num_val_batches), device=trainer.strategy.root_device)
            least = float(trainer.strategy.reduce(own, reduce_op="min"))
            self._batches = least if math.isfinite(least) else 0.0

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if self._tell is not None and self._batches > 0:
            self._batches -= 1
            self._tell()

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._tell is not None:
            self._tell()
