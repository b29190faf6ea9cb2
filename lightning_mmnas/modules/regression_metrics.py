"""Metrics of a regression: errors in the target's own unit, from standardised predictions and targets.

All sums are of float64 and about the mean, so that R2 keeps its digits where targets vary little beside their distance
from zero, as those of a test split do that are standardised with an outlier of training.
"""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric, MetricCollection

from lightning_mmnas.data.spec import TargetScale


class _Moments(Metric):
    """Number of samples, mean of the targets, and sums: squares about it, absolute errors, squared errors.

    They are kept as the bits of float64 in int64, which no precision changes and every device holds; MPS has no float64
    itself.
    """

    full_state_update = False
    is_differentiable = False
    moments: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("moments", _bits(torch.zeros(5, dtype=torch.float64)), dist_reduce_fx=_joined)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes standardised predictions and targets, (n, 1)."""
        true = target.detach().cpu().double().flatten()
        if len(true) == 0:
            return
        errors, mean = preds.detach().cpu().double().flatten() - true, true.mean()
        sums = [(true - mean).square().sum(), errors.abs().sum(), errors.square().sum()]
        batch = torch.stack([torch.tensor(float(len(true)), dtype=torch.float64), mean, *sums])
        self.moments = _joined(torch.stack([self.moments, _bits(batch).to(self.moments.device)]))

    def sums(self) -> list[float]:
        """Number, mean and sums."""
        found: list[float] = self.moments.cpu().view(torch.float64).tolist()
        return found

    def result(self, value: float) -> Tensor:
        """A metric's value, as Lightning logs it."""
        return torch.tensor(value, dtype=torch.float32, device=self.moments.device)


class MAE(_Moments):
    """Mean absolute error in the target's unit.

    Args:
        std: Standard deviation that targets were divided by.
    """

    higher_is_better = False

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def compute(self) -> Tensor:
        """The mean; NaN without samples."""
        count, _, _, absolute, _ = self.sums()
        return self.result(absolute / count * self.std if count else torch.nan)


class RMSE(_Moments):
    """Root of the mean squared error in the target's unit.

    Args:
        std: Standard deviation that targets were divided by.
    """

    higher_is_better = False

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def compute(self) -> Tensor:
        """The root of the mean; NaN without samples."""
        count, _, _, _, squared = self.sums()
        return self.result((squared / count) ** 0.5 * self.std if count else torch.nan)


class R2(_Moments):
    """Share of the targets' variance that predictions explain: 1 is perfect, 0 their mean, less is worse."""

    higher_is_better = True

    def compute(self) -> Tensor:
        """The share; NaN of fewer than two samples; of constant targets 1 if there is no error, else 0.

        The last is as `sklearn.metrics.r2_score` has it.
        """
        count, _, variation, _, squared = self.sums()
        if count < 2:
            return self.result(torch.nan)
        if variation == 0:
            return self.result(torch.nan if squared != squared else float(squared == 0))
        return self.result(1 - squared / variation)


def _bits(values: Tensor) -> Tensor:
    return values.view(torch.int64)


def _joined(parts: Tensor) -> Tensor:
    """The moments of all samples from those of disjoint parts, (parts, 5); Chan, Golub and LeVeque (1979)."""
    values = parts.cpu().view(torch.float64)
    counts, means = values[:, 0], values[:, 1]
    total = counts.sum()
    first = means[int((counts > 0).int().argmax())]  # about which the means of the parts are weighed
    mean = first + (counts * (means - first)).sum() / total.clamp(min=1)
    variation = (values[:, 2] + counts * (means - mean).square()).sum()
    joined = torch.cat([torch.stack([total, mean, variation]), values[:, 3:].sum(0)])
    return _bits(joined).to(parts.device)


def take_scale(metrics: MetricCollection, scale: TargetScale | None) -> None:
    """Has the metrics of a regression be in the unit of another scale; see `regression_metrics`."""
    for metric in metrics.values():
        if isinstance(metric, MAE | RMSE):
            metric.std = 1.0 if scale is None else scale[1]


def regression_metrics(scale: TargetScale | None) -> MetricCollection:
    """MAE and RMSE in the target's unit, and R2.

    Args:
        scale: Mean and standard deviation that targets were standardised by; None: they are in their own unit.
    """
    std = 1.0 if scale is None else scale[1]
    return MetricCollection({"mae": MAE(std), "rmse": RMSE(std), "r2": R2()}, compute_groups=False)
