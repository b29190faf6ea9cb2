"""All ranks of a training end together when one of them is told to end."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from typing_extensions import override

from lightning_mmnas.callbacks import lightning_private as private

_VALIDATION, _EPOCH_END, _END, _STEP, _SKIP = 1, 2, 3, 4, 5
"""Places that are not before a batch, where a rank tells the others that it is there."""


class EndTogether(Callback):
    """Ends all ranks before the same batch after SIGTERM, and requeues before the same one where SLURM asks for it.

    The ranks tell each other once per batch, in place of a broadcast of Lightning's: four numbers. In validation they
    do so for as many batches as every rank has. A rank without any is refused: the others would wait for its metrics.
    So is a rank that leaves its epoch, or the training, while others train on. Where the module's
    ``on_train_batch_start`` may leave the epoch, they tell each other once more.

    Raises:
        MisconfigurationException: A rank has no validation batch while others have some, or fewer training batches, or
            has stopped or left its epoch alone.
    """

    def __init__(self) -> None:
        self._tell: Callable[..., None] | None = None
        self._batches = 0.0  # of this validation, in which they tell each other
        self._seen = 0  # of this validation
        self._skips = ExitStack()

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.world_size > 1 and stage == "fit":
            self._tell = private.hear_signals_together(trainer)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._tell is not None and trainer.val_dataloaders is not None:
            _require_batches(trainer, sum(trainer.num_val_batches))
        if self._tell is not None and is_overridden("on_train_batch_start", pl_module):
            self._skips.enter_context(_told_of_skips(pl_module, self._tell))

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._seen = 0
        if self._tell is not None and not trainer.sanity_checking:
            self._tell(_VALIDATION)
            own = torch.tensor(sum(trainer.num_val_batches), device=trainer.strategy.root_device)
            least = float(trainer.strategy.reduce(own, reduce_op="min"))
            self._batches = least if math.isfinite(least) else 0.0

    @override
    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self._seen += 1
        if self._tell is not None and self._batches > 0:
            self._batches -= 1
            self._tell()

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._tell is not None:  # of data without a length it is known only now
            _require_batches(trainer, self._seen)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._tell is not None:
            self._tell(_EPOCH_END)
        reduce_metrics(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._tell is not None:
            self._tell(_END)
        self._skips.close()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._skips.close()

    @override
    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._tell is not None:
            self._tell()


def reduce_metrics(trainer: Trainer) -> None:
    """Averages the metrics of the epoch over ranks, here and now, to be called by each of them.

    A progress bar, which only one rank has, asks for them when it likes: the others would be in another collective
    operation by then, and all would wait for ever.
    """
    if trainer.world_size > 1:
        _ = trainer.callback_metrics


@contextmanager
def nobody_waited_for(trainer: Trainer) -> Iterator[None]:
    """Within it barriers are none: what has ended this rank need not have come to the others, which are elsewhere."""
    vars(trainer.strategy)["barrier"] = lambda *args, **kwargs: None
    try:
        yield
    finally:
        del vars(trainer.strategy)["barrier"]


@contextmanager
def _told_of_skips(module: LightningModule, tell: Callable[..., None]) -> Iterator[None]:
    """Within it the ranks tell each other whether the module leaves the epoch before a batch, which -1 of it means."""
    hook, own = module.on_train_batch_start, vars(module).get("on_train_batch_start")

    @wraps(hook)
    def told(*args: Any, **kwargs: Any) -> Any:
        response = hook(*args, **kwargs)
        tell(_SKIP if response == -1 else _STEP)
        return response

    vars(module)["on_train_batch_start"] = told
    try:
        yield
    finally:
        del vars(module)["on_train_batch_start"]
        if own is not None:
            vars(module)["on_train_batch_start"] = own


def _require_batches(trainer: Trainer, own: float) -> None:
    """Refuses, on all ranks, that one of them has no validation batch while others have."""
    number = torch.tensor(float(own), device=trainer.strategy.root_device)
    least, most = (float(trainer.strategy.reduce(number.clone(), reduce_op=op)) for op in ("min", "max"))
    if least == 0 < most:
        raise MisconfigurationException(
            f"a rank has no validation batch, another has {most:g}: those would wait for its metrics for ever; give "
            f"each of the {trainer.world_size} ranks some samples, or set trainer.limit_val_batches to 0"
        )
