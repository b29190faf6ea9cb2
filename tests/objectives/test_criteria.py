"""Label-free criteria against closed forms and slow references."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import BarlowTwinsLoss, NTXentLoss, VICRegLoss
from torch import Tensor

from lightning_mmnas.objectives.criteria import (
    Alignment,
    BarlowTwins,
    Criterion,
    CrossModalNTXent,
    Features,
    NeighbourConsistency,
    PerModalityNTXent,
    RankMe,
    RankSum,
    Uniformity,
    VICReg,
    ViewLoss,
    ViewPair,
    label_free_criteria,
    mean_ranks,
)


def views(count: int = 2, b: int = 8, modalities: tuple[str, ...] = ("a", "b")) -> list[ViewPair]:
    generator = torch.Generator().manual_seed(0)

    def view() -> dict[str, Tensor]:
        return {f"{m}/{level}": torch.randn(b, 3, generator=generator) for m in modalities for level in (0, 1)}

    return [(view(), view()) for _ in range(count)]


def project(features: Features) -> Tensor:
    return torch.cat([features[name] * (1 + i) for i, name in enumerate(features)], dim=1)


def score(criterion: Criterion, pairs: list[ViewPair], by: Callable[[Features], Tensor] = project) -> float:
    asked: list[float] = []

    def make_views(dropout: float) -> list[ViewPair]:
        asked.append(dropout)
        return pairs

    found = criterion.combine([criterion.score(by, criterion.prepare(make_views))])
    assert asked
    return found[0]


@pytest.mark.parametrize(
    ("criterion", "loss"),
    [(ViewLoss(), NTXentLoss(0.2)), (BarlowTwins(), BarlowTwinsLoss()), (VICReg(), VICRegLoss())],
)
def test_losses_are_the_mean_over_batches(criterion: Criterion, loss: Any) -> None:
    pairs = views()
    expected = sum(float(loss(project(a), project(b))) for a, b in pairs) / 2
    assert score(criterion, pairs) == pytest.approx(expected, rel=1e-5)


def test_dropout_is_asked_for() -> None:
    def make_views(dropout: float) -> list[ViewPair]:
        assert dropout == 0.3
        return views()

    ViewLoss(modality_dropout=0.3).prepare(make_views)


def _alone(features: Features, kept: tuple[str, ...]) -> dict[str, Tensor]:
    return {n: v if n[0] in kept else v.mean(0).expand(len(v), -1) for n, v in features.items()}


def test_per_modality() -> None:
    pairs, loss = views(), NTXentLoss(0.2)
    values = [float(loss(project(_alone(a, (m,))), project(_alone(b, (m,))))) for a, b in pairs for m in "ab"]
    assert score(PerModalityNTXent(), pairs) == pytest.approx(sum(values) / 4, rel=1e-5)


@pytest.mark.parametrize("modalities", [("a", "b"), ("a", "b", "c")])
def test_cross_modal_is_one_against_the_rest(modalities: tuple[str, ...]) -> None:
    pairs, loss = views(modalities=modalities), NTXentLoss(0.2)
    values = []
    for first, second in pairs:
        for m in modalities if len(modalities) > 2 else modalities[:1]:
            rest = tuple(other for other in modalities if other != m)
            values.append(float(loss(project(_alone(first, (m,))), project(_alone(second, rest)))))
    assert score(CrossModalNTXent(), pairs) == pytest.approx(sum(values) / len(values), rel=1e-5)


def test_cross_modal_of_a_single_modality_is_nt_xent() -> None:
    pairs = views(modalities=("a",))
    assert score(CrossModalNTXent(), pairs) == pytest.approx(score(ViewLoss(), pairs))


def test_alignment_and_uniformity() -> None:
    pairs = views()
    distances, spread = [], []
    for pair in pairs:
        first, second = (F.normalize(project(view), dim=1) for view in pair)
        distances += [float((x - y).square().sum()) for x, y in zip(first, second, strict=True)]
        for z in (first, second):
            close = [math.exp(-2 * float((x - y).square().sum())) for x, y in itertools.combinations(z, 2)]
            spread.append(math.log(sum(close) / len(close)))
    assert score(Alignment(), pairs) == pytest.approx(sum(distances) / len(distances), rel=1e-5)
    assert score(Uniformity(), pairs) == pytest.approx(sum(spread) / len(spread), rel=1e-5)
    assert score(Alignment(), [(pairs[0][0], pairs[0][0])]) == pytest.approx(0)


@pytest.mark.parametrize("rank", [1, 3])
def test_rank_me_of_equal_singular_values(rank: int) -> None:
    z = torch.eye(12)[:, :rank]
    z = torch.cat([z, torch.zeros(12, 6 - rank)], dim=1)
    assert score(RankMe(), views(1, 12), lambda features: z) == pytest.approx(-rank, rel=1e-4)


def test_neighbours() -> None:
    pairs = views(1, 30)
    first, second = (F.normalize(project(view), dim=1) for view in pairs[0])
    shares = []
    for i in range(30):
        nearest = []
        for z in (first, second):
            order = sorted((j for j in range(30) if j != i), key=lambda j, z=z, i=i: -float(z[i] @ z[j]))  # type: ignore[misc]
            nearest.append(set(order[:4]))
        shares.append(len(nearest[0] & nearest[1]) / 4)
    assert score(NeighbourConsistency(k=4), pairs) == pytest.approx(-sum(shares) / 30, rel=1e-5)
    assert score(NeighbourConsistency(k=4), [(pairs[0][0], pairs[0][0])]) == pytest.approx(-1)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        NeighbourConsistency(0)


class Constant(Criterion):
    def __init__(self, *values: float) -> None:
        self.values = iter(values)

    def prepare(self, make_views: Any) -> None:
        return None

    def score(self, project: Any, prepared: Any) -> float:
        return next(self.values)


def test_rank_sum() -> None:
    criterion = RankSum([Constant(0.1, 0.5, 0.3), Constant(900, 700, 900)])
    prepared = criterion.prepare(lambda dropout: [])
    scores = [criterion.score(project, prepared) for _ in range(3)]
    assert criterion.combine(scores) == [0 + 1.5, 2 + 0, 1 + 1.5]
    with pytest.raises(ValueError, match="at least one"):
        RankSum([])


def test_mean_ranks() -> None:
    assert mean_ranks([3, 1, 3, 3]) == [2, 0, 2, 2]
    assert mean_ranks([math.nan, 3, 2, math.inf]) == [2.5, 1, 0, 2.5]  # what diverged is last


def test_a_network_that_tells_samples_apart_wins_by_every_criterion_but_uniformity_and_rank() -> None:
    """Projections that keep what both views share score better than noise."""
    generator = torch.Generator().manual_seed(3)
    content = torch.randn(64, 8, generator=generator)

    def view(noise: float) -> Features:
        return {f"{m}/0": content + noise * torch.randn(64, 8, generator=generator) for m in "ab"}

    good, bad = [(view(0.1), view(0.1))], [(view(3.0), view(3.0))]
    for name, criterion in label_free_criteria().items():
        if name not in ("uniformity", "rank_me"):
            assert score(criterion, good) < score(criterion, bad), name
