"""The comparison: which rows it has, that networks trained side by side are trained as if alone, its verdicts."""

import math
import statistics
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from lightning import seed_everything
from pydantic import ValidationError
from torch import nn

from lightning_mmnas import FineTuning, FusionPretraining, FusionSpace, TensorDataModule
from lightning_mmnas.commands import compare
from lightning_mmnas.comparison.comparison import Comparison
from lightning_mmnas.comparison.logistic import logistic_rivals
from lightning_mmnas.comparison.rivals import random_genotypes
from lightning_mmnas.comparison.settings import ComparisonSettings
from lightning_mmnas.errors import DataError, GenotypeError
from lightning_mmnas.objectives.labelled import Labelled
from tests.modules.tiny import ENCODERS, data_of, modalities, split_of

SPACE = FusionSpace(inputs=("left/0", "left/1", "right/0", "right/1"), channels=4, length=2)
SETTINGS = ComparisonSettings(labels_per_class=(4, "all"), draws=2, random_architectures=3, steps=3, steps_all=4)
NAMES = [
    "found+ssl",
    "found",
    "random+ssl",
    "late_fusion",
    "late_fusion+ssl",
    "late_fusion_all_levels",
    "late_fusion_linear",
    "modality:left",
    "modality:right",
    "raw_features",
    "raw_features_deepest",
    "raw_features:left",
    "raw_features:right",
]


def comparison_of(seed: int = 0, settings: ComparisonSettings = SETTINGS) -> Comparison:
    seed_everything(seed, verbose=False)
    genotype = SPACE.sample(torch.Generator().manual_seed(seed))
    unlabelled, labelled = data_of(), data_of(labels=True)
    unlabelled.setup("fit")
    return Comparison(
        FusionPretraining(modalities(), ENCODERS, genotype=genotype, projection_hidden=8, projection_out=4),
        FineTuning(modalities(), ENCODERS, 2, "multiclass", genotype=genotype),
        unlabelled,
        labelled,
        pretraining_steps=3,
        settings=settings,
        seed=seed,
    )


def starts_of(comparison: Comparison, networks: Mapping[str, nn.Module]) -> dict[str, Labelled]:
    train = comparison.labelled.part("train")
    features, labels = comparison.encode(train), train.labels
    assert labels is not None
    shapes = comparison.pretraining.encoders.feature_shapes
    regressions = logistic_rivals(features, labels, None, shapes, 2, 0)
    return comparison.starts(networks, regressions, features, labels, None, 0)


def test_rows() -> None:
    comparison = comparison_of()
    units = []
    comparison.advance = lambda: units.append(1)
    rows = comparison.run()
    assert len(units) == comparison.total
    assert [(row["name"], row["labels_per_class"]) for row in rows] == [(n, b) for b in (4, "all") for n in NAMES]
    assert all(set(row) == {"name", "labels_per_class", "metric", "mean", "std", "n", "scores"} for row in rows)
    assert {(row["metric"], row["n"]) for row in rows} == {("accuracy", 2)}
    assert all(0 <= row["mean"] <= 1 for row in rows)
    assert all(row["mean"] == pytest.approx(statistics.fmean(row["scores"])) for row in rows)
    assert comparison_of().run() == rows


def test_a_budget_that_no_class_can_meet_is_told_before_rivals_are_pretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = comparison_of(settings=SETTINGS.model_copy(update={"labels_per_class": (4, 1000)}))
    monkeypatch.setattr(Comparison, "pretrain", lambda *_: pytest.fail("pretrained in vain"))
    with pytest.raises(DataError, match="fewer than labels_per_class=1000"):
        comparison.run()


def test_rivals_are_pretrained_on_batches_that_are_shuffled_anew_every_epoch() -> None:
    epochs = comparison_of().unlabelled_batches()
    first, second = ([next(epochs)["left"] for _ in range(4)] for _ in range(2))
    assert torch.cat(first).shape == (32, 3, 16)
    assert not torch.equal(torch.cat(first), torch.cat(second))
    ordered = [torch.cat(part).flatten(1).sum(1).sort().values for part in (first, second)]
    torch.testing.assert_close(*ordered)  # the same samples


def test_random_row_is_the_median_of_each_draw() -> None:
    comparison = comparison_of()
    scores = {"random0+ssl": [0.1, 0.3], "random1+ssl": [0.9, 0.2], "random2+ssl": [0.5, 0.7], "found": [1.0, 0.0]}
    rows = {row["name"]: row for row in comparison._rows(scores, 4)}
    assert rows["random+ssl"]["scores"] == [0.5, 0.3]
    assert rows["random+ssl"]["mean"] == pytest.approx(0.4)
    assert rows["random+ssl"]["std"] == pytest.approx(statistics.stdev([0.5, 0.3]))
    assert set(rows) == {"random+ssl", "found"}
    two = {"random0+ssl": [0.7], "random1+ssl": [0.9]}  # of an even number the mean of the middle two
    assert comparison._rows(two, 4)[0]["mean"] == pytest.approx(0.8)
    undefined = comparison._rows({"raw_features": [math.nan, 0.5]}, 4)[0]  # R2 of a single sample
    assert math.isnan(undefined["mean"])
    assert math.isnan(undefined["std"])


def test_label_draws_of_two_runs_are_different_ones() -> None:
    labels = torch.arange(60) % 2
    first, second = (comparison_of(seed) for seed in (0, 1))
    draws = [tuple(c.draw(labels, 4, draw).tolist()) for c in (first, second) for draw in range(3)]
    assert len(set(draws)) == 6


def test_rivals_see_as_many_samples_as_the_found_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four batches per step, as `accumulate_grad_batches: 4` of the pretraining stage."""
    seen: dict[int, int] = {}
    for accumulate in (1, 4):
        comparison = comparison_of()
        comparison.accumulate = accumulate
        batches = comparison.unlabelled_batches
        count = 0

        def counted(batches: Any = batches) -> Any:
            nonlocal count
            for batch in batches():
                count += 1
                yield batch

        monkeypatch.setattr(comparison, "unlabelled_batches", counted)
        comparison.pretrain({"late_fusion+ssl": comparison._networks()["late_fusion+ssl"]})
        seen[accumulate] = count
        assert comparison.total == 3 * accumulate + 2 * (3 + 4)
    assert seen == {1: 3, 4: 12}


def test_a_space_too_large_to_be_counted_has_random_architectures() -> None:
    space = FusionSpace(inputs=("left/0", "left/1", "right/0"), cells=2, steps=5, channels=4, length=2)
    with pytest.raises(GenotypeError, match="too large"):
        space.size()
    found = random_genotypes(space, 3, torch.Generator().manual_seed(0))
    assert len(set(found)) == 3
    again = random_genotypes(space, 3, torch.Generator().manual_seed(0))
    assert found == again
    assert all(space.problem(genotype) is None for genotype in found)


def sgd(groups: Any, *_: Any) -> Any:
    """AdamW makes steps of what is nothing but rounding."""
    optimizer = torch.optim.SGD(groups)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


def test_networks_are_fine_tuned_as_if_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mmnas.comparison.comparison.build_optimizer", sgd)
    comparison = comparison_of()
    comparison.labelled.setup("fit")
    train = comparison.labelled.part("train")
    networks = comparison._networks()
    names = ("found", "random0+ssl", "late_fusion", "modality:left")
    starts = starts_of(comparison, {name: networks[name] for name in names})
    together = comparison.finetune(starts, train, "all", 1)
    alone: dict[str, Any] = {}
    for name, start in starts.items():
        alone |= comparison.finetune({name: start}, train, "all", 1)
    comparison.labelled.setup("test")
    features = comparison.encode(comparison.labelled.part("test"), "test")
    for name in together:
        grouped = name in ("found", "random0+ssl")  # whose sums round otherwise
        found, expected = (comparison.predict(tuned[name], features) for tuned in (together, alone))
        torch.testing.assert_close(found, expected, rtol=1e-5 if grouped else 0, atol=1e-5 if grouped else 0)


def test_learning_rates_are_those_of_each_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mmnas.comparison.comparison.build_optimizer", sgd)
    comparison = comparison_of()
    comparison.labelled.setup("fit")
    start = starts_of(comparison, {"found": comparison._networks()["found"]})["found"]
    module = comparison.finetuning
    rates = {"still": (0.0, 0.0), "head": (1e-2, 0.0), "both": (module.head_lr, module.lr)}
    train = comparison.labelled.part("train")
    tuned = comparison.finetune(dict.fromkeys(rates, start), train, "all", 1, rates)
    configured = comparison.finetune({"found": start}, train, "all", 1)["found"]

    def moved(name: str, part: str) -> list[bool]:
        pairs = zip(getattr(tuned[name], part).parameters(), getattr(start, part).parameters(), strict=True)
        return [not torch.equal(first, second) for first, second in pairs]

    assert not any(moved("still", "network") + moved("still", "classifier") + moved("head", "network"))
    assert all(moved("head", "classifier"))
    for first, second in zip(tuned["both"].parameters(), configured.parameters(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-5)  # one alone, the other as a group


def test_a_single_modality_has_a_linear_path_of_its_own() -> None:
    comparison = comparison_of()
    comparison.labelled.setup("fit")
    starts = starts_of(comparison, comparison._networks())
    for name, start in starts.items():
        assert start.mixture is not None
        read = {feature.partition("/")[0] for feature in start.mixture.linear.pooled.names}
        assert read == ({name.partition(":")[2]} if ":" in name else {"left", "right"})


def test_settings_refuse_nonsense() -> None:
    with pytest.raises(ValidationError, match="draws"):
        ComparisonSettings(draws=0)
    with pytest.raises(ValidationError, match="labels_per_class"):
        ComparisonSettings(labels_per_class=("some",))  # type: ignore[arg-type]
    for budgets in ((), (5, 5), ("all", 5, "all")):
        with pytest.raises(ValidationError, match="one label budget or several different ones"):
            ComparisonSettings(labels_per_class=budgets)
        with pytest.raises(ValidationError, match="one label budget or several different ones"):
            ComparisonSettings(labels_total=budgets)


def test_multi_label_rows_are_scored_with_thresholds_tuned_on_validation() -> None:
    seed_everything(0, verbose=False)
    splits: dict[str, Any] = {}
    for number, name in enumerate(("train", "val", "test")):
        tensors = split_of(24, number)
        strength = tensors["left"].mean((1, 2))
        tensors["label"] = torch.stack([strength > 0, strength > 0.3, strength < 0.1], dim=1).long()
        splits[name] = tensors
    kinds: dict[str, Any] = {"left": "motion", "right": "motion"}
    unlabelled = TensorDataModule(**splits, kinds=kinds, batch_size=8, labels=False)
    unlabelled.setup("fit")
    genotype = SPACE.sample(torch.Generator().manual_seed(0))
    rows = Comparison(
        FusionPretraining(modalities(), ENCODERS, genotype=genotype, projection_hidden=8, projection_out=4),
        FineTuning(modalities(), ENCODERS, 3, "multilabel", genotype=genotype),
        unlabelled,
        TensorDataModule(**splits, kinds=kinds, batch_size=8),
        pretraining_steps=3,
        settings=SETTINGS,
        seed=0,
    ).run()
    assert {row["metric"] for row in rows} == {"f1_weighted_tuned"}
    assert all(0 < row["mean"] <= 1 for row in rows)
    assert {row["name"] for row in rows} == set(NAMES)


def test_small_encoders_are_compared_on_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = comparison_of()
    comparison.labelled.setup("fit")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with compare._few_threads(comparison):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
        monkeypatch.setattr("lightning_mmnas.commands.threads._WEIGHTS", 0)  # large encoders that run in every step
        with compare._few_threads(comparison):
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
