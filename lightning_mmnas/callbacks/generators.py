"""The random generators of loaders and samplers."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_warn
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_mmnas.callbacks import lightning_private as private
from lightning_mmnas.callbacks.own_draws import OwnDraws, isolate
from lightning_mmnas.data.samples import EpochSampler


class LoaderGenerators:
    """The generators of a trainer's train loaders and their samplers, and their states at the start of the epoch."""

    def __init__(self) -> None:
        self.epoch_start: list[Tensor] = []
        self._own: list[torch.Generator] = []
        self._all: list[torch.Generator] = []
        self._of_epoch: list[torch.Generator] = []  # whose states `epoch_start` are

    def adopt(self, trainer: Trainer) -> None:
        """Lists every loader's generators, and gives one to those that would use the global one.

        No two loaders share one, and what seeds workers is not what orders samples: how often and when these are drawn
        from depends on the number of workers.
        """
        self._all = []
        for index, loader in enumerate(private.train_loaders(trainer)):
            isolate(loader, trainer.global_rank)
            if trainer.world_size > 1:
                private.seed_workers_apart(loader, trainer.global_rank)
                if isinstance(getattr(loader, "sampler", None), EpochSampler):  # which Lightning replaces otherwise
                    rank_zero_warn(
                        "use_distributed_sampler=False leaves the samples undivided: every rank trains on all of them,"
                        " in the same order; leave it at True."
                    )
            holders = [holder for holder in holders_of(loader) if hasattr(holder, "generator")]
            for holder in holders:
                if holder.generator is None:
                    holder.generator = self._own_of(index, trainer)
                elif any(holder.generator is other for other in self._all):
                    holder.generator = derived(holder.generator, 1000 + index)
            if any(
                holder is not loader and holder.generator is getattr(loader, "generator", None) for holder in holders
            ):
                loader.generator = derived(loader.generator, 1)
            for holder in holders:
                if all(holder.generator is not other for other in self._all):
                    self._all.append(holder.generator)

        # Lightning may iterate the validation loaders once between here and the first batch.
        for loader in private.validation_loaders(trainer):
            if getattr(loader, "generator", self) is None:
                loader.generator = torch.Generator()

    def states(self) -> list[Tensor]:
        """The states as they are."""
        return [generator.get_state() for generator in self._all]

    def set_states(self, states: Sequence[Tensor]) -> None:
        """Sets the states.

        Raises:
            MisconfigurationException: They are of other loaders.
        """
        if len(states) != len(self._all):
            raise MisconfigurationException(
                f"The checkpoint holds the random state of {len(states)} train loaders and"
                f" samplers, and this run has {len(self._all)}: resume with the loaders of"
                " the first run, or give its weights to a new run without ckpt_path."
            )
        for generator, state in zip(self._all, states, strict=True):
            generator.set_state(state)

    def begin_epoch(self) -> None:
        """Notes the states."""
        self._of_epoch = list(self._all)
        self.epoch_start = self.states()

    def next_epoch(self) -> list[Tensor]:
        """States for the next epoch that depend on those of this one's start alone.

        What an epoch has drawn depends on how far loaders read ahead, and so on their workers.
        """
        kept = [*map(id, self._of_epoch)] == [*map(id, self._all)]
        return following(self.epoch_start) if kept else self.states()  # else the loaders are new ones

    def _own_of(self, index: int, trainer: Trainer) -> torch.Generator:
        """The generator of loader ``index``, seeded from the global one (of rank 0) without advancing it."""
        while len(self._own) <= index:
            with torch.random.fork_rng(devices=[]):
                seed = int(torch.empty((), dtype=torch.int64).random_()) + len(self._own)
            if trainer.world_size > 1:
                seed = trainer.strategy.broadcast(seed)
            self._own.append(torch.Generator().manual_seed(seed))
        return self._own[index]


def holders_of(loader: Any) -> Iterator[Any]:
    """The objects of a loader that may hold a random generator or follow the epoch."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None))
    found = (loader, batch_sampler, *samplers, *map(private.own_sampler, samplers))
    yield from (x for x in found if x is not None)
    if isinstance(dataset := getattr(loader, "dataset", None), OwnDraws):
        yield dataset


def derived(generator: torch.Generator, number: int) -> torch.Generator:
    """Another generator, which the seed of the given one and a number decide."""
    return torch.Generator().manual_seed((generator.initial_seed() + number) % 2**63)


def following(states: Sequence[Tensor]) -> list[Tensor]:
    """States that those given decide, far from all that generators draw after these."""
    found = []
    for state in states:
        generator = torch.Generator()
        generator.set_state(state)
        seed = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
        found.append(generator.manual_seed(seed).get_state())
    return found
