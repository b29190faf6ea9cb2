"""Which architectures of a search are looked at more closely: the favoured one, and others drawn from the logits."""

import torch

from lightning_mmnas.fusion.decoding import Limit
from lightning_mmnas.fusion.supernet import FusionSupernet
from lightning_mmnas.space.genotype import Genotype


def candidates(
    supernet: FusionSupernet,
    count: int,
    seed: int,
    coverage: bool = True,
    distinct: bool = True,
    budget: Limit | None = None,
) -> list[Genotype]:
    """The favoured architecture and others drawn in proportion to the mixture weights, all different.

    Args:
        supernet: Its logits decide.
        count: Number of candidates wanted, >= 1; small spaces may hold fewer.
        seed: Seed of the draws.
        coverage: See `FusionSupernet.decode`.
        distinct: See `FusionSupernet.decode`.
        budget: No candidate costs more.

    Raises:
        CostError: No architecture keeps to the budget.
    """
    found = {supernet.decode(coverage=coverage, distinct=distinct, budget=budget): None}  # an ordered set
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20 * count):
        if len(found) >= count:
            break
        found.setdefault(supernet.sample(generator, coverage, distinct, budget))
    return list(found)
