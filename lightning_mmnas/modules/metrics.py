"""Metrics of the fine-tuning, and the thresholds that turn probabilities of labels into decisions."""

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassF1Score,
    MultilabelF1Score,
)
from torchmetrics.functional.classification import binary_average_precision
from torchmetrics.utilities import dim_zero_cat

from lightning_mmnas.data.spec import TargetScale, Task
from lightning_mmnas.modules.regression_metrics import regression_metrics


class SamplesF1(Metric):
    """F1 of each sample over its labels, averaged over samples (``average="samples"`` of scikit-learn).

    A sample without labels for which none is predicted counts as 0, as there.

    Args:
        num_labels: Number of labels.
        threshold: Probability above which a label is predicted.
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self, num_labels: int, threshold: float = 0.5) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.threshold = threshold
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes logits or probabilities (n, num_labels) and labels 0 or 1 of the same shape."""
        decided = _probabilities(preds) > self.threshold
        hits = (decided & (target > 0)).sum(1)
        scores = 2 * hits / (decided.sum(1) + (target > 0).sum(1)).clamp(min=1)
        self.total += scores.sum()
        self.count += len(preds)

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count


class Predictions(Metric):
    """Keeps probabilities and labels of all samples of all ranks.

    Args:
        num_labels: Number of labels.
    """

    full_state_update = False
    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        self.num_labels = num_labels
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Takes (n, num_labels) of either."""
        self.probabilities.append(probabilities.detach().float())
        self.labels.append(labels)

    def compute(self) -> tuple[Tensor, Tensor]:
        """All probabilities and labels, (n, num_labels) of either."""
        return dim_zero_cat(self.probabilities), dim_zero_cat(self.labels)


class MeanAveragePrecision(Predictions):
    """Average precision of each label, averaged over the labels that occur; exact, from all predictions.

    Args:
        num_labels: Number of labels.
    """

    def compute(self) -> Tensor:  # type: ignore[override]
        """The mean; 0 where no label occurs."""
        scores, labels = super().compute()
        scores = _probabilities(scores)
        labels = labels.long()
        occurring = labels.any(0).nonzero().flatten().tolist()
        found = [binary_average_precision(scores[:, k], labels[:, k]) for k in occurring]
        return torch.stack(found).mean() if found else scores.new_zeros(())


def _probabilities(predictions: Tensor) -> Tensor:
    """Logits as probabilities; like torchmetrics, whatever lies in [0, 1] is taken for probabilities."""
    inside = bool(((predictions >= 0) & (predictions <= 1)).all())
    return predictions if inside else predictions.sigmoid()


def main_metric(task: Task | None) -> str:
    """The metric by which models are compared; of all of them more is better."""
    return {"multilabel": "f1_weighted_tuned", "regression": "r2"}.get(task or "", "accuracy")


def build_metrics(
    task: Task, num_classes: int, threshold: float = 0.5, target_scale: TargetScale | None = None
) -> MetricCollection:
    """Metrics of a task.

    Accuracy and macro F1 for classes; for labels weighted, micro, macro and samples F1, and mean average precision; for
    targets MAE, RMSE and R2.

    Args:
        task: The task.
        num_classes: Number of classes or labels.
        threshold: Probability above which a label is predicted; BM-NAS has 0.3.
        target_scale: Of a regression; see `regression_metrics`.
    """
    if task == "regression":
        return regression_metrics(target_scale)
    if task == "multiclass":
        return MetricCollection(
            {
                "accuracy": MulticlassAccuracy(num_classes, average="micro"),
                "f1_macro": MulticlassF1Score(num_classes, average="macro"),
            }
        )
    return MetricCollection(
        {
            "f1_weighted": MultilabelF1Score(num_classes, threshold, average="weighted"),
            "f1_micro": MultilabelF1Score(num_classes, threshold, average="micro"),
            "f1_macro": MultilabelF1Score(num_classes, threshold, average="macro"),
            "f1_samples": SamplesF1(num_classes, threshold),
            "map": MeanAveragePrecision(num_classes),
        }
    )


def build_tuned_metrics(num_classes: int) -> MetricCollection:
    """The F1 scores of decisions that are made already, 0 or 1; their names end in ``_tuned``."""
    metrics = {name: metric for name, metric in build_metrics("multilabel", num_classes).items() if name != "map"}
    return MetricCollection({f"{name}_tuned": metric for name, metric in metrics.items()})


def tune_thresholds(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The threshold of every label that gives the best F1 on a validation split.

    A label is predicted where its probability is above the threshold. Of equally good thresholds the highest is taken;
    a label that no sample has is never predicted.

    Args:
        probabilities: In [0, 1], shape (n, num_labels).
        labels: 0 or 1, of the same shape.

    Returns:
        Thresholds in [0, 1], shape (num_labels,).
    """
    n = len(probabilities)
    ordered, order = probabilities.sort(dim=0, descending=True, stable=True)
    hits = labels.gather(0, order).cumsum(0)  # of the k most probable samples
    predicted = torch.arange(1, n + 1, device=labels.device).unsqueeze(1)
    f1 = 2 * hits / (predicted + labels.sum(0))
    following = torch.cat([ordered[1:], torch.zeros_like(ordered[:1])])
    # Between equal probabilities there is no threshold.
    f1 = f1.masked_fill((ordered == following) & (predicted < n), -1.0)
    best = f1.argmax(0, keepdim=True)
    thresholds = (ordered.gather(0, best) + following.gather(0, best)).squeeze(0) / 2
    # All predicted, also those of probability 0.
    thresholds = torch.where(best.squeeze(0) == n - 1, -1.0, thresholds)
    return torch.where(labels.sum(0) > 0, thresholds, 1.0)
