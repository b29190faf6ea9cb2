"""Candidates that are trained as a group end as they would alone."""

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightly.loss import NTXentLoss, VICRegLoss
from torch import Tensor, nn

from lightning_mmnas import FusionSearch
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.fusion.readout import out_features
from lightning_mmnas.modules import candidates
from lightning_mmnas.objectives.criteria import ViewPair
from lightning_mmnas.objectives.fusion_objective import FusionObjective
from lightning_mmnas.objectives.groups import ContrastiveGroup, LabelledGroup
from lightning_mmnas.objectives.labelled import Labelled
from lightning_mmnas.objectives.training import build_optimizer, train_candidates, train_grouped, train_together
from tests.modules.tiny import ENCODERS, modalities

STEPS = 4


def members(count: int = 3, **arguments: Any) -> list[FusionObjective]:
    torch.manual_seed(0)
    search = FusionSearch(
        modalities(), ENCODERS, channels=4, length=2, projection_hidden=8, projection_out=4, **arguments
    )
    search.double()
    generator = torch.Generator().manual_seed(1)
    found = [candidates.candidate(search, search.space.sample(generator)) for _ in range(count)]
    for member in found:
        member.objective.float()  # projections reach it in float32
    return found


def views() -> list[ViewPair]:
    shapes = {"left/0": (4, 8), "left/1": (6, 4), "right/0": (4, 8), "right/1": (6, 4)}
    generator = torch.Generator().manual_seed(2)

    def view() -> Mapping[str, Tensor]:
        return {n: torch.randn(8, *shape, generator=generator, dtype=torch.float64) for n, shape in shapes.items()}

    return [(view(), view()) for _ in range(STEPS)]


def optimizer(network: nn.Module) -> Any:
    return build_optimizer([{"params": list(network.parameters()), "lr": 1e-2}], 1e-2, "one_cycle", STEPS)


@pytest.mark.parametrize("objective", [None, VICRegLoss(), NTXentLoss(memory_bank_size=(32, 4))])
def test_group_equals_one_by_one(objective: nn.Module | None) -> None:
    together = members(objective=objective)
    alone = copy.deepcopy(together)
    train_candidates(together, views(), optimizer)
    train_together({str(i): member for i, member in enumerate(alone)}, views(), optimizer)
    for first, second in zip(together, alone, strict=True):
        # the objective itself is taken in float32
        torch.testing.assert_close(first.state_dict(), second.state_dict(), rtol=1e-3, atol=1e-4)
    fresh = members(objective=objective)
    weights = [next(found[0].fusion.cells.parameters()) for found in (together, fresh)]  # type: ignore[union-attr]
    assert not torch.equal(*weights)


def test_what_cannot_be_a_group_is_trained_one_by_one() -> None:
    together = members(dropout=0.2)
    with pytest.raises(Exception, match="set dropout to 0"):
        ContrastiveGroup.of(together)
    before = copy.deepcopy(together)
    train_candidates(together, views(), optimizer)
    for first, second in zip(together, before, strict=True):
        assert not torch.equal(next(first.projector.parameters()), next(second.projector.parameters()))


def test_cross_modal_candidates_are_no_group() -> None:
    found = members()
    found[0].cross_modal_weight = 0.5
    with pytest.raises(Exception, match="cross-modal term"):
        ContrastiveGroup.of(found)


def labelled(count: int = 3) -> list[Labelled]:
    torch.manual_seed(0)
    search = FusionSearch(modalities(), ENCODERS, channels=4, length=2, supervised=True, num_classes=2).double()
    generator = torch.Generator().manual_seed(1)
    return [candidates.labelled_candidate(search, search.space.sample(generator)) for _ in range(count)]


def test_labelled_group_equals_one_by_one() -> None:
    together = labelled()
    alone = copy.deepcopy(together)
    batches = [(first, torch.arange(8) % 2) for first, _ in views()]
    train_candidates(together, batches, optimizer)
    train_together({str(i): member for i, member in enumerate(alone)}, batches, optimizer)
    for first, second in zip(together, alone, strict=True):
        torch.testing.assert_close(first.state_dict(), second.state_dict())
    assert not torch.equal(*(next(found[0].classifier.parameters()) for found in (together, labelled())))


def test_accumulated_gradients_are_those_of_the_mean_loss() -> None:
    """Two steps of three batches each, against a plain loop over the mean of three losses."""
    torch.manual_seed(3)
    line = nn.Linear(4, 1)

    class Squared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = copy.deepcopy(line)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            loss: Tensor = (self.line(x).squeeze(1) - y).square().mean()
            return loss

    batches = [(torch.randn(5, 4), torch.randn(5)) for _ in range(6)]
    found, expected = Squared(), Squared()
    train_together({"one": found}, batches, lambda module: _sgd(module), accumulate=3)
    step, schedule = _sgd(expected)
    for i in (0, 3):
        step.zero_grad()
        torch.autograd.backward(torch.stack([expected(*batch) for batch in batches[i : i + 3]]).mean())
        step.step()
        schedule.step()
    torch.testing.assert_close(found.state_dict(), expected.state_dict())


def _sgd(module: nn.Module) -> Any:
    step = torch.optim.SGD(module.parameters(), lr=0.1)
    return step, torch.optim.lr_scheduler.ExponentialLR(step, 0.5)


def under_classifiers(dropouts: list[float]) -> dict[str, FusionObjective | Labelled]:
    """Networks under classifiers, and between them what is no network of the space."""
    found: dict[str, FusionObjective | Labelled] = {}
    for i, (member, dropout) in enumerate(zip(members(len(dropouts)), dropouts, strict=True)):
        found[f"network{i}"] = Labelled(member.fusion, nn.Linear(out_features(member.fusion), 3).double(), dropout)
    late = LateFusion({"left/1": (6, 4), "right/1": (6, 4)}, hidden=5).double()
    return {"late": Labelled(late, nn.Linear(5, 3).double(), 0.4), **found}


def labelled_batches() -> list[tuple[Mapping[str, Tensor], Tensor]]:
    return [(first, torch.arange(8) % 3) for first, _ in views()]


def sgd(network: nn.Module) -> Any:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_labelled_group_with_dropout_equals_one_by_one(accumulate: int) -> None:
    together = under_classifiers([0.4, 0.4, 0.4])
    alone, fresh = copy.deepcopy(together), copy.deepcopy(together)
    train_grouped(together, labelled_batches(), sgd, accumulate)
    train_together(alone, labelled_batches(), sgd, accumulate)
    for name, network in together.items():
        torch.testing.assert_close(network.state_dict(), alone[name].state_dict(), rtol=1e-8, atol=1e-10)
        moved = (network.state_dict()["classifier.weight"] - fresh[name].state_dict()["classifier.weight"]).abs().min()
        assert moved > 0


def test_different_dropouts_are_no_group() -> None:
    several = under_classifiers([0.4, 0.2])
    with pytest.raises(GenotypeError, match="different dropouts"):
        LabelledGroup.of([found for name, found in several.items() if name != "late" and isinstance(found, Labelled)])
    alone = copy.deepcopy(several)
    train_grouped(several, labelled_batches(), sgd)
    train_together(alone, labelled_batches(), sgd)
    torch.testing.assert_close(
        [network.state_dict() for network in several.values()],
        [network.state_dict() for network in alone.values()],
        rtol=0,
        atol=0,
    )
