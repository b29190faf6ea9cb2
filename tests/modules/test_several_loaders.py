"""Several loaders in one validation or test, such as plain and degraded samples: each has the numbers it has alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_mmnas import EncoderPretraining, FineTuning, FusionPretraining, FusionSearch
from lightning_mmnas.fusion.late_fusion import LateFusion
from tests.modules.tiny import ENCODERS, KINDS, data_of, modalities, split_of, trainer_of

LABELS: dict[str, Any] = {
    "multiclass": lambda label: label,
    "multilabel": lambda label: torch.eye(2)[label],
    "regression": lambda label: label.double() * 3 + torch.arange(len(label)),
}


def loaders(task: str) -> list[DataLoader[Any]]:
    """The test samples, and their first half without one sensor."""
    split: dict[str, Tensor] = split_of(32, 0)
    given = {**split, "label": LABELS[task](split["label"])}
    other = {name: value[:16] if name == "label" else value[:16] * (name == "left") for name, value in given.items()}
    changes: dict[str, Any] = {"kinds": KINDS, "batch_size": 8, "task": "regression" if task == "regression" else None}
    both = []
    for tested in (given, other):
        data = type(data_of())(given, given, tested, **changes)
        data.setup("test")
        both.append(data.test_dataloader())
    return both


@pytest.mark.parametrize("task", LABELS)
@pytest.mark.parametrize("verb", ["validate", "test"])
def test_each_loader_has_the_numbers_it_has_alone(verb: str, task: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    classes = 1 if task == "regression" else 2
    scale = (3.0, 2.0) if task == "regression" else None
    module = FineTuning(modalities(), ENCODERS, classes, task, fusion=LateFusion, target_scale=scale)
    alone = [getattr(trainer_of(tmp_path), verb)(module, loader, verbose=False)[0] for loader in loaders(task)]
    if verb == "validate" and task == "multilabel":  # the first loader's samples choose the thresholds
        getattr(trainer_of(tmp_path), verb)(module, loaders(task)[0], verbose=False)
        thresholds = module.get_buffer("thresholds").clone()
    for _ in range(2):  # begun anew
        both = getattr(trainer_of(tmp_path), verb)(module, loaders(task), verbose=False)
        for index, (expected, found) in enumerate(zip(alone, both, strict=True)):
            assert found == pytest.approx({f"{name}/dataloader_idx_{index}": v for name, v in expected.items()})
    assert alone[0] != alone[1]
    if verb == "validate" and task == "multilabel":
        assert torch.equal(module.get_buffer("thresholds"), thresholds)


def test_predictions_of_several_loaders(tmp_path: Path) -> None:
    module = FineTuning(modalities(), ENCODERS, 2, "multiclass", fusion=LateFusion)
    first, second = trainer_of(tmp_path).predict(module, loaders("multiclass")) or []
    assert [sum(map(len, found)) for found in (first, second)] == [32, 16]


@pytest.mark.parametrize("stage", ["encoders", "search", "pretrain"])
def test_validation_of_the_stages_without_labels(stage: str, tmp_path: Path) -> None:
    stages: dict[str, Any] = {
        "encoders": lambda: EncoderPretraining(modalities(), ENCODERS),
        "search": lambda: FusionSearch(modalities(), ENCODERS, channels=4, length=2),
        "pretrain": lambda: FusionPretraining(modalities(), ENCODERS, fusion=LateFusion),
    }
    found = trainer_of(tmp_path).validate(stages[stage](), loaders("multiclass"), verbose=False)
    assert [list(values) for values in found] == [["val/loss/dataloader_idx_0"], ["val/loss/dataloader_idx_1"]]
