"""What scripts give to a data set in memory: taken as it is meant, or told in a line."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_mmnas import TensorDataModule
from lightning_mmnas.errors import DataError

LABELS = torch.arange(16) % 2


def split(label: Any = LABELS) -> dict[str, Any]:
    return {"a": torch.zeros(16, 4), "label": label}


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "array": (
        lambda: {**split(), "a": torch.zeros(16, 4).numpy()},
        "'a' of train is ndarray, not a tensor: torch.as_t",
    ),
    "names": (lambda: split(["x", "y"] * 8), "'label' of train is list, not a tensor"),
    "none": (lambda: None, "train must be a dict of tensors by modality, got NoneType"),
    "number": (lambda: split(torch.tensor(1)), "'label' of train is a single number"),
    "floats": (lambda: split(LABELS.float()), r"int64, got torch.float32: labels.long\(\) .*, and task='regression'"),
    "column": (lambda: split(LABELS[:, None]), r"labels of shape \(16, 1\) are neither .* labels.squeeze\(1\)"),
    "cube": (lambda: split(torch.zeros(16, 3, 2)), r"labels of shape \(16, 3, 2\) are neither classes"),
    "others": (lambda: split(torch.eye(4).repeat(4, 1) * 2), "are 0 and 1 in each row, and there are others"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_in_a_line(case: str) -> None:
    make, message = CASES[case]
    given = make()
    with pytest.raises(DataError, match=message):
        TensorDataModule(given, given, kinds={"a": "features"})


@pytest.mark.parametrize("nothing", [-1.0, torch.nan])
def test_rows_without_labels_are_taken(nothing: float) -> None:
    label: Tensor = torch.eye(4).repeat(4, 1)
    label[:5] = nothing
    given = split(label)
    assert TensorDataModule(given, given, kinds={"a": "features"}).task == "multilabel"


@pytest.mark.parametrize("changes", [{}, {"task": "regression"}])
def test_a_class_name_that_comes_twice(changes: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="class_names names 'x' twice"):
        TensorDataModule(split(), split(), kinds={"a": "features"}, class_names=["x", "y", "x"], **changes)


def test_words_that_nobody_knows() -> None:
    with pytest.raises(DataError, match="task 'multiclass' is none that is given: None"):
        TensorDataModule(split(), split(), kinds={"a": "features"}, task="multiclass")  # type: ignore[arg-type]
    for stage in (None, "train"):
        with pytest.raises(DataError, match=r"one of \['fit', 'validate', 'test', 'predict'\], got"):
            TensorDataModule(split(), split(), kinds={"a": "features"}).setup(stage)  # type: ignore[arg-type]
