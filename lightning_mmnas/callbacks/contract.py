"""What the alternation asks of a module, its optimiser and its batches, with the ways out."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

from lightly.models.modules.memory_bank import MemoryBankModule
from lightning.fabric.utilities import rank_zero_warn
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    LearningRateFinder,
    LearningRateMonitor,
    StochasticWeightAveraging,
)
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from torch import Tensor, nn

from lightning_mmnas.callbacks import lightning_private as private
from lightning_mmnas.fusion.relaxation import Relaxation
from lightning_mmnas.modules import length
from lightning_mmnas.objectives.losses import GatheredNTXent


def require(condition: bool, message: str) -> None:
    """Raises the message unless the condition holds."""
    if not condition:
        raise MisconfigurationException(f"{message}.")


def require_numbers(whole: bool = False, **values: Any) -> None:
    """Refuses values that are no numbers, or no whole ones."""
    for name, value in values.items():
        wanted = "a whole number" if whole else "a number"
        require(isinstance(value, Integral if whole else Real), f"{name} must be {wanted}, got {value!r}")


def require_betas(betas: Any) -> None:
    """Refuses what are not the two decay rates of Adam."""
    two = isinstance(betas, tuple | list) and len(betas) == 2 and all(isinstance(beta, Real) for beta in betas)
    require(two, f"betas must be two numbers, got {betas!r}")
    require(all(0 <= beta < 1 for beta in betas), f"betas={betas} not in [0, 1)")


_UNFIT: dict[type[Callback], str] = {
    StochasticWeightAveraging: "averages the architecture logits too, and its epoch for batch norm would train them",
    LearningRateFinder: "trains on its own before the training, which would train the architecture logits too",
    BatchSizeFinder: "trains on its own before the training, which would train the architecture logits too",
}


def require_workable(trainer: Trainer, pl_module: LightningModule, order: int, kind: type[Callback]) -> None:
    """Refuses a module, a strategy, a precision or callbacks that the alternation, a callback, cannot work with."""
    for name in ("architecture_parameters", "architecture_step"):
        require(
            callable(getattr(pl_module, name, None)),
            f"{type(pl_module).__name__} has no method {name}(): add it,"
            " or remove ArchitectureAlternation from the callbacks",
        )
    require(
        pl_module.automatic_optimization,
        "ArchitectureAlternation needs automatic optimisation: leave"
        " automatic_optimization=True and let training_step return the loss of the weights,"
        " or step the logits yourself and remove the callback",
    )
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    require(
        sum(isinstance(callback, kind) for callback in callbacks) == 1,
        f"there are several {kind.__name__} in the callbacks, which would train the same logits: keep one of them"
        " (callbacks+: appends to those of earlier files)",
    )
    for callback in callbacks:
        for other, why in _UNFIT.items():
            require(
                not isinstance(callback, other),
                f"{other.__name__} {why}: remove it from the callbacks of the search, and do without the Tuner",
            )
    sharded = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)
    require(
        not isinstance(trainer.strategy, sharded),
        f"{type(trainer.strategy).__name__} shards the parameters, and ArchitectureAlternation"
        " needs them whole: use strategy='ddp', or search on one device",
    )
    require(
        order == 1 or getattr(trainer.precision_plugin, "scaler", None) is None,
        "order=2 is not offered with a GradScaler: use precision='bf16-mixed' or '32-true', or order=1",
    )
    for part in pl_module.modules():
        require(
            not (isinstance(part, Relaxation) and part.one_hot and private.waits_for_all_gradients(trainer)),
            f"{type(part).__name__} samples primitives, and a step has no gradient for the others, which DDP would wait"
            " for: use strategy='ddp_find_unused_parameters_true'",
        )
    if order == 2 and trainer.world_size > 1:
        check_gathers(pl_module)


def require_search(warmup_epochs: int, max_epochs: int | None, trial: bool = False) -> None:
    """Refuses a search that would be over before its warm-up is; a trial has none."""
    limited = max_epochs is not None and max_epochs >= 0 and not trial
    require(
        not limited or warmup_epochs < (max_epochs or 0),
        f"warmup_epochs={warmup_epochs} of ArchitectureAlternation leaves no epoch of max_epochs={max_epochs} for the"
        " search itself: raise trainer.max_epochs, or lower warmup_epochs",
    )


def look_ahead(trainer: Trainer, warmup_epochs: int, every_n_steps: int, planned: int | None = None) -> None:
    """Refuses a training that will be over before its first architecture step; warns where ``max_steps`` ends it.

    Args:
        trainer: At the start of training.
        warmup_epochs: Epochs without architecture steps.
        every_n_steps: Weight steps from one architecture step to the next.
        planned: Architecture steps that the schedule of the logits' learning rate is laid out for, which refuses more.
    """
    steps, warm = length.weight_steps(trainer), length.steps_of_epochs(trainer, warmup_epochs)
    first = None if warm is None else -(-warm // every_n_steps) * every_n_steps
    if planned is not None and steps and first is not None:
        made = len(range(first, steps, every_n_steps))
        require(
            made <= planned,
            f"the logits' schedule is laid out for total_steps={planned}, and the search makes {made} architecture"
            f" steps: set its total_steps to {made}",
        )
    if not steps or first is None or first < steps or length.is_trial(trainer):
        return
    found = f"The training has {steps} weight steps, and the first architecture step would come after {first}"
    if steps == trainer.max_steps:
        rank_zero_warn(f"{found}: nothing will be searched; raise trainer.max_steps, or lower warmup_epochs.")
        return
    require(False, f"{found}: lower every_n_steps={every_n_steps}, or train longer")


def checked_logits(trainer: Trainer, pl_module: LightningModule) -> list[nn.Parameter]:
    """Returns the module's architecture logits, which only the callback may change: no average of weights either."""
    logits: list[nn.Parameter] = list(pl_module.architecture_parameters())  # type: ignore[operator]
    name = f"{type(pl_module).__name__}.architecture_parameters()"
    require(
        len(logits) > 0,
        f"{name} returned no logits, so there is nothing to search: return them,"
        " or remove ArchitectureAlternation from the callbacks",
    )
    ours = {id(logit) for logit in logits}
    require(len(ours) == len(logits), f"{name} returned the same tensor twice: return it once")
    require(
        ours <= {id(parameter) for parameter in pl_module.parameters()},
        f"{name} returned tensors that are no parameters of the module, and would be missing from"
        " checkpoints: make them nn.Parameter(..., requires_grad=False) attributes",
    )
    require(
        not any(logit.requires_grad for logit in logits),
        f"{name} returned logits with requires_grad=True, which the weight step would"
        " differentiate too: create them as nn.Parameter(..., requires_grad=False);"
        " ArchitectureAlternation switches them on for its own steps",
    )
    optimised = {id(p) for o in trainer.optimizers for group in o.param_groups for p in group["params"]}
    require(
        not ours & optimised,
        f"{name} returned logits that are in the weight optimiser too: in configure_optimizers pass"
        " [p for p in self.parameters() if p.requires_grad] instead of self.parameters(),"
        " or remove ArchitectureAlternation from the callbacks",
    )
    private.leave_out_of_averages(trainer, logits)
    return logits


def check_gathers(pl_module: LightningModule) -> None:
    """Refuses losses that gather over ranks by what has no second derivative, which lightly's own have not."""
    for name, part in pl_module.named_modules():
        gathers = getattr(part, "gather_distributed", False) and not isinstance(part, MemoryBankModule)
        require(
            not gathers or isinstance(part, GatheredNTXent),
            f"order=2 would be wrong on several ranks: {name} ({type(part).__name__}) gathers over ranks by an"
            " operation that has no second derivative; use order=1, gather_distributed=False, or"
            " lightning_mmnas.objectives.losses.nt_xent, which has one",
        )


def part(batch: Any, name: str) -> Any:
    """``batch[name]``, or an error that tells how to make such batches."""
    part = batch.get(name) if isinstance(batch, Mapping) else None
    if part is None and isinstance(batch, Mapping) and name in batch:
        raise MisconfigurationException(
            f"The {name!r} part of the data has fewer batches than the other, and none for this step: let "
            'train_dataloader() return CombinedLoader({"weights": ..., "architecture": ...}, "max_size_cycle"), which'
            ' begins it again, or "min_size", which ends with it.'
        )
    if part is None:
        given = f"keys {sorted(map(str, batch))}" if isinstance(batch, Mapping) else type(batch)
        raise MisconfigurationException(
            f"The train batch has no {name!r} part ({given}): let train_dataloader() return"
            ' CombinedLoader({"weights": ..., "architecture": ...}, "max_size_cycle"), in'
            " our data modules by architecture_fraction, or remove ArchitectureAlternation from the"
            " callbacks."
        )
    return part


def architecture_loader(trainer: Trainer) -> Any:
    """Returns the train loader of the architecture part."""
    loaders: Any = trainer.train_dataloader
    require(
        isinstance(loaders, Mapping) and "architecture" in loaders,
        "schedule='epoch' needs a train loader with an 'architecture' part of its own: let"
        ' train_dataloader() return CombinedLoader({"weights": ..., "architecture": ...},'
        " \"max_size_cycle\"), or use schedule='step'",
    )
    return loaders["architecture"]


def architecture_loss(pl_module: LightningModule, part: Any) -> Tensor:
    """Returns the module's loss on a batch of the architecture part."""
    loss: Tensor = pl_module.architecture_step(part)  # type: ignore[operator]
    require(
        isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad,
        f"{type(pl_module).__name__}.architecture_step() did not return a scalar loss that depends"
        " on the architecture logits: return the loss tensor, not detached",
    )
    return loss


@contextmanager
def left_out(trainer: Trainer) -> Iterator[None]:
    """Leaves out what a batch without a weight loss would have given, as Lightning leaves out the batch."""
    try:
        yield
    except NoLossError:
        require(
            trainer.world_size == 1,
            "training_step returned None, and with several processes every batch needs a loss: return one",
        )


class NoLossError(Exception):
    """``training_step`` has returned None: Lightning leaves such a batch out."""


def weight_loss(pl_module: LightningModule, batch: Any, batch_idx: int) -> Tensor:
    """The training loss, without the logging of ``training_step``.

    Raises:
        NoLossError: There is none for this batch.
    """
    if callable(getattr(pl_module, "weight_step_loss", None)):
        module: Any = pl_module
        loss: Tensor = module.weight_step_loss(part(batch, "weights"))
        return loss
    takes_index = is_param_in_hook_signature(pl_module.training_step, "batch_idx", min_args=2)
    for name in ("log", "log_dict"):
        setattr(pl_module, name, lambda *args, **kwargs: None)
    try:
        output: Any = pl_module.training_step(batch, *([batch_idx] if takes_index else []))
    finally:
        for name in ("log", "log_dict"):
            delattr(pl_module, name)
    if output is None:
        raise NoLossError
    loss = output["loss"] if isinstance(output, Mapping) else output
    require(
        isinstance(loss, Tensor),
        f"order=2 needs a loss from {type(pl_module).__name__}.training_step(), which returned"
        f" {type(output).__name__}: return the loss, or add weight_step_loss(batch)",
    )
    return loss


def warn_nothing_searched(trainer: Trainer, warmup_epochs: int) -> None:
    """Says that a training has ended before its first architecture step."""
    rank_zero_warn(
        f"The training ended after {trainer.global_step} weight steps without one architecture step, so that"
        f" nothing was searched: train longer, or lower warmup_epochs={warmup_epochs}."
    )


def log_beside_monitor(trainer: Trainer, pl_module: LightningModule, rate: float) -> None:
    """Logs the logits' learning rate in steps, where `LearningRateMonitor` logs that of the weights."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    monitored = any(isinstance(c, LearningRateMonitor) and c.logging_interval != "epoch" for c in callbacks)
    if monitored and trainer.loggers and trainer.is_global_zero:
        pl_module.log("arch/lr", rate, on_step=True, on_epoch=False, rank_zero_only=True)


def log_architecture(trainer: Trainer, pl_module: LightningModule, rate: float) -> None:
    """Logs the logits' learning rate and, if the module has ``architecture_weights() -> dict[str, float]``, these.

    They are equal on every rank, so that the first one logs them and none waits.
    """
    if trainer.loggers and trainer.is_global_zero:
        weights: dict[str, float] = getattr(pl_module, "architecture_weights", dict)()
        pl_module.log_dict({"arch/lr": rate, **weights}, rank_zero_only=True, sync_dist=True)
