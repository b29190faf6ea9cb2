"""Metrics of a regression: errors in the target's own unit, from standardised predictions and targets.

Sums of squares of standardised values keep their digits: torchmetrics adds in float32, where those of years are lost.
"""

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.regression import MeanAbsoluteError as Absolute
from torchmetrics.regression import MeanSquaredError as Squared
from torchmetrics.regression import R2Score

from lightning_mmnas.data.spec import TargetScale


class MAE(Absolute):
    """Mean absolute error in the target's unit.

    Args:
        std: Standard deviation that targets were divided by.
    """

    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes standardised predictions and targets, (n, 1)."""
        super().update(preds.flatten().float(), target.flatten().float())

    def compute(self) -> Tensor:
        """The mean."""
        return super().compute() * self.std


class RMSE(Squared):
    """Root of the mean squared error in the target's unit.

    Args:
        std: Standard deviation that targets were divided by.
    """

    def __init__(self, std: float) -> None:
        super().__init__(squared=False)
        self.std = std

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes standardised predictions and targets, (n, 1)."""
        super().update(preds.flatten().float(), target.flatten().float())

    def compute(self) -> Tensor:
        """The root of the mean."""
        return super().compute() * self.std


class R2(R2Score):
    """Share of the targets' variance that predictions explain: 1 is perfect, 0 their mean, less is worse."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Takes standardised predictions and targets, (n, 1)."""
        super().update(preds.flatten().float(), target.flatten().float())

    def compute(self) -> Tensor:
        """The share; NaN of fewer than two samples."""
        return super().compute() if self.total >= 2 else torch.tensor(torch.nan, device=self.device)


def regression_metrics(scale: TargetScale | None) -> MetricCollection:
    """MAE and RMSE in the target's unit, and R2.

    Args:
        scale: Mean and standard deviation that targets were standardised by; None: they are in their own unit.
    """
    std = 1.0 if scale is None else scale[1]
    return MetricCollection({"mae": MAE(std), "rmse": RMSE(std), "r2": R2()}, compute_groups=False)
