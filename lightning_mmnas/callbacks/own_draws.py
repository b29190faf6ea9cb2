"""What draws from the global random generators while data are read, made to draw from a generator of its own."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, IterableDataset, Sampler, SequentialSampler

from lightning_mmnas.callbacks import lightning_private as private
from lightning_mmnas.callbacks.random_state import set_random_state, state_on_cpu


class OwnDraws:
    """Something that is iterated, whose every pass follows from the state of one generator and from a number.

    Python's, NumPy's and torch's global generators are seeded from it while items are made, and are put back for
    whatever else draws from them. A pass can thus be repeated, and does not depend on what steps draw in between.

    Args:
        wrapped: Draws from the global generators.
        number: Makes passes differ where the generators are alike.
    """

    def __init__(self, wrapped: Any, number: int = 0) -> None:
        self.generator: torch.Generator | None = None
        self.wrapped = wrapped
        self.number = number

    def __iter__(self) -> Iterator[Any]:
        seed = int(torch.empty((), dtype=torch.int64).random_(2**31, generator=self.generator)) + self.number
        inside = {"seed": seed}
        with _inside(inside):
            items = iter(self.wrapped)
        while True:
            with _inside(inside):
                item = next(items, items)
            if item is items:
                return
            yield item

    def __len__(self) -> int:
        return len(self.wrapped)

    def __getattr__(self, name: str) -> Any:
        if name == "wrapped":  # of a copy that is being made
            raise AttributeError(name)
        return getattr(self.wrapped, name)


class OwnDrawsOfSampler(OwnDraws, Sampler[Any]):
    """A sampler, or batch sampler, that is alike on ranks whose generators are."""


class OwnDrawsOfDataset(OwnDraws, IterableDataset[Any]):
    """A data set without an order that is known."""


def isolate(loader: Any, rank: int) -> None:
    """Has what orders a loader's samples draw for itself, if it is not known to draw from a generator it holds.

    Data sets without an order of their own draw their samples, and what is done to them, apart on every rank.
    """
    if not isinstance(loader, DataLoader) or hasattr(loader, "state_dict"):
        return
    if isinstance(loader.dataset, IterableDataset):
        if loader.num_workers == 0 and not isinstance(loader.dataset, OwnDraws):  # workers have their own generators
            vars(loader)["dataset"] = OwnDrawsOfDataset(loader.dataset, rank)
        return
    name = "sampler" if loader.batch_sampler is None else "batch_sampler"
    outer = getattr(loader, name)
    if _is_known(outer) and (not isinstance(outer, BatchSampler) or _is_known(private.own_sampler(outer.sampler))):
        return
    vars(loader)[name] = OwnDrawsOfSampler(outer)  # which the loader itself does not let be set


def _is_known(sampler: Any) -> bool:
    """Whether a sampler has a generator, follows the epoch, draws nothing or keeps a state of its own."""
    if type(sampler) in (BatchSampler, SequentialSampler):
        return True
    own = ("generator", "set_epoch", "state_dict")
    return isinstance(sampler, DistributedSampler) or any(hasattr(sampler, name) for name in own)


@contextmanager
def _inside(state: dict[str, Any]) -> Iterator[None]:
    """Exchanges the global random state for another one, which may be a seed, and notes what that has become."""
    outside = state_on_cpu()
    if "seed" in state:
        seed = state.pop("seed")
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
    else:
        set_random_state(state)
    try:
        yield
    finally:
        state.update(state_on_cpu())
        set_random_state(outside)
