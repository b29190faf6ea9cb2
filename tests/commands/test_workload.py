"""How much there is to do in each stage."""

from typing import Any

import pytest

from lightning_mmnas.commands.changes import flat
from lightning_mmnas.commands.workload import workload
from lightning_mmnas.comparison.settings import ComparisonSettings


def _config(epochs: int | None, labels: int | None = None, callbacks: list[Any] | None = None) -> Any:
    data = {"init_args": {"batch_size": 32, "labels_per_class": labels}}
    return flat({"trainer": {"max_epochs": epochs, "callbacks": callbacks}, "data": data})


def test_work_grows_with_epochs_samples_candidates_and_draws() -> None:
    selection = {"class_path": "a.GenotypeSelection", "init_args": {"num_candidates": 4, "steps": 10}}
    configs = {
        "encoders": _config(3),
        "search": _config(2, callbacks=[{"class_path": "a.Other"}, selection]),
        "pretrain": _config(None),
        "finetune": _config(2, labels=5),
    }
    settings = ComparisonSettings(labels_per_class=(5, "all"), draws=1, random_architectures=1, steps=10, steps_all=20)
    work = workload(configs, settings, 1000)
    assert list(work) == ["encoders", "search", "pretrain", "finetune", "comparison"]
    assert work["encoders"] == [pytest.approx(3000)]
    assert len(work["search"]) == 2
    assert work["search"][1] == pytest.approx(0.11 * 4 * 10 * 32)
    assert work["pretrain"] == [pytest.approx(0.65 * 1000)]
    assert work["finetune"] == [pytest.approx(0.65 * 2 * 50)]
    assert work["comparison"] == [pytest.approx(0.16 * (2 * 1000 + 9 * (10 * 64 + 20 * 128)))]
    configs["finetune"]["data.init_args.task"] = "regression"  # all labels alone, where nothing else is said
    settings = ComparisonSettings(draws=1, random_architectures=1, steps=10, steps_all=20)
    expected = [pytest.approx(0.16 * (2 * 1000 + 9 * 20 * 128))]
    assert workload(configs, settings, 1000)["comparison"] == expected
    del configs["pretrain"]
    assert "comparison" not in workload(configs, settings, 1000)
