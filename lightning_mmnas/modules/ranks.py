"""Ranks that wait for each other for as long as it takes, and that draw random numbers of their own.

A collective of a strategy fails after the strategy's ``timeout``, and with it the whole run. What is shared out here
may take longer: the scores of a few candidates, the features of a data set. A rank that dies still ends the wait of
the others, whose connections to it close.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TypeVar, cast
from weakref import WeakSet

import numpy as np
import torch
import torch.distributed as dist
from lightning import Trainer

T = TypeVar("T")

_AS_LONG_AS_IT_TAKES = timedelta(days=365)

_drawing_apart: WeakSet[Trainer] = WeakSet()


class WaitingRanks:
    """All ranks; a single one without a process group. Made by `waiting_ranks`."""

    def __init__(self, group: "dist.ProcessGroup | None") -> None:
        self._group = group
        self.rank = 0 if group is None else dist.get_rank()
        self.count = 1 if group is None else dist.get_world_size()

    def gather(self, value: T) -> list[T]:
        """What all ranks give, in their order; each value can be pickled."""
        if self._group is None:
            return [value]
        found: list[T | None] = [None] * self.count
        dist.all_gather_object(found, value, group=self._group)
        return cast(list[T], found)

    def first(self, make: Callable[[], T]) -> T:
        """What rank 0 makes, for every rank."""
        return cast(T, self.gather(make() if self.rank == 0 else None)[0])

    def barrier(self, name: str = "") -> None:
        """Returns when all ranks have called it."""
        self.gather(name)


@contextmanager
def waiting_ranks() -> Iterator[WaitingRanks]:
    """All ranks, to be entered by each of them at about the same time, before the work that takes long."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        yield WaitingRanks(None)
        return
    # gloo, whatever the strategy's backend: no accelerator spins while it waits, and nothing watches over the time.
    group = dist.new_group(backend="gloo", timeout=_AS_LONG_AS_IT_TAKES)
    try:
        ranks = WaitingRanks(cast(dist.ProcessGroup, group))
        ranks.barrier()  # connects them
        yield ranks
    finally:
        dist.destroy_process_group(group)


def draw_apart(trainer: Trainer) -> None:
    """Lets every rank draw views and dropout of its own from now on; called again for a trainer, it does nothing.

    One seed gives all ranks the same random state, with which the views of all their samples would be alike. Rank 0
    goes on as one process would.
    """
    if trainer not in _drawing_apart:
        _drawing_apart.add(trainer)
        reseed(trainer.global_rank)


def reseed(rank: int) -> None:
    """Seeds Python, NumPy and torch from their present state and a rank's number; 0 leaves them as they are."""
    if rank:
        seed = (int(torch.empty((), dtype=torch.int64).random_()) + 1_000_003 * rank) % 2**63
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)


def part() -> None:
    """Ends what the ranks have in common, to be called by each: from here on, a process does not wait for others."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
