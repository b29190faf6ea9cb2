"""Targets of a regression as labels: standardised, so that their unit and offset cost no precision."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_mmnas.data.samples import LABEL
from lightning_mmnas.data.spec import TargetScale, Task
from lightning_mmnas.errors import DataError


def measure_scale(targets: Tensor, rows: Sequence[int], place: str) -> TargetScale:
    """Mean and standard deviation of the targets of some rows, those without one left out.

    Args:
        targets: Of all rows, float64, (n,).
        rows: Which rows, those of training.
        place: Table and column, for messages.

    Raises:
        DataError: Fewer than two rows have a target, all have the same, or one is infinite.
    """
    known = targets[torch.as_tensor(rows, dtype=torch.long)]
    known = known[~known.isnan()]
    if bool(known.isinf().any()):
        raise DataError(f"{place}: the target of a training row is infinite; NaN says that there is none")
    if len(known) < 2:
        raise DataError(f"{place}: {len(known)} training rows have a target; a regression needs two or more")
    if bool((known == known[0]).all()):
        raise DataError(f"{place}: all training rows have the target {float(known[0]):g}; nothing to learn")
    return float(known.mean()), float(known.std(unbiased=False))


def standardised(targets: Tensor, scale: TargetScale) -> Tensor:
    """Labels of samples from targets (n,): float32 of shape (n, 1), NaN where there is none."""
    mean, std = scale
    return ((targets.double() - mean) / std).float().unsqueeze(1)


def check_labels(labels: Tensor, task: Task, num_classes: int) -> None:
    """Refuses labels that are none of a task's classes, as far as a processor can look at them without waiting.

    Raises:
        DataError: They are of another type or shape, sparse or nested, or beyond the classes.
    """
    if not isinstance(labels, Tensor):
        raise DataError(f"the labels of a batch are a tensor, got a {type(labels).__name__}")
    if labels.is_nested or labels.layout != torch.strided:
        kind, way = ("nested", "stack them") if labels.is_nested else ("sparse", "give .to_dense() of it")
        raise DataError(f"the labels of a batch are a {kind} tensor; {way} in the collate function")
    given = f"{labels.dtype} of shape {tuple(labels.shape)}"
    if task == "multiclass" and (labels.ndim != 1 or labels.is_floating_point()):
        raise DataError(f"the labels of a batch are one whole number for each sample, (b,), got {given}")
    if task == "multilabel" and (labels.ndim != 2 or labels.shape[1] != num_classes):
        raise DataError(f"the labels of a batch are a zero or a one for each class, (b, {num_classes}), got {given}")
    if task == "multiclass" and labels.device.type == "cpu" and len(labels):
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= num_classes:
            wrong = low if low < 0 else high
            raise DataError(f"a label is {wrong}, and the {num_classes} classes are 0 to {num_classes - 1}")


def rescaled(labels: Tensor, scale: TargetScale | None, wanted: TargetScale | None) -> Tensor:
    """Standardised targets of one scale in another; None: in their own unit."""
    if scale == wanted:
        return labels
    (mean, std), (wanted_mean, wanted_std) = scale or (0.0, 1.0), wanted or (0.0, 1.0)
    return labels * (std / wanted_std) + (mean - wanted_mean) / wanted_std


def rescaled_loader(loader: DataLoader[Any], scale: TargetScale | None, wanted: TargetScale | None) -> DataLoader[Any]:
    """A loader of a regression's batches, with its labels in another scale."""
    if scale != wanted:
        loader.collate_fn = partial(_rescaled_batch, loader.collate_fn, scale, wanted)
    return loader


def _rescaled_batch(collate: Any, scale: TargetScale | None, wanted: TargetScale | None, samples: Any) -> Any:
    batch = collate(samples)
    return {**batch, LABEL: rescaled(batch[LABEL], scale, wanted)} if LABEL in batch else batch
