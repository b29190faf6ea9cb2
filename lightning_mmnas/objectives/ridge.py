"""Ridge regression in closed form, with a strength of regularisation that cross-validation chooses.

The optimum is that of scikit-learn's `Ridge` on standardised features: the sum of squared errors plus alpha times the
squared norm of the weights, intercepts free. One decomposition solves all strengths.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from lightning_mmnas.errors import DataError
from lightning_mmnas.objectives.linear import Coordinates, LinearModel, folds

STRENGTHS = tuple(10 ** (exponent / 2) for exponent in range(-4, 11))
"""Values of alpha that are tried: 0.01 to 100,000, two of them to a power of ten."""

_DEFAULT = 100.0
"""Alpha where there are too few samples to choose."""

_NAME = "ridge regression"


def fit_ridge(x: Tensor, targets: Tensor, strength: float) -> LinearModel:
    """Fits ridge regression with one given strength.

    Args:
        x: Features, (n, d).
        targets: (n, outputs).
        strength: Alpha.

    Raises:
        DataError: There is no sample, or a feature or a target is not finite.
    """
    coordinates = Coordinates(x, _NAME)
    weight, bias = _Path(torch.from_numpy(coordinates.samples), targets).solve(strength)
    return coordinates.model(weight, bias, strength, {})


def choose_ridge(
    x: Tensor,
    targets: Tensor,
    groups: Tensor | None = None,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearModel:
    """Fits ridge regression with the strength that is best on held-out folds of the samples at hand.

    Of equally good strengths the strongest is taken. With too few samples to hold any out, alpha is 100. The features
    are standardised once, by all samples at hand.

    Args:
        x: Features, (n, d).
        targets: (n, outputs).
        groups: Group of each sample, (n,), such as its recording: never divided between folds; None: none.
        seed: Seed of the folds.
        strengths: Values of alpha.

    Raises:
        DataError: There is no sample, or a feature or a target is not finite.
    """
    targets = targets.detach().cpu().double()
    coordinates = Coordinates(x, _NAME)
    samples = torch.from_numpy(coordinates.samples)
    parts = [(_Path(samples[~held], targets[~held]), held) for held in folds(targets, groups, seed)]
    losses: dict[float, float] = {}
    chosen, held_out = _DEFAULT, None
    for strength in sorted(strengths, reverse=True) if parts else ():
        predicted = torch.zeros_like(targets)
        for path, held in parts:
            weight, bias = path.solve(strength)
            predicted[held] = samples[held] @ weight + bias
        losses[strength] = float((predicted - targets).square().sum()) / len(targets)
        if held_out is None or losses[strength] < losses[chosen]:
            chosen, held_out = strength, predicted
    weight, bias = _Path(samples, targets).solve(chosen)
    return replace(coordinates.model(weight, bias, chosen, losses), held_out=held_out)


class _Path:
    """The solutions of some samples for every strength, by the eigenvectors of the smaller of two Gram matrices."""

    def __init__(self, x: Tensor, targets: Tensor) -> None:
        self.mean, self.centre = x.mean(0), targets.detach().cpu().double().mean(0)
        if not self.centre.isfinite().all():
            raise DataError(f"{_NAME}: a target is not finite; leave out samples without a target")
        x, y = x - self.mean, targets.detach().cpu().double() - self.centre
        n, d = x.shape
        values, vectors = torch.linalg.eigh(x.T @ x if d <= n else x @ x.T)
        self.values = values.clamp_min(0)
        # w = V (v + alpha)^-1 V' X'y, or X' U (v + alpha)^-1 U' y
        self.left = vectors if d <= n else x.T @ vectors
        self.right = vectors.T @ (x.T @ y if d <= n else y)

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """Weights (d, outputs) and intercepts (outputs,)."""
        weight = self.left @ (self.right / (self.values + strength).unsqueeze(1))
        return weight, self.centre - self.mean @ weight
