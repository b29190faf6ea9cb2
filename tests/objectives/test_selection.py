"""Label-free selection: candidates, training side by side, the criterion."""

import copy
from collections.abc import Iterator
from operator import itemgetter

import pytest
import torch
from lightly.loss import NTXentLoss
from lightning.pytorch.profilers.pytorch import RegisterRecordFunction
from torch import Tensor, nn

from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet
from lightning_mmnas.objectives.criteria import DroppedViewsNTXent, Features, ViewPair
from lightning_mmnas.objectives.fusion_objective import FusionObjective, projection_head
from lightning_mmnas.objectives.losses import local_objective, nt_xent
from lightning_mmnas.objectives.selection import candidates
from lightning_mmnas.objectives.training import build_optimizer, train_together

SHAPES = {"image/0": (3, 4, 4), "image/1": (5, 2, 2), "text/0": (4,), "text/1": (6,)}


def supernet_of(**changes: object) -> FusionSupernet:
    settings: dict[str, object] = {"inputs": tuple(SHAPES), "cells": 2, "channels": 4, "length": 4}
    torch.manual_seed(0)
    supernet = FusionSupernet(FusionSpace(**{**settings, **changes}), SHAPES)  # type: ignore[arg-type]
    for logits in supernet.architecture_parameters():
        logits.copy_(torch.randn_like(logits))
    return supernet


def view_pairs(count: int = 4, batch: int = 6) -> list[ViewPair]:
    generator = torch.Generator().manual_seed(1)

    def view() -> dict[str, Tensor]:
        return {name: torch.randn(batch, *shape, generator=generator) for name, shape in SHAPES.items()}

    return [(view(), view()) for _ in range(count)]


def test_candidates_are_distinct_and_the_favourite_comes_first() -> None:
    supernet = supernet_of()
    found = candidates(supernet, 6, seed=0)
    assert found[0] == supernet.decode()
    assert len(found) == len(set(found)) == 6
    for genotype in found:
        supernet.space.validate(genotype)
        assert genotype.modalities_read() == {"image", "text"}


def test_candidates_are_a_function_of_the_seed() -> None:
    supernet = supernet_of()
    dumps = [genotype.model_dump() for genotype in candidates(supernet, 6, seed=0)]
    torch.manual_seed(99)  # the global generator has no say
    assert [genotype.model_dump() for genotype in candidates(supernet, 6, seed=0)] == dumps
    assert [genotype.model_dump() for genotype in candidates(supernet, 6, seed=1)] != dumps
    assert [genotype.model_dump() for genotype in candidates(supernet, 3, seed=0)] == dumps[:3]


def test_one_candidate_is_the_favourite() -> None:
    supernet = supernet_of()
    assert candidates(supernet, 1, seed=0) == [supernet.decode()]


def test_small_space_has_fewer_candidates() -> None:
    supernet = supernet_of(inputs=("image/0", "text/0"), cells=1, primitives=("sum", "concat_fc"))
    assert len(candidates(supernet, 6, seed=0)) == 2


def test_coverage_and_distinctness_are_passed_on() -> None:
    supernet = supernet_of()
    for alpha in supernet.logits.alpha:  # both cells read both images
        alpha.data.zero_()
        alpha.data[0, 0] = alpha.data[1, 0] = 30.0  # row y starts at the second candidate
    free = candidates(supernet, 1, seed=0, coverage=False, distinct=False)[0]
    assert [cell.inputs for cell in free.cells] == [("image/0", "image/1")] * 2
    apart = candidates(supernet, 1, seed=0, coverage=False)[0]
    assert apart.cells[0].inputs != apart.cells[1].inputs
    assert free.modalities_read() == {"image"}
    assert candidates(supernet, 1, seed=0)[0].modalities_read() == {"image", "text"}
    drawn = candidates(supernet, 5, seed=0, coverage=False, distinct=False)
    assert any(genotype.modalities_read() == {"image"} for genotype in drawn[1:])
    assert all(genotype.modalities_read() == {"image", "text"} for genotype in candidates(supernet, 5, seed=0))


def networks(count: int = 3) -> dict[str, FusionObjective]:
    torch.manual_seed(2)
    built = {}
    for i, genotype in enumerate(candidates(supernet_of(), count, seed=0)):
        network = FusionNetwork(genotype, SHAPES, readout="pool")
        built[str(i)] = FusionObjective(network, projection_head(network.out_features, 8, 5), nt_xent(0.2))
    return built


def optimizer(network: nn.Module) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    return build_optimizer([{"params": list(network.parameters()), "lr": 1e-2}], 1e-4, "one_cycle", 4)


def test_training_together_equals_training_each_alone() -> None:
    together, views = networks(), view_pairs()
    alone = copy.deepcopy(together)
    before = {name: copy.deepcopy(network.state_dict()) for name, network in together.items()}
    train_together(together, views, optimizer)
    for name, network in alone.items():  # the plain loop
        step, schedule = optimizer(network)
        network.train()
        for first, second in views:
            step.zero_grad()
            network(first, second).backward()
            step.step()
            schedule.step()
        for key, value in network.state_dict().items():
            assert torch.equal(value, together[name].state_dict()[key]), (name, key)
        assert any(not torch.equal(value, before[name][key]) for key, value in network.state_dict().items())


def test_views_are_made_once_and_one_by_one() -> None:
    events: list[str] = []

    def views() -> Iterator[ViewPair]:
        for pair in view_pairs(2):
            events.append("views")
            yield pair

    trained = {name: network.eval() for name, network in networks(2).items()}
    for name, network in trained.items():
        network.register_forward_pre_hook(lambda module, _, name=name: events.append(f"{name} {module.training}"))
    train_together(trained, views(), optimizer)
    assert events == ["views", "0 True", "1 True"] * 2


def test_score_is_the_mean_nt_xent_of_the_batches() -> None:
    criterion = DroppedViewsNTXent(modality_dropout=0.3, temperature=0.5)
    asked: list[float] = []
    views = view_pairs(3)

    def make_views(dropout: float) -> list[ViewPair]:
        asked.append(dropout)
        return views

    def project(features: Features) -> Tensor:
        return features["text/1"].double()

    prepared = criterion.prepare(make_views)
    assert asked == [0.3]
    total = 0.0
    for first, second in views:
        z = torch.cat([first["text/1"], second["text/1"]]).double()
        z = z / z.norm(dim=1, keepdim=True)
        powers = torch.exp(z @ z.T / 0.5).fill_diagonal_(0)
        n = len(z) // 2
        total += sum(-float(torch.log(powers[i, (i + n) % (2 * n)] / powers[i].sum())) for i in range(2 * n)) / (2 * n)
    assert criterion.score(project, prepared) == pytest.approx(total / 3, rel=1e-5)


def test_criterion_prefers_the_network_that_recognises_samples() -> None:
    generator = torch.Generator().manual_seed(0)
    views: list[ViewPair] = []
    for _ in range(3):
        sample = torch.randn(8, 4, generator=generator)
        views.append(
            (
                {"crisp": sample, "noisy": torch.randn(8, 4, generator=generator)},
                {"crisp": sample, "noisy": torch.randn(8, 4, generator=generator)},
            )
        )
    criterion = DroppedViewsNTXent()
    good, bad = (criterion.score(itemgetter(name), views) for name in ("crisp", "noisy"))
    assert good < bad - 1


def test_local_objective_is_a_copy_that_gathers_nothing() -> None:
    nested = nn.ModuleDict({"inner": nt_xent(0.3)})
    local = local_objective(nested)
    inner, copied = (module.get_submodule("inner") for module in (nested, local))
    assert isinstance(inner, NTXentLoss)
    assert isinstance(copied, NTXentLoss)
    assert inner.gather_distributed
    assert not copied.gather_distributed
    assert copied.temperature == 0.3


def test_local_objective_of_one_that_a_profiler_watches() -> None:
    watched = nn.ModuleDict({"inner": nt_xent(0.3)})
    with RegisterRecordFunction(watched):
        first, second = torch.randn(2, 4, 3).unbind()
        loss = watched["inner"](first, second)
        copied = local_objective(watched)["inner"]  # type: ignore[index]
        assert torch.equal(copied(first, second), loss)
