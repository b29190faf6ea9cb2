"""Label-free criteria: how good is a network that was trained for a short while, judged by its projections alone?

Each is a `Criterion` and can be named in a configuration, as ``criterion`` of `GenotypeSelection`. All are oriented so
that lower is better. Losses are lightly's; what they say about accuracy is measured in docs/search-quality.md.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from lightly.loss import BarlowTwinsLoss, VICRegLoss
from torch import Tensor, nn

from lightning_mmnas.objectives.losses import local_objective, nt_xent
from lightning_mmnas.objectives.stored_pairs import derived

Features = Mapping[str, Tensor]
ViewPair = tuple[Features, Features]
Project = Callable[[Features], Tensor]
"""Features by name -> projections (b, d)."""

MakeViews = Callable[[float], Sequence[ViewPair]]
"""modality dropout -> features of two views of every held-out batch; to be gone through one by one (`StoredPairs`)."""


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
    def score(self, project: Project, prepared: Any) -> Any:
        """Scores one network: a number, or what `combine` makes numbers of.

        Args:
            project: Features by name -> projections (b, d), without gradients.
            prepared: What `prepare` returned.
        """

    def combine(self, scores: Sequence[Any]) -> list[float]:
        """Makes one number per candidate of the scores of all candidates; here they are numbers already."""
        return [float(score) for score in scores]


class ViewLoss(Criterion):
    """Mean over batches of a loss between the projections of two views; NT-Xent unless another is given.

    Args:
        objective: ``forward(z0, z1) -> loss`` on projections (b, d), lower is better; None: NT-Xent.
        temperature: Softmax temperature of NT-Xent, unitless, > 0.
        modality_dropout: Probability of modality dropout per sample and view, in [0, 1].
    """

    def __init__(
        self, objective: nn.Module | None = None, temperature: float = 0.2, modality_dropout: float = 0.0
    ) -> None:
        self.loss = local_objective(objective if objective is not None else nt_xent(temperature))
        self.modality_dropout = modality_dropout

    def prepare(self, make_views: MakeViews) -> Iterable[ViewPair]:
        """Two views of every held-out batch."""
        return make_views(self.modality_dropout)

    def score(self, project: Project, prepared: Iterable[ViewPair]) -> float:
        """Mean loss over the batches."""
        return _mean([self.loss(*_project(project, pair)) for pair in prepared])


class DroppedViewsNTXent(ViewLoss):
    """NT-Xent between views with modality dropout: is a sample recognised when one modality is missing?

    Args:
        modality_dropout: Probability of modality dropout per sample and view, in [0, 1].
        temperature: Softmax temperature, unitless, > 0.
    """

    def __init__(self, modality_dropout: float = 0.5, temperature: float = 0.2) -> None:
        super().__init__(None, temperature, modality_dropout)


class PerModalityNTXent(ViewLoss):
    """NT-Xent between two views of one modality alone, the others at their batch mean; mean over modalities."""

    def prepare(self, make_views: MakeViews) -> Iterable[ViewPair]:
        """A pair of views per held-out batch and modality."""
        return derived(super().prepare(make_views), self._of)

    def _of(self, pair: ViewPair) -> list[ViewPair]:
        first, second = pair
        return [(only(first, {m}), only(second, {m})) for m in modalities_of(first)]


class CrossModalNTXent(ViewLoss):
    """InfoNCE between one modality and all the others (CLIP, section 2.3, with NT-Xent's negatives).

    For every modality, the network fed that modality alone against the network fed the rest; what it is not fed is at
    its batch mean. With two modalities both directions are the same pair, which is then scored once.
    """

    def prepare(self, make_views: MakeViews) -> Iterable[ViewPair]:
        """A pair of views per held-out batch and modality; for a single modality plain pairs."""
        return derived(super().prepare(make_views), self._of)

    def _of(self, pair: ViewPair) -> list[ViewPair]:
        first, second = pair
        modalities = modalities_of(first)
        if len(modalities) < 2:
            return [pair]
        alone = modalities if len(modalities) > 2 else modalities[:1]
        return [(only(first, {m}), only(second, set(modalities) - {m})) for m in alone]


class BarlowTwins(ViewLoss):
    """Barlow Twins' loss (Zbontar et al., ICML 2021): are the dimensions of the projection alike and uncorrelated?"""

    def __init__(self, modality_dropout: float = 0.0) -> None:
        super().__init__(BarlowTwinsLoss(), modality_dropout=modality_dropout)


class VICReg(ViewLoss):
    """VICReg's loss (Bardes et al., ICLR 2022)."""

    def __init__(self, modality_dropout: float = 0.0) -> None:
        super().__init__(VICRegLoss(), modality_dropout=modality_dropout)


class Alignment(Criterion):
    """Mean squared distance between the normalised projections of two views (Wang & Isola, ICML 2020, eq. 4)."""

    def prepare(self, make_views: MakeViews) -> Iterable[ViewPair]:
        """Two views of every held-out batch."""
        return make_views(0.0)

    def score(self, project: Project, prepared: Iterable[ViewPair]) -> float:
        """Mean over the samples of all batches, in [0, 4]."""
        pairs = [_project(project, pair) for pair in prepared]
        return _mean([(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean() for a, b in pairs])


class Uniformity(Criterion):
    """log E exp(-t |z - z'|²) over different samples of a batch (Wang & Isola, ICML 2020, eq. 5).

    Args:
        t: Scale of the kernel, > 0.
    """

    def __init__(self, t: float = 2.0) -> None:
        self.t = t

    def prepare(self, make_views: MakeViews) -> Iterable[ViewPair]:
        """Two views of every held-out batch."""
        return make_views(0.0)

    def score(self, project: Project, prepared: Iterable[ViewPair]) -> float:
        """Mean over batches and views, <= 0."""
        values = []
        for pair in prepared:
            for z in _project(project, pair):
                values.append(torch.pdist(F.normalize(z, dim=1)).square().mul(-self.t).exp().mean().log())
        return _mean(values)


class RankMe(Criterion):
    """Effective rank of the projections, with its sign changed (Garrido et al., ICML 2023, eq. 1)."""

    def prepare(self, make_views: MakeViews) -> Iterable[ViewPair]:
        """Two views of every held-out batch."""
        return make_views(0.0)

    def score(self, project: Project, prepared: Iterable[ViewPair]) -> float:
        """Minus the exponential of the entropy of the normalised singular values of all first views."""
        z = torch.cat([_project(project, pair)[0] for pair in prepared])
        share = F.normalize(torch.linalg.svdvals(z), p=1.0, dim=0) + 1e-7
        return -float(torch.exp(-(share * share.log()).sum()))


class NeighbourConsistency(Criterion):
    """Do a sample's two views have the same nearest neighbours? Minus the mean share of common ones.

    Args:
        k: Number of neighbours, >= 1.
    """

    def __init__(self, k: int = 10) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}")
        self.k = k

    def prepare(self, make_views: MakeViews) -> Iterable[ViewPair]:
        """Two views of every held-out batch."""
        return make_views(0.0)

    def score(self, project: Project, prepared: Iterable[ViewPair]) -> float:
        """Mean over the samples, in [-1, 0]; neighbours are sought within the batch."""
        values = []
        for pair in prepared:
            first, second = (self._neighbours(z) for z in _project(project, pair))
            values.append(-(first & second).float().sum(1).mean() / min(self.k, len(first) - 1))
        return _mean(values)

    def _neighbours(self, z: Tensor) -> Tensor:
        """(b, d) -> boolean (b, b): who is among the k nearest of whom, by cosine similarity."""
        z = F.normalize(z, dim=1)
        similarity = (z @ z.T).fill_diagonal_(-torch.inf)
        nearest = similarity.topk(min(self.k, len(z) - 1), dim=1).indices
        return torch.zeros_like(similarity, dtype=torch.bool).scatter_(1, nearest, True)


class RankSum(Criterion):
    """Sum of the candidates' ranks by several criteria: no scale has to be chosen.

    Args:
        criteria: The criteria.
    """

    comparative = True

    def __init__(self, criteria: list[Criterion]) -> None:
        if not criteria:
            raise ValueError("RankSum needs at least one criterion")
        self.criteria = criteria

    def prepare(self, make_views: MakeViews) -> list[Any]:
        """What each criterion prepares."""
        return [criterion.prepare(make_views) for criterion in self.criteria]

    def score(self, project: Project, prepared: Sequence[Any]) -> list[Any]:
        """The score by each criterion; `combine` makes one number of them."""
        return [c.score(project, part) for c, part in zip(self.criteria, prepared, strict=True)]

    def combine(self, scores: Sequence[Any]) -> list[float]:
        """Sums of ranks, 0 the best of each criterion; equal scores share their mean rank."""
        columns = [c.combine([score[i] for score in scores]) for i, c in enumerate(self.criteria)]
        return [sum(ranks) for ranks in zip(*(mean_ranks(column) for column in columns), strict=True)]


def label_free_criteria() -> dict[str, Criterion]:
    """Every criterion of this module by its short name, with its defaults: the columns of a `FusionTable`."""
    return {
        "nt_xent": ViewLoss(),
        "nt_xent_dropped": DroppedViewsNTXent(),
        "nt_xent_per_modality": PerModalityNTXent(),
        "nt_xent_cross_modal": CrossModalNTXent(),
        "barlow": BarlowTwins(),
        "vicreg": VICReg(),
        "alignment": Alignment(),
        "uniformity": Uniformity(),
        "rank_me": RankMe(),
        "neighbours": NeighbourConsistency(),
    }


def only(features: Features, modalities: set[str]) -> dict[str, Tensor]:
    """Features of some modalities, the others at their batch mean."""
    return {
        name: value if _modality(name) in modalities else value.mean(0, keepdim=True).expand_as(value)
        for name, value in features.items()
    }


def mean_ranks(values: Sequence[float]) -> list[float]:
    """Rank of every value from 0, the lowest; equal values share their mean rank, what is not finite is last."""
    values = [value if math.isfinite(value) else math.inf for value in values]
    return [sum(v < value for v in values) + (sum(v == value for v in values) - 1) / 2 for value in values]


def _project(project: Project, pair: ViewPair) -> tuple[Tensor, Tensor]:
    return project(pair[0]).float(), project(pair[1]).float()


def _mean(values: Sequence[Tensor]) -> float:
    return float(torch.stack(list(values)).mean())


def _modality(name: str) -> str:
    return name.rpartition("/")[0] or name


def modalities_of(features: Mapping[str, Tensor]) -> list[str]:
    """The modalities of features named ``<modality>/<level>``."""
    return list(dict.fromkeys(map(_modality, features)))
