"""Logistic regression, trained to its optimum, with a strength of regularisation that cross-validation chooses.

The optimum is that of scikit-learn's `LogisticRegression`: C times the sum of the losses plus half the squared norm of
the weights, intercepts free. All labels and all strengths are solved together here, which makes choosing affordable.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor
from torch.nn import functional as F

from lightning_mmnas.errors import DataError

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of C that are tried, from strong to weak regularisation."""

_DEFAULT = 1e-2
"""C where there are too few samples to choose."""

_FOLDS = 5
_UNSEEN = 5.0
"""A class without a training sample has a logit so far below the least likely one that has some."""


@dataclass(frozen=True)
class LogisticModel:
    """A linear model on standardised features.

    Attributes:
        mean: Of each feature over the training samples, (d,).
        scale: Standard deviation of each feature, 1 where it is constant, (d,).
        weight: (d, num_classes).
        bias: (num_classes,).
        strength: C, unitless, > 0; small is strong regularisation.
        losses: Cross-validated loss per sample of every C that was tried; empty where none was chosen.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    strength: float
    losses: dict[float, float]

    def __call__(self, x: Tensor) -> Tensor:
        """Features (n, d) -> logits (n, num_classes)."""
        return ((x.double() - self.mean) / self.scale) @ self.weight + self.bias


def fit_logistic(x: Tensor, labels: Tensor, num_classes: int, strength: float) -> LogisticModel:
    """Fits logistic regression with one given strength.

    Args:
        x: Features, (n, d).
        labels: Classes (n,), or 0 and 1 of shape (n, num_classes).
        num_classes: Number of classes; some may have no sample.
        strength: C.

    Raises:
        DataError: There is no sample, or a feature is not finite.
    """
    problem = _Problem(x, labels, num_classes)
    return problem.model(problem.solve(strength, None), strength, {})


def choose_logistic(
    x: Tensor,
    labels: Tensor,
    num_classes: int,
    groups: Tensor | None = None,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
) -> LogisticModel:
    """Fits logistic regression with the strength that is best on held-out folds of the samples at hand.

    The path goes from strong to weak regularisation and ends when the held-out loss has risen twice in a row. With
    too few samples to hold any out, C is 0.01.

    Args:
        x: Features, (n, d).
        labels: Classes (n,), or 0 and 1 of shape (n, num_classes).
        num_classes: Number of classes.
        groups: Group of each sample, (n,), such as its recording: never divided between folds; None: none.
        seed: Seed of the folds.
        strengths: Values of C.

    Raises:
        DataError: There is no sample, or a feature is not finite.
    """
    folds = list(_folds(labels, groups, seed))
    losses: dict[float, float] = {}
    if folds:
        parts = [(_Problem(x[~held], labels[~held], num_classes), x[held], labels[held]) for held in folds]
        starts: list[np.ndarray | None] = [None] * len(parts)
        ordered = sorted(strengths)
        for strength in ordered:
            total = 0.0
            for i, (problem, x_held, labels_held) in enumerate(parts):
                starts[i] = problem.solve(strength, starts[i])
                logits = problem.model(cast(np.ndarray, starts[i]), strength, {})(x_held)
                total += float(_loss(logits, labels_held))
            losses[strength] = total / len(x)
            last = list(losses.values())[-3:]
            if len(last) == 3 and last[0] < last[1] < last[2]:
                break
    strength = min(losses, key=lambda c: losses[c]) if losses else _DEFAULT
    problem = _Problem(x, labels, num_classes)
    return problem.model(problem.solve(strength, None), strength, losses)


class _Problem:
    """The optimisation problem of some training samples, in coordinates in which it is small.

    With fewer samples than features the optimum lies in the span of the samples, so that n coordinates are enough.
    """

    def __init__(self, x: Tensor, labels: Tensor, num_classes: int) -> None:
        if len(x) == 0:
            raise DataError("logistic regression needs at least one labelled sample")
        x, labels = x.detach().double().cpu(), labels.cpu()
        if not bool(x.isfinite().all()):
            column = int((~x.isfinite()).any(0).nonzero()[0])
            raise DataError(f"logistic regression: feature {column} of the frozen encoders is not finite")
        self.mean = x.mean(0)
        spread = x.std(0, unbiased=False)
        constant = spread <= 1e-9 * x.abs().amax(0).clamp_min(1e-30)
        self.scale = torch.where(constant, torch.ones_like(spread), spread)
        standard = (x - self.mean) / self.scale
        self.rotation: Tensor | None = None
        if standard.shape[1] > len(standard):
            _, _, self.rotation = torch.linalg.svd(standard, full_matrices=False)  # (r, d)
            standard = standard @ self.rotation.T
        self.num_classes = num_classes
        self.several = labels.ndim > 1
        if self.several:
            positive = (labels > 0).double()
            share = positive.mean(0)
            self.fitted = ((share > 0) & (share < 1)).nonzero().flatten()
            self.constant = torch.logit((positive.sum(0) + 0.5) / (len(x) + 1))
            self.target = positive[:, self.fitted].numpy()
        else:
            self.fitted = torch.unique(labels)
            self.target = (labels[:, None] == self.fitted).double().numpy()
        self.x = standard.numpy()

    def solve(self, strength: float, start: np.ndarray | None) -> np.ndarray:
        """Weights and intercepts at the optimum, (r + 1, number of fitted classes)."""
        x, target = self.x, self.target
        (n, r), k = x.shape, target.shape[1]
        if k == 0 or (k == 1 and not self.several):
            return np.zeros((r + 1, k))

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            parameters = flat.reshape(r + 1, k)
            logits = x @ parameters[:-1] + parameters[-1]
            if self.several:
                losses = np.logaddexp(0.0, logits) - target * logits
                error = 1 / (1 + np.exp(-np.clip(logits, -500, 500))) - target
            else:
                logits = logits - logits.max(1, keepdims=True)
                norm = np.log(np.exp(logits).sum(1, keepdims=True))
                losses = target * (norm - logits)
                error = np.exp(logits - norm) - target
            gradient = np.empty_like(parameters)
            gradient[:-1] = x.T @ error / n + parameters[:-1] / (strength * n)
            gradient[-1] = error.sum(0) / n
            value = losses.sum() / n + 0.5 * float((parameters[:-1] ** 2).sum()) / (strength * n)
            return float(value), gradient.ravel()

        first = np.zeros((r + 1) * k) if start is None else start.ravel()
        found = minimize(
            objective, first, jac=True, method="L-BFGS-B", options={"maxiter": 5000, "gtol": 1e-7, "ftol": 1e-13}
        )
        return cast(np.ndarray, found.x.reshape(r + 1, k))

    def model(self, solution: np.ndarray, strength: float, losses: dict[float, float]) -> LogisticModel:
        """The solution in terms of the features."""
        found = torch.from_numpy(solution)
        inner = found[:-1] if self.rotation is None else self.rotation.T @ found[:-1]
        weight = inner.new_zeros(len(self.mean), self.num_classes)
        weight[:, self.fitted] = inner
        if self.several:
            bias = self.constant.clone()
        else:
            lowest = float(found[-1].min()) if found.shape[1] else 0.0
            bias = inner.new_full((self.num_classes,), lowest - _UNSEEN)
        bias[self.fitted] = found[-1]
        return LogisticModel(self.mean, self.scale, weight, bias, strength, losses)


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the losses of some samples; of several labels each sample's is the sum over them."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits, (labels > 0).to(logits), reduction="sum")


def _folds(labels: Tensor, groups: Tensor | None, seed: int) -> Iterator[Tensor]:
    """Masks of the held-out samples: whole groups, otherwise every class spread evenly; none for too few samples."""
    n = len(labels)
    members = torch.arange(n) if groups is None else torch.unique(groups, return_inverse=True)[1]
    count = min(_FOLDS, int(members.max()) + 1) if n else 0
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
