"""Which architecture of a space a table means by which number, and in which order they are trained."""

from collections.abc import Collection, Iterator
from itertools import islice

import torch

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.space.genotype import FusionSpace, Genotype

LISTED = 100_000
"""Up to so many architectures are numbered by their place in ``space.enumerate()``; those of larger spaces, which
nobody lists, by their place in a sequence of uniform draws without repetition, the same for everyone."""


def numbers(space: FusionSpace, limit: int | None = None) -> list[int]:
    """The numbers of architectures in the order of training, of which any first ones are a uniform sample.

    Args:
        space: The space.
        limit: How many at most; None: all of the space.

    Raises:
        ConfigError: All of a space that is too large to be listed.
    """
    size = space.size()
    if size <= LISTED:
        return torch.randperm(size, generator=torch.Generator().manual_seed(0)).tolist()[:limit]
    if limit is None:
        raise ConfigError(f"the space has {size:,} architectures; say with --limit how many a table is to hold")
    return list(range(min(limit, size)))


def architectures(space: FusionSpace, wanted: Collection[int]) -> dict[int, Genotype]:
    """The architectures of some numbers, by number; what comes after the largest is not looked at."""
    among = space.enumerate() if space.size() <= LISTED else _draws(space)
    kept, last = set(wanted), max(wanted, default=-1)
    return {number: genotype for number, genotype in enumerate(islice(among, last + 1)) if number in kept}


def _draws(space: FusionSpace) -> Iterator[Genotype]:
    """Different architectures, each drawn uniformly from those that are left."""
    generator = torch.Generator().manual_seed(0)
    seen: set[Genotype] = set()
    while len(seen) < space.size():
        genotype = space.sample(generator)
        if genotype not in seen:
            seen.add(genotype)
            yield genotype
