"""The random generators of loaders and samplers."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor


def holders_of(loader: Any) -> Iterator[Any]:
    """The objects of a loader that may hold a random generator or follow the epoch."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), getattr(batch_sampler, "sampler", None))
    yield from (x for x in (loader, batch_sampler, *samplers) if x is not None)


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
