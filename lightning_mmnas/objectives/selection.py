"""Choosing among a few candidate architectures without labels: train each alone for a while, then score it."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmnas.budget import Budget
from lightning_mmnas.genotype import Genotype
from lightning_mmnas.objectives import nt_xent
from lightning_mmnas.supernet import FusionSupernet

Features = Mapping[str, Tensor]
ViewPair = tuple[Features, Features]
MakeViews = Callable[[float], list[ViewPair]]
"""modality dropout -> features of two views of every held-out batch."""


class Criterion(ABC):
    """A label-free score of a trained network; lower is better.

    `prepare` runs once, `score` once per candidate, so that all candidates are scored on the same views.

    Attributes:
        comparative: The number of a candidate depends on the other candidates (`combine` compares them), so that
            networks cannot be scored one at a time, as `mmnas sample` and `mmnas tabulate` do.
    """

    comparative = False

    @abstractmethod
    def prepare(self, make_views: MakeViews) -> Any:
        """Makes what the candidates are scored on, from held-out samples."""

    @abstractmethod
    def score(self, project: Callable[[Features], Tensor], prepared: Any) -> Any:
        """Scores one network: a number, or what `combine` makes numbers of.

        Args:
            project: Features by name -> projections (b, d), without gradients.
            prepared: What `prepare` returned.
        """

    def combine(self, scores: Sequence[Any]) -> list[float]:
        """Makes one number per candidate of the scores of all candidates; here they are numbers already."""
        return [float(score) for score in scores]


class DroppedViewsNTXent(Criterion):
    """NT-Xent between views with modality dropout: is a sample recognised when one modality is missing?

    Args:
        modality_dropout: Probability of modality dropout per sample and view, in [0, 1].
        temperature: Softmax temperature, unitless, > 0.
    """

    def __init__(self, modality_dropout: float = 0.5, temperature: float = 0.2) -> None:
        self.modality_dropout = modality_dropout
        self.loss = local_objective(nt_xent(temperature))

    def prepare(self, make_views: MakeViews) -> list[ViewPair]:
        """Two views of every held-out batch, with modality dropout."""
        return make_views(self.modality_dropout)

    def score(self, project: Callable[[Features], Tensor], prepared: Sequence[ViewPair]) -> float:
        """Mean NT-Xent over the batches."""
        losses = [self.loss(project(first).float(), project(second).float()) for first, second in prepared]
        return float(torch.stack(losses).mean())


def candidates(
    supernet: FusionSupernet,
    count: int,
    seed: int,
    coverage: bool = True,
    distinct: bool = True,
    budget: Budget | None = None,
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


def train_together(
    networks: Mapping[str, nn.Module],
    views: Iterable[ViewPair],
    optimizer: Callable[[nn.Module], tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]],
) -> None:
    """Trains several networks side by side, each alone, all on the very same views: views are made once.

    Args:
        networks: Each maps (first view's features, second view's features) to a loss.
        views: Features of two views, one pair per step.
        optimizer: Builds a network's optimiser and schedule.
    """
    built = {name: optimizer(network) for name, network in networks.items()}
    for network in networks.values():
        network.train()
    for first, second in views:
        for name, network in networks.items():
            step, schedule = built[name]
            step.zero_grad(set_to_none=True)
            network(first, second).backward()
            step.step()
            schedule.step()


def local_objective(objective: nn.Module) -> nn.Module:
    """A copy of an objective that never talks to other ranks."""
    local = copy.deepcopy(objective)
    for module in local.modules():
        if hasattr(module, "gather_distributed"):
            setattr(module, "gather_distributed", False)  # noqa: B010  (no field of nn.Module)
    return local
