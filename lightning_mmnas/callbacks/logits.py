"""The architecture logits themselves: switched on for a step, in float32, equal on every rank."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning.pytorch import Trainer
from torch import nn


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
