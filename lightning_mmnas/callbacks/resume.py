"""A killed run that is resumed from its checkpoint ends bit-identical to an unbroken one."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, OnExceptionCheckpoint, WeightAveraging
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import Self, override

from lightning_mmnas.callbacks import lightning_private as private
from lightning_mmnas.callbacks.generators import LoaderGenerators, holders_of
from lightning_mmnas.callbacks.random_state import random_state, set_random_state
from lightning_mmnas.callbacks.resumed_settings import (
    all_optimizer_settings,
    check_run_length,
    check_settings,
    refuse_finders,
    require_resumable,
    run_length,
)
from lightning_mmnas.data.samples import EpochSampler, ViewSampler
from lightning_mmnas.data.stream.sampler import ShardSampler
from lightning_mmnas.modules.hyperparameters import plain_values, warn_of_left_out
from lightning_mmnas.modules.length import load_train_data, set_accumulation
from lightning_mmnas.modules.ranks import draw_apart, reseed


class ExactResume(Callback):
    """Adds to every checkpoint what Lightning leaves out of it.

    - **Random state** of Python, NumPy, torch and the CUDA device, and buffers such as batch-norm statistics, of
      every rank. Validation in the middle of training is made neutral: the state from before it comes back after it.
      Ranks with the same seed are made to draw different numbers when training starts.
    - **Place in the data.** Lightning starts a resumed epoch with its first batch again. This
      callback repeats the order of the interrupted epoch and skips what was already seen. Each
      train loader (and its sampler) without a ``generator`` is given one, so that the order of the
      data depends on nothing else. Skipped batches are loaded and dropped, so that workers and
      cycling loaders stand where they stood.
    - **Half-filled gradient accumulation**: the ``.grad`` of the weights.
    - A checkpoint written in the middle of a batch (on an exception, or as SLURM's requeueing does) holds the state
      from *before* that batch, which is then repeated. Averages that `WeightAveraging` keeps are saved as they are.

    Optimisers and schedules resume with the settings of the checkpoint; of a run with others it is said in a warning
    that they do not count, and refused are other optimisers, a schedule laid out for another length, and, in the middle
    of an epoch, other batches.

    Samplers, batch samplers and data sets without a length that draw from the global generators are given draws of
    their own (`OwnDraws`). Other loaders than a ``DataLoader`` must draw shuffling and sampling from a ``generator``
    attribute, or from nothing but ``set_epoch`` (as ``DistributedSampler`` does). Loaders with their own
    ``state_dict`` and ``load_state_dict`` are left to Lightning, which saves and restores them.

    Not covered: ``training_step(dataloader_iter)``; an exception in the middle of the weight
    optimiser's step or, while gradients are accumulated, in the middle of ``backward`` (a warning
    says so). Exact only up to rounding are, with several ranks, a checkpoint in the
    middle of an accumulation and, with three and more, any: DDP lays its buckets out anew, and
    with them the order of sums. `StochasticWeightAveraging` and `ReduceLROnPlateau` keep too little for it (a warning
    says so).

    A callback that changes the module itself, as `ArchitectureAlternation` does, asks for the trainer's `companion`
    and gives it, batch by batch, what has to be put back (`protect`).

    Raises:
        MisconfigurationException: When a training is resumed with settings that are refused.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[ExactResume()], logger=False)
    """

    def __init__(self) -> None:
        super().__init__()
        self._trainer: Trainer | None = None
        self._loaded: dict[str, Any] | None = None
        self._final: dict[str, Any] | None = None
        self._running = False
        self._interrupted = False
        self._alone = False  # interrupted by what need not have come to the other ranks
        self._weights_touched = False
        self._unused = False
        self._validating = False
        self._keep_undo = False
        self._generators = LoaderGenerators()
        self._first: list[Tensor] | None = None  # their states before the loaders were ever iterated
        self._random: dict[str, Any] = {}
        self._told: list[str] = []
        self._settings: list[dict[str, Any]] = []
        self._undo: dict[str, Tensor] | None = None
        self._quiet = ExitStack()

    @classmethod
    def companion(cls, trainer: Trainer, of: Callback, stage: str) -> Self:
        """Returns the trainer's exact resume, which stands before a callback of its list from now on.

        A trainer without one is given one. To be called in `of.setup`.

        Args:
            trainer: The trainer that sets its callbacks up.
            of: The callback that needs it.
            stage: That of `of.setup`.
        """
        callbacks: list[Callback] = list(trainer.callbacks)  # type: ignore[attr-defined]
        found = next((callback for callback in callbacks if isinstance(callback, cls)), None)
        place = callbacks.index(of)
        if found is not None and callbacks.index(found) < place:
            return found
        if found is None:
            found = cls()
            found.setup(trainer, trainer.lightning_module, stage)
        else:
            callbacks.remove(found)
        callbacks.insert(place, found)
        trainer.callbacks = callbacks  # type: ignore[attr-defined]  # a new list: Lightning is iterating the old one
        return found

    @property
    def protects(self) -> bool:
        """Whether what `protect` is given may be needed: something writes checkpoints on exceptions or signals."""
        return self._keep_undo

    @property
    def undoes(self) -> bool:
        """Whether a checkpoint that is written now goes back to the moment before the batch at hand."""
        return self._in_batch() and self._undo is not None

    def protect(self, values: Mapping[str, Tensor]) -> None:
        """Keeps copies of what the batch at hand may change before its weight step.

        Args:
            values: Entries of the module's ``state_dict``, as they are before the batch.
        """
        if self._undo is not None:
            self._undo.update({name: value.detach().clone() for name, value in values.items()})

    @contextmanager
    def generators_kept(self) -> Iterator[None]:
        """Lets a loader be iterated without effect on the rest of the epoch."""
        states = self._generators.states()
        try:
            yield
        finally:
            self._generators.set_states(states)

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._trainer = trainer
        self._running = self._interrupted = self._alone = self._weights_touched = self._validating = False
        self._generators, self._final, self._first = LoaderGenerators(), None, None
        if stage == "fit":
            private.before_first_iteration(trainer, lambda: self._loaders_made(trainer))
        self._keep_undo = any(
            isinstance(callback, OnExceptionCheckpoint) or getattr(callback, "save_on_exception", False)
            for callback in trainer.callbacks  # type: ignore[attr-defined]
        ) or private.requeues(trainer)
        if stage == "fit":
            _warn_of_late_checkpoints(trainer)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        require_resumable(trainer)
        private.restore_float64(trainer)
        self._settings = all_optimizer_settings(trainer)
        if self._loaded is None or "length" not in self._loaded:
            return
        self._restore_buffers(trainer, self._loaded.get("buffers", []))
        load_train_data(trainer)
        longer = check_run_length(self._loaded["length"], run_length(trainer), self._loaded["batches"])
        check_settings(self._loaded["settings"], self._settings, "the weights", longer)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._generators.adopt(trainer)  # alike on all ranks: so is the order that they divide among them
        draw_apart(trainer)
        state, self._loaded = self._loaded, None
        if state is not None:
            private.leave_finished_epoch(trainer)
            private.restore_loaders(trainer)
            self._generators.set_states(state["generators"])
            self._position(trainer, state["batches"])
            for name, parameter in pl_module.named_parameters():
                if name in state["gradients"]:
                    parameter.grad = state["gradients"][name].to(parameter)
            self._restore_random(trainer, state["random"])
        else:
            if self._first is not None:  # Lightning has iterated them, how far depends on the workers
                self._generators.set_states(self._first)
            self._position(trainer, 0)
        self._first = None
        self._random = random_state(trainer)
        self._running = True

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._generators.adopt(trainer)  # the loaders may be new ones
        if private.iterates_anew(trainer):
            self._generators.set_states(self._generators.epoch_start if self._unused else self._generators.next_epoch())
            self._generators.begin_epoch()
        self._random = random_state(trainer)

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._quiet.close()
        self._unused = False
        set_accumulation(trainer)
        if self._keep_undo:
            buffers = pl_module.named_buffers(remove_duplicate=False)  # a checkpoint has them under every name
            self._undo = {name: buffer.clone() for name, buffer in buffers}

    @override
    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if private.batch_index(trainer) % trainer.accumulate_grad_batches != 0:
            self._weights_touched = True

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._weights_touched = True

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._undo = None
        self._weights_touched = False
        self._random = random_state(trainer)

    @override
    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating = True

    @override
    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validating = False

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._running and not trainer.sanity_checking:
            set_random_state(self._random)

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._quiet.close()
        if self._validating:
            for averaging in (c for c in trainer.callbacks if isinstance(c, WeightAveraging)):  # type: ignore[attr-defined]
                averaging.on_validation_epoch_end(trainer, pl_module)  # the module still has the averages
        self._interrupted = True
        self._alone = not isinstance(exception, SIGTERMException)  # which is raised on all ranks

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._quiet.close()
        private.no_more_before_first_iteration(trainer)
        if self._running and self._trainer is not None:
            self._final = self._state(self._trainer)  # for a checkpoint written after training
        self._trainer = self._undo = self._loaded = None  # validation may have loaded a state
        self._running = False

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._keep_plain_values(trainer, checkpoint)
        if self.undoes:
            assert self._undo is not None
            # Weight averaging puts the averages, which the batch has not reached yet, into the place of the weights.
            weights = checkpoint.get("current_model_state", checkpoint["state_dict"])
            weights.update({k: v for k, v in self._undo.items() if k in weights})

    def _keep_plain_values(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Leaves out hyperparameters with which the checkpoint would not load again."""
        for owner in (trainer.lightning_module, getattr(trainer, "datamodule", None)):
            key = getattr(owner, "CHECKPOINT_HYPER_PARAMS_KEY", None)
            if owner is None or key not in checkpoint:
                continue
            checkpoint.pop(owner.CHECKPOINT_HYPER_PARAMS_TYPE, None)  # they are a dict from now on
            checkpoint[key], left_out = plain_values(checkpoint[key])
            if key not in self._told:
                warn_of_left_out(left_out, type(owner).__name__)
                self._told.append(key)

    @override
    def state_dict(self) -> dict[str, Any]:
        if self._trainer is None or not self._running:
            return self._final or self._loaded or {}
        if self._in_batch() and self._weights_touched:
            rank_zero_warn(
                "The run was stopped in the middle of a weight update: it can be resumed from this"
                " checkpoint, but will not end bit-identical to an unbroken run. Checkpoints of"
                " `ModelCheckpoint(every_n_train_steps=...)` are exact."
            )
        return self._state(self._trainer)

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self._trainer is not None and not self._running:  # else a finder has put back what it began with
            refuse_finders(self._trainer)
        self._loaded = state_dict or None

    def _state(self, trainer: Trainer) -> dict[str, Any]:
        begun, done = private.begun_and_done(trainer)
        last = trainer.is_last_batch or done >= trainer.num_training_batches
        epoch_over = begun == done and last
        accumulating = done % trainer.accumulate_grad_batches != 0 and not epoch_over
        return {
            "batches": 0 if epoch_over else done,
            "generators": self._generators.next_epoch() if epoch_over else self._generators.epoch_start,
            "random": self._of_all_ranks(trainer, self._random if self._stopped_in_batch() else random_state(trainer)),
            "buffers": self._of_all_ranks(trainer, _buffers(trainer)),
            "gradients": self._mean_gradients(trainer) if accumulating else {},
            "settings": self._settings,
            "length": run_length(trainer),
        }

    def _in_batch(self) -> bool:
        """Whether a batch was begun and its weight step is not over: after an exception, or in a signal's handler."""
        if self._trainer is None:
            return False
        begun, done = private.begun_and_done(self._trainer)
        return begun > done

    def _loaders_made(self, trainer: Trainer) -> None:
        self._generators.adopt(trainer)
        self._first = self._generators.states()

    def _position(self, trainer: Trainer, batches: int) -> None:
        """Starts the epoch's iterators anew from the generators and skips ``batches``."""
        self._generators.begin_epoch()
        self._unused = True  # the iterators made below have not given a batch yet
        loaders = private.train_loaders(trainer)
        if not private.has_iterators(trainer) or any(_has_own_state(loader) for loader in loaders):
            return
        for loader in loaders:
            for holder in holders_of(loader):
                if callable(set_epoch := getattr(holder, "set_epoch", None)):
                    set_epoch(private.epochs_begun(trainer))
                if isinstance(holder, EpochSampler | ShardSampler | ViewSampler):
                    holder.passes = 0
        private.iterate_and_skip(trainer, batches, self._quiet)

    def _stopped_in_batch(self) -> bool:
        return self._interrupted or self._in_batch()

    def _of_all_ranks(self, trainer: Trainer, own: dict[str, Any]) -> list[dict[str, Any]]:
        if trainer.world_size == 1 or self._alone or self._in_batch():  # the other ranks may be gone, or elsewhere
            return [own]
        states: list[Any] = [None] * trainer.world_size
        torch.distributed.all_gather_object(states, own)
        return states

    def _restore_random(self, trainer: Trainer, states: list[dict[str, Any]]) -> None:
        if len(states) != trainer.world_size:
            rank_zero_warn(
                f"The checkpoint holds the random state of {len(states)} rank(s) and this run has"
                f" {trainer.world_size}: it will not end bit-identical to the unbroken run."
            )
        set_random_state(states[trainer.global_rank % len(states)])
        reseed(trainer.global_rank - trainer.global_rank % len(states))  # no two ranks draw the same

    def _restore_buffers(self, trainer: Trainer, states: list[dict[str, Tensor]]) -> None:
        """Gives this rank its own batch-norm statistics; the checkpoint's weights hold those of rank 0."""
        if len(states) == trainer.world_size and trainer.global_rank > 0:
            buffers = dict(trainer.lightning_module.named_buffers())
            for name, value in states[trainer.global_rank].items():
                buffers[name].copy_(value)

    def _mean_gradients(self, trainer: Trainer) -> dict[str, Tensor]:
        gradients = {
            name: parameter.grad.detach().clone()
            for name, parameter in trainer.lightning_module.named_parameters()
            if parameter.grad is not None
        }
        if trainer.world_size > 1 and not self._alone and not self._in_batch():
            for gradient in gradients.values():
                trainer.strategy.reduce(gradient, reduce_op="mean")
        return gradients


def _warn_of_late_checkpoints(trainer: Trainer) -> None:
    found: list[Any] = [c for c in trainer.callbacks if isinstance(c, ModelCheckpoint)]  # type: ignore[attr-defined]
    late = [c for c in found if type(c) is ModelCheckpoint and c.save_last and c.save_top_k == 0]
    if late and len(late) == len(found):
        rank_zero_warn(
            "ModelCheckpoint(save_last=True, save_top_k=0) writes at the end and on exceptions only: a run that is"
            " killed leaves no checkpoint. Use LastCheckpoint, or leave save_top_k at 1."
        )


def _buffers(trainer: Trainer) -> dict[str, Tensor]:
    """Buffers that the ranks need not have in common; rank 0's are in the checkpoint anyway."""
    if trainer.global_rank == 0:
        return {}
    module = trainer.lightning_module
    saved = module.state_dict().keys()
    return {name: buffer.detach().cpu().clone() for name, buffer in module.named_buffers() if name in saved}


def _has_own_state(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
