"""What a group is trained to is what each network is trained to alone."""

import math
from collections.abc import Iterable, Iterator
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from torch import Tensor, nn

from lightning_mmnas import FusionNetwork, FusionSpace
from lightning_mmnas.fusion.readout import LateFeatures
from lightning_mmnas.objectives.criteria import Project, ViewLoss, ViewPair, label_free_criteria
from lightning_mmnas.objectives.fusion_objective import projection_head
from lightning_mmnas.objectives.linear import LinearModel
from lightning_mmnas.objectives.logistic import choose_logistic
from lightning_mmnas.objectives.training import build_optimizer
from lightning_mmnas.space.genotype import Genotype
from lightning_mmnas.tabular.protocol import GroupTraining, Protocol, TableData, _batches, _seed
from lightning_mmnas.tabular.simple import simple_baselines

SHAPES = {"image/0": (3, 4), "image/1": (5, 4), "sound/0": (4, 4), "sound/1": (6, 4)}
SPACE = FusionSpace(inputs=tuple(SHAPES), channels=4, length=4)
PROTOCOL = Protocol(
    screen_steps=3, pretrain_steps=4, batch_size=8, finetune_steps={2: 3}, finetune_batch_size=4,
    supervised_steps=4, supervised_batch_size=16, probe_steps=5, projection_hidden=8, projection_out=4,
)  # fmt: skip


def data() -> TableData:
    generator = torch.Generator().manual_seed(0)

    def features(n: int, labels: Tensor, views: int | None) -> dict[str, Tensor]:
        lead = (n,) if views is None else (n, views)
        found = {}
        for name, shape in SHAPES.items():
            values = torch.randn(*lead, *shape, generator=generator)
            found[name] = values + labels.view(-1, *[1] * (values.ndim - 1)).float()
            flat = found[name]
            found[f"{name}#summary"] = torch.cat([flat.mean(-1), flat.amax(-1)], dim=-1)
        return found

    train, test = torch.arange(40) % 2, torch.arange(30) % 2
    return TableData(
        feature_shapes=SHAPES,
        train_views=features(40, train, 3),
        train=features(40, train, None),
        val_views=features(20, torch.arange(20) % 2, 3),
        test=features(30, test, None),
        train_labels=train,
        test_labels=test,
        class_names=["zero", "one"],
        means={name: torch.zeros(()) for name in features(1, torch.zeros(1), None)},
    )


def genotypes(count: int) -> dict[int, Genotype]:
    generator = torch.Generator().manual_seed(4)
    return {10 + i: SPACE.sample(generator) for i in range(count)}


@pytest.fixture
def double() -> Iterator[None]:
    """Everything in float64: in float32 training together and alone drift apart by rounding."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class OwnFeatures(ViewLoss):
    """Makes features while it scores, and changes one that was prepared."""

    def score(self, project: Project, prepared: Iterable[ViewPair]) -> float:
        values = []
        for first, _ in prepared:
            z = [project({name: value * scale for name, value in first.items()}) for scale in (0.5, 1.0, 2.0)]
            changed = cast(dict[str, Tensor], first)
            kept, changed["image/0"] = changed["image/0"], changed["image/0"].flip(0)
            z += [project(first)]
            changed["image/0"] = kept
            values += [(z[0] - z[1]).norm(), 2 * (z[1] - z[2]).norm(), 3 * (z[3] - project(first)).norm()]
        return float(torch.stack(values).mean())


def test_rows_do_not_depend_on_who_is_trained_together(double: None) -> None:
    training = GroupTraining(data(), PROTOCOL, 1, label_free_criteria() | {"own": OwnFeatures()})
    together = training.run(genotypes(4))
    alone = [training.run({index: genotype})[0] for index, genotype in genotypes(4).items()]
    for row, single in zip(together, alone, strict=True):
        assert row.keys() == single.keys()
        for name in row.keys() - {"seconds"}:
            assert row[name] == pytest.approx(single[name], rel=1e-6), name


def test_another_seed_is_another_training() -> None:
    first, second = (
        GroupTraining(data(), PROTOCOL, seed, {"nt_xent": ViewLoss()}).run(genotypes(1))[0] for seed in (0, 1)
    )
    assert first["nt_xent"] != second["nt_xent"]


def test_pretraining_and_fine_tuning_equal_a_plain_loop(double: None) -> None:
    """The same accuracies, and the same criterion, from a loop over one network that a reader can follow."""
    found = data()
    training = GroupTraining(found, PROTOCOL, 3, {"nt_xent": ViewLoss(), "own": OwnFeatures()})
    rows = training.run(genotypes(3))
    for row, (index, genotype) in zip(rows, genotypes(3).items(), strict=True):
        network, head = pretrained(found, index, genotype, "pool", PROTOCOL.screen_steps, "screen")
        losses = []
        with torch.no_grad():
            for start in (0, 8):
                pair = [{n: v[start : start + 8, k] for n, v in found.val_views.items()} for k in (0, 1)]
                losses.append(NTXentLoss(0.2)(*(head.eval()(network.eval()(view)) for view in pair)))
        assert row["nt_xent"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
        with torch.no_grad():
            pairs = training.prepared["own"]
            own = OwnFeatures().score(lambda features: head(network(features)), pairs)  # noqa: B023  (called at once)
        assert row["own"] == pytest.approx(own, rel=1e-5)
        network, _ = pretrained(found, index, genotype, "branch", PROTOCOL.pretrain_steps, "pretrain")
        assert row["finetune_2"] == pytest.approx(
            finetuned(found, training, network, training.chosen[2], 3, 4), abs=0.04
        )
        fresh = network_of(index, genotype, "branch")
        everything = torch.arange(40)
        assert row["supervised"] == pytest.approx(finetuned(found, training, fresh, everything, 4, 16))
        assert row["parameters"] == sum(p.numel() for p in fresh.parameters())
        assert row["flops"] > 0


def network_of(index: int, genotype: Genotype, readout: Any) -> FusionNetwork:
    torch.manual_seed(_seed(3, readout, index))
    return FusionNetwork(genotype, SHAPES, readout)


def pretrained(
    found: TableData, index: int, genotype: Genotype, readout: Any, steps: int, phase: str
) -> tuple[FusionNetwork, nn.Module]:
    network = network_of(index, genotype, readout)
    torch.manual_seed(_seed(3, "projection"))
    head = projection_head(network.out_features, 8, 4)
    parameters = [*network.parameters(), *head.parameters()]
    optimizer, schedule = build_optimizer([{"params": parameters, "lr": PROTOCOL.lr}], 1e-4, "one_cycle", steps)
    generator = torch.Generator().manual_seed(_seed(3, phase))
    for rows in _batches(40, 8, steps, generator):
        drawn = torch.rand(8, 3, generator=generator).argsort(1)[:, :2]
        joined = {n: torch.cat([v[rows, drawn[:, 0]], v[rows, drawn[:, 1]]]) for n, v in found.train_views.items()}
        loss = NTXentLoss(0.2)(*head(network(joined)).chunk(2))
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    return network, head


def finetuned(
    found: TableData, training: GroupTraining, network: FusionNetwork, chosen: Tensor, steps: int, size: int
) -> float:
    torch.manual_seed(_seed(3, "classifier"))
    head = nn.Linear(network.out_features, 2)
    groups = [
        {"params": list(head.parameters()), "lr": PROTOCOL.head_lr},
        {"params": list(network.parameters()), "lr": PROTOCOL.finetune_lr},
    ]
    optimizer, schedule = build_optimizer(groups, 1e-4, "one_cycle", steps)
    generator = torch.Generator().manual_seed(_seed(3, "finetune", len(chosen)))
    network.train()
    for places in _batches(len(chosen), size, steps, generator):
        rows = chosen[places]
        drawn = torch.randint(3, (len(rows),), generator=generator)
        logits = head(network({n: v[rows, drawn] for n, v in found.train_views.items()}))
        optimizer.zero_grad()
        torch.autograd.backward(F.cross_entropy(logits, found.train_labels[rows]))
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        return float((head(network(found.test)).argmax(1) == found.test_labels).float().mean())


def test_learning_happens() -> None:
    """Labels are a shift of every feature, so long training gets them all right."""
    protocol = PROTOCOL.model_copy(update={"supervised_steps": 60, "finetune_steps": {10: 60}})
    row = GroupTraining(data(), protocol, 0, {}).run(genotypes(1))[0]
    assert row["supervised"] > 0.9
    assert row["finetune_10"] > 0.9


def test_simple_baselines() -> None:
    training = GroupTraining(data(), PROTOCOL.model_copy(update={"supervised_steps": 60}), 0, {})
    rows = {row["name"]: row for row in simple_baselines(training, repeats=2)}
    late = ["late_fusion", "late_fusion_all_levels", "late_fusion_linear"]
    assert list(rows) == [*late, "modality:image", "modality:sound", "raw_features"]
    assert rows["late_fusion"]["supervised"] > 0.9
    assert rows["raw_features"]["supervised"] > 0.9
    assert not math.isnan(rows["late_fusion"]["probe_2"])


def test_logistic_regression_beside_a_table_chooses_its_strength_by_whole_groups(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table_data = data()
    table_data.train_groups = torch.arange(len(table_data.train_labels)) // 4
    training = GroupTraining(table_data, PROTOCOL, 3, {})
    calls = []

    def recorded(*arguments: Any) -> LinearModel:
        calls.append(arguments)
        return choose_logistic(*arguments)

    monkeypatch.setattr("lightning_mmnas.tabular.simple.choose_logistic", recorded)
    row = simple_baselines(training, repeats=1)[-1]
    for (train, labels, classes, groups, seed), rows in zip(
        calls, (training.chosen[2], torch.arange(len(table_data.train_labels))), strict=True
    ):
        torch.testing.assert_close(train, LateFeatures(list(SHAPES), SHAPES)(table_data.train)[rows])
        assert torch.equal(labels, table_data.train_labels[rows])
        assert torch.equal(groups, table_data.train_groups[rows])
        assert (classes, seed) == (len(table_data.class_names), 3)
    found = choose_logistic(*calls[-1])(LateFeatures(list(SHAPES), SHAPES)(table_data.test)).argmax(1)
    assert row["supervised"] == pytest.approx(float((found == table_data.test_labels).float().mean()))
