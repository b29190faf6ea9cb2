"""Scores of predictions, gathered batch by batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix, MultilabelF1Score

from lightning_mmnas.data.spec import TargetScale, Task
from lightning_mmnas.errors import DataError
from lightning_mmnas.modules.metrics import build_metrics, build_tuned_metrics


def labels_of(values: Any, task: Task | None, count: int) -> Tensor:
    """Labels that come as numbers, checked: (n,) of classes, else (n, count).

    Args:
        values: A tensor, or one value per sample.
        task: The task.
        count: Number of classes, or of targets.

    Raises:
        DataError: They are no numbers, or not those of the classes.
    """
    try:
        labels = values if isinstance(values, Tensor) else torch.stack([torch.as_tensor(value) for value in values])
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"'label' must hold numbers, not {type(next(iter(values), None)).__name__}: {error}") from None
    if not len(labels):
        return labels
    if task == "regression":
        labels = labels.reshape(len(labels), -1)
    wanted = (len(labels),) if task == "multiclass" else (len(labels), count)
    if tuple(labels.shape) != wanted:
        raise DataError(f"'label' has the shape {tuple(labels.shape)} instead of {wanted}")
    if task == "multiclass" and (labels.is_floating_point() or int(labels.max()) >= count):
        raise DataError(f"'label' must hold whole numbers from 0 to {count - 1}, or -1, but has {labels.max().item()}")
    return labels


class Scores:
    """The metrics of fine-tuning, and where the errors are.

    Args:
        task: The task.
        class_names: Names of the classes.
        thresholds: Of the labels, multi-label data only.
        target_scale: Of a regression; see `regression_metrics`.
    """

    def __init__(
        self,
        task: Task,
        class_names: Sequence[str],
        thresholds: Tensor | None,
        target_scale: TargetScale | None = None,
    ) -> None:
        count = len(class_names)
        self.task = task
        self.class_names = list(class_names)
        self.thresholds = None if thresholds is None else thresholds.cpu()
        self.metrics = build_metrics(task, count, target_scale=target_scale)
        self.tuned = build_tuned_metrics(count) if task == "multilabel" else None
        self.confusion = MulticlassConfusionMatrix(count) if task == "multiclass" else None
        self.per_label = MultilabelF1Score(count, average="none") if task == "multilabel" else None
        self.samples = 0

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Takes logits (b, num_classes) and known labels, (b,) or (b, num_classes), on the CPU; or targets, (b, 1)."""
        self.samples += len(logits)
        if self.task == "regression":
            self.metrics.update(logits.float(), labels)
            return
        if self.confusion is not None:
            self.metrics.update(logits.float(), labels)
            self.confusion.update(logits.float(), labels)
            return
        assert self.thresholds is not None
        assert self.per_label is not None
        assert self.tuned is not None
        probabilities = logits.float().sigmoid()
        decisions = (probabilities > self.thresholds).float()
        self.metrics.update(probabilities, labels)
        self.tuned.update(decisions, labels)
        self.per_label.update(decisions, labels)

    def compute(self) -> dict[str, Any]:
        """``metrics``, ``confusion`` or ``per_label`` (of a regression neither), ``class_names`` and ``samples``.

        Raises:
            DataError: No sample had a class, or a target.
        """
        if self.samples == 0:
            what = "target" if self.task == "regression" else "class"
            raise DataError(f"no sample has a {what} to be compared with")
        metrics = {name: float(value) for name, value in self.metrics.compute().items()}
        found: dict[str, Any] = {"samples": self.samples, "class_names": self.class_names}
        if self.task == "regression":
            return {**found, "metrics": metrics}
        if self.confusion is not None:
            return {**found, "metrics": metrics, "confusion": self.confusion.compute().tolist()}
        assert self.per_label is not None
        assert self.tuned is not None
        metrics |= {name: float(value) for name, value in self.tuned.compute().items()}
        scores = torch.as_tensor(self.per_label.compute()).tolist()
        return {**found, "metrics": metrics, "per_label": dict(zip(self.class_names, scores, strict=True))}
