"""The architecture logits themselves: switched on for a step, in float32, equal on every rank; what trains them."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from lightning_mmnas.callbacks.contract import require


def check_ranks(trainer: Trainer, logits: Sequence[nn.Parameter], steps: int) -> None:
    """Raises unless the logits are the same on every rank.

    Raises:
        RuntimeError: They are not.
    """
    if trainer.world_size == 1:
        return
    flat = torch.cat([logit.detach().reshape(-1).double() for logit in logits])
    everywhere = trainer.strategy.all_gather(flat)
    differing = [r for r, other in enumerate(everywhere) if not torch.equal(other, flat)]
    if any(not torch.equal(other, everywhere[0]) for other in everywhere):  # on every rank
        raise RuntimeError(
            f"The architecture logits of rank {trainer.global_rank} differ from those of"
            f" ranks {differing} after {steps} architecture steps. Something changed"
            " them on one rank only: they may only be changed by ArchitectureAlternation."
        )


@contextmanager
def requires_grad(parameters: Sequence[nn.Parameter], value: bool) -> Iterator[None]:
    """Sets ``requires_grad`` of parameters that all have the other value, and sets it back."""
    for parameter in parameters:
        parameter.requires_grad_(value)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(not value)


def in_float32(logit: nn.Parameter) -> nn.Parameter:
    """The logit itself, or a copy in float32 of one with fewer bits, in which small steps would vanish."""
    if torch.finfo(logit.dtype).bits >= 32:
        return logit
    return nn.Parameter(logit.detach().float(), requires_grad=False)


def made_by(
    make_optimizer: Callable[[Iterable[Tensor]], Any],
    make_scheduler: Callable[[Optimizer], Any] | None,
    logits: Sequence[nn.Parameter],
) -> tuple[Optimizer, LRScheduler | None]:
    """The optimiser of the logits, and the schedule of its learning rate if there is one.

    Raises:
        MisconfigurationException: What was made is no optimiser or no schedule, or is one that asks an architecture
            step for what it has not: a loss to be computed again, as LBFGS does, or a metric.
    """
    optimizer = make_optimizer(logits)
    name = type(optimizer).__name__
    require(
        isinstance(optimizer, Optimizer),
        f"optimizer of ArchitectureAlternation returned {name}: let it return a torch.optim.Optimizer",
    )
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    require(
        closure is None or closure.default is not inspect.Parameter.empty,
        f"{name} computes the loss again in its step, and an architecture step gives it the gradient once: give the"
        " logits another optimizer, such as torch.optim.Adam",
    )
    scheduler = None if make_scheduler is None else make_scheduler(optimizer)
    require(
        not isinstance(scheduler, ReduceLROnPlateau),
        "ReduceLROnPlateau follows a metric, and an architecture step has none: give the logits another scheduler",
    )
    require(
        make_scheduler is None or isinstance(scheduler, LRScheduler),
        f"scheduler of ArchitectureAlternation returned {type(scheduler).__name__}: let it return a scheduler of"
        " torch.optim.lr_scheduler",
    )
    return optimizer, scheduler
