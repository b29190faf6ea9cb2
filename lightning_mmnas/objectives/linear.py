"""What logistic and ridge regression share: the model, standardised samples along their axes, held-out folds."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_mmnas.errors import DataError

_FOLDS, _FOLDS_OF_MANY, _MANY = 5, 3, 2000
"""Folds, and folds of so many samples or more, of which fewer tell as much."""


@dataclass(frozen=True)
class LinearModel:
    """A linear model on standardised features.

    Attributes:
        mean: Of each feature over the training samples, (d,).
        scale: Standard deviation of each feature, 1 where it is constant, (d,).
        weight: (d, outputs): logits of classes, or targets.
        bias: (outputs,).
        strength: Of the regularisation, > 0: C of logistic regression, of which a small one is strong; alpha of ridge
            regression, of which a large one is.
        losses: Cross-validated loss per sample of every strength that was tried; empty where none was chosen.
        held_out: What the training samples are given, each from the folds without it, at the chosen strength,
            (n, outputs); None where none was chosen.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    strength: float
    losses: dict[float, float]
    held_out: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Features (n, d) -> logits of classes or targets, (n, outputs)."""
        return ((x.double() - self.mean) / self.scale) @ self.weight + self.bias


class Coordinates:
    """Standardised samples in the coordinates of their principal axes, of which there are no more than samples.

    A rotation changes neither the losses nor the norm of the weights; along the axes the solver knows how far to go.

    Args:
        x: Features, (n, d).
        name: Of the model that is fitted, for messages.

    Raises:
        DataError: There is no sample, or a feature is not finite.
    """

    def __init__(self, x: Tensor, name: str = "logistic regression") -> None:
        if len(x) == 0:
            raise DataError(f"{name} needs at least one labelled sample")
        x = x.detach().double().cpu()
        if not bool(x.isfinite().all()):
            column = int((~x.isfinite()).any(0).nonzero()[0])
            raise DataError(f"{name}: feature {column} of the frozen encoders is not finite")
        self.mean = x.mean(0)
        spread = x.std(0, unbiased=False)
        constant = spread <= 1e-9 * x.abs().amax(0).clamp_min(1e-30)
        self.scale = torch.where(constant, torch.ones_like(spread), spread)
        standard = (x - self.mean) / self.scale
        n, d = standard.shape
        if d > n:
            _, singular, axes = torch.linalg.svd(standard, full_matrices=False)  # (r, d)
            self.axes, variance = axes.T, singular.square() / n
        else:
            variance, self.axes = torch.linalg.eigh(standard.T @ standard / n)  # (d, d)
        self.variance = variance.clamp_min(0).numpy()
        self.samples = (standard @ self.axes).numpy()

    def model(self, weight: Tensor, bias: Tensor, strength: float, losses: dict[float, float]) -> LinearModel:
        """A model in these coordinates, weight (r, outputs), in terms of the features."""
        return LinearModel(self.mean, self.scale, self.axes @ weight, bias, strength, losses)


def folds(labels: Tensor, groups: Tensor | None, seed: int) -> Iterator[Tensor]:
    """Masks of the held-out samples: whole groups, otherwise every class spread evenly; none for too few samples."""
    n = len(labels)
    members = torch.arange(n) if groups is None else torch.unique(groups, return_inverse=True)[1]
    count = min(_FOLDS if n < _MANY else _FOLDS_OF_MANY, int(members.max()) + 1) if n else 0
    if count < 2 or n < 4:
        return
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(int(members.max()) + 1, generator=generator)
    if groups is None and labels.ndim == 1:
        order = order[labels[order].argsort(stable=True)]  # class by class
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(order)) % count
    for i in range(count):
        held = fold[members] == i
        if bool(held.any()) and not bool(held.all()):
            yield held
