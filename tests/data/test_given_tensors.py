"""What scripts give to a data set in memory: taken as it is meant, or told in a line."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mmnas import TensorDataModule
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.modules import fingerprint
from lightning_mmnas.views import ImageViews, VideoViews

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


PICTURES: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "up to 255": (lambda x: x * 255, r"'a' of train holds pixels from .* to 25[45]; pixels are uint8 in \[0, 255\] or"),
    "standardised": (lambda x: (x - 0.5) / 0.2, "from -2.* leave standardising to the encoder"),
    "from -1 to 1": (lambda x: x * 2 - 1, "from -1 to 1"),
    "whole numbers": (lambda x: (x * 255).int(), r"of type torch.int32; .* \.to\(torch.uint8\) makes bytes"),
    "black and white": (lambda x: x > 0.5, "of type torch.bool"),
}


@pytest.mark.parametrize("case", PICTURES)
@pytest.mark.parametrize(("kind", "shape"), [("image", (16, 3, 8, 8)), ("video", (16, 1, 4, 8, 8))])
def test_pictures_of_another_range(case: str, kind: Any, shape: tuple[int, ...]) -> None:
    make, message = PICTURES[case]
    pixels = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    given = {"a": make(pixels)}
    with pytest.raises(DataError, match=message):
        TensorDataModule(given, given, kinds={"a": kind})
    views = ImageViews() if kind == "image" else VideoViews()
    with pytest.raises(DataError, match=message.replace("'a' of train", "a batch of .*")):
        views(make(pixels))  # from a loader of one's own
    before = fingerprint.architecture(views)
    views(pixels)
    assert fingerprint.architecture(views) == before  # by which a feature cache knows whose views it holds
    for taken in (pixels, pixels * 1.2 - 0.1, pixels.double(), (pixels * 255).byte()):
        TensorDataModule({"a": taken}, {"a": taken}, kinds={"a": kind})


WORDS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "kinds": ({"kinds": ["features"]}, DataError, r"kinds are a dict by modality, .* got \['features'\]"),
    "no kinds": ({"kinds": None}, DataError, "got None"),
    "names": ({"class_names": {0: "x", 1: "y"}}, DataError, "class_names are a list, in the order of the labels"),
    "groups": ({"groups": [0, 1] * 8}, DataError, "groups are a tensor of one number .*, got list: torch.as_tensor"),
    "parts": ({"groups": torch.zeros(16)}, DataError, r"whole number .* got torch.float32 of shape \(16,\)"),
    "pairs": ({"groups": torch.zeros(16, 2).long()}, DataError, r"of shape \(16, 2\)"),
    "text": ({"modalities": "a"}, DataError, r"a list of names, such as \['a'\], got the text 'a'"),
    "share": ({"architecture_fraction": "0.5"}, ConfigError, "between 0 and 1, both excluded, got '0.5'"),
}


@pytest.mark.parametrize("case", WORDS)
def test_arguments_of_another_type(case: str) -> None:
    changes, error, message = WORDS[case]
    with pytest.raises(error, match=message):
        TensorDataModule(split(), split(), **{"kinds": {"a": "features"}, **changes})


def test_a_share_may_be_a_number_of_numpy() -> None:
    share: Any = np.float32(0.5)
    data = TensorDataModule(split(), split(), kinds={"a": "features"}, architecture_fraction=share)
    data.setup("fit")
    batch, _, _ = next(iter(data.train_dataloader()))
    assert len(batch["weights"]["a"]) == len(batch["architecture"]["a"]) == 8


def test_numbers_of_persons_as_classes() -> None:
    given = split(LABELS * 5_000_000)
    with pytest.raises(DataError, match="the largest of 16 labels is 5000000, which would be 5000001 classes"):
        TensorDataModule(given, given, kinds={"a": "features"})
    few = split(LABELS * 999)
    assert TensorDataModule(few, few, kinds={"a": "features"}).num_classes == 1000


def test_a_target_that_is_infinite() -> None:
    targets = torch.arange(16.0)
    targets[3] = torch.inf
    with pytest.raises(DataError, match="the target of a training row is infinite"):
        TensorDataModule(split(targets), split(targets), kinds={"a": "features"}, task="regression")


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
