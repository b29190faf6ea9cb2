"""Logistic regression, trained to its optimum, with a strength of regularisation that cross-validation chooses.

The optimum is that of scikit-learn's `LogisticRegression`: C times the sum of the losses plus half the squared norm of
the weights, intercepts free. All labels and all strengths are solved together here, which makes choosing affordable.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController
from torch import Tensor
from torch.nn import functional as F

from lightning_mmnas.errors import DataError

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of C that are tried, from strong to weak regularisation."""

_DEFAULT = 1e-2
"""C where there are too few samples to choose."""

_FOLDS, _FOLDS_OF_MANY, _MANY = 5, 3, 2000
"""Folds, and folds of so many samples or more, of which fewer tell as much."""

_SMALL = 4_000_000
"""Numbers in the samples up to which one thread of BLAS is faster than several, which wait for each other."""

_EXACT, _CHOSEN, _ROUGH = 1e-6, 1e-5, 1e-3
"""Tolerances of the solver: with a given strength, with the chosen one, and where only the best is sought."""
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
        held_out: Logits of the training samples, each from the folds without it, at the chosen C, (n, num_classes);
            None where none was chosen.
    """

    mean: Tensor
    scale: Tensor
    weight: Tensor
    bias: Tensor
    strength: float
    losses: dict[float, float]
    held_out: Tensor | None = None

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
    coordinates = _Coordinates(x)
    solution = _Problem(coordinates, labels, num_classes).solve(strength, _EXACT)
    return coordinates.model(solution, strength, {})


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
    too few samples to hold any out, C is 0.01. The features are standardised once, by all samples at hand.

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
    labels = labels.cpu()
    coordinates = _Coordinates(x)
    folds = list(_folds(labels, groups, seed))
    parts = [(_Problem(coordinates, labels, num_classes, ~held), held) for held in folds]
    losses: dict[float, float] = {}
    chosen, held_out = _DEFAULT, None
    threads = 1 if coordinates.samples.size <= _SMALL else None
    starts: list[Solution | None] = [None] * len(parts)
    for strength in sorted(strengths) if parts else ():
        logits = torch.zeros(len(labels), num_classes, dtype=torch.double)
        with _controller().limit(limits=threads):
            for i, (problem, held) in enumerate(parts):
                starts[i] = solution = problem.solve(strength, _ROUGH, starts[i])
                logits[held] = coordinates.logits(solution, held)
        losses[strength] = float(_loss(logits, labels)) / len(labels)
        if held_out is None or losses[strength] < losses[chosen]:
            chosen, held_out = strength, logits
        last = list(losses.values())[-3:]
        if len(last) == 3 and last[0] < last[1] < last[2]:
            break
    with _controller().limit(limits=threads):
        solution = _Problem(coordinates, labels, num_classes).solve(chosen, _CHOSEN)
    return replace(coordinates.model(solution, chosen, losses), held_out=held_out)


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@dataclass(frozen=True)
class Solution:
    """Weights (r, num_classes) in the coordinates of the samples, and intercepts (num_classes,)."""

    weight: np.ndarray
    bias: np.ndarray


class _Coordinates:
    """Standardised samples in the coordinates of their principal axes, of which there are no more than samples.

    A rotation changes neither the losses nor the norm of the weights; along the axes the solver knows how far to go.
    """

    def __init__(self, x: Tensor) -> None:
        if len(x) == 0:
            raise DataError("logistic regression needs at least one labelled sample")
        x = x.detach().double().cpu()
        if not bool(x.isfinite().all()):
            column = int((~x.isfinite()).any(0).nonzero()[0])
            raise DataError(f"logistic regression: feature {column} of the frozen encoders is not finite")
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

    def logits(self, solution: Solution, rows: Tensor) -> Tensor:
        """Logits of some of the samples, (m, num_classes)."""
        return torch.from_numpy(self.samples[rows.numpy()] @ solution.weight + solution.bias)

    def model(self, solution: Solution, strength: float, losses: dict[float, float]) -> LogisticModel:
        """The solution in terms of the features."""
        weight = self.axes @ torch.from_numpy(solution.weight)
        return LogisticModel(self.mean, self.scale, weight, torch.from_numpy(solution.bias), strength, losses)


class _Problem:
    """The optimisation problem of some of the samples."""

    def __init__(self, coordinates: _Coordinates, labels: Tensor, num_classes: int, rows: Tensor | None = None) -> None:
        labels = labels.cpu()
        chosen = labels if rows is None else labels[rows]
        self.x = coordinates.samples if rows is None else coordinates.samples[rows.numpy()]
        self.variance = coordinates.variance
        self.num_classes = num_classes
        self.several = labels.ndim > 1
        if self.several:
            positive = (chosen > 0).double()
            share = positive.mean(0)
            self.fitted = ((share > 0) & (share < 1)).nonzero().flatten().numpy()
            self.constant = torch.logit((positive.sum(0) + 0.5) / (len(chosen) + 1)).numpy()
            self.target = positive[:, self.fitted].numpy()
        else:
            self.fitted = torch.unique(chosen).numpy()
            self.target = (chosen.numpy()[:, None] == self.fitted).astype(float)

    def solve(self, strength: float, tolerance: float, start: Solution | None = None) -> Solution:
        """The optimum, by L-BFGS along the principal axes, each scaled by its curvature at undecided probabilities.

        Args:
            strength: C.
            tolerance: Largest component of the gradient, in the scaled coordinates, at which the solver stops.
            start: Where it starts; None: at zero.
        """
        target = self.target
        n, k = target.shape
        weight, bias = np.zeros((self.x.shape[1], self.num_classes)), self._unseen(np.zeros(k))
        if k == 0 or (k == 1 and not self.several):
            return Solution(weight, bias)
        curvature = 0.25 if self.several else (1 - 1 / k) / k
        unit = 1 / np.sqrt(self.variance * curvature + 1 / (strength * n))
        # Single precision is enough to compare strengths.
        x = (self.x * unit).astype(np.float64 if tolerance <= _CHOSEN else np.float32)
        penalty = (unit**2 / (strength * n))[:, None]

        def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
            parameters = flat.reshape(-1, k)
            inner = parameters[:-1]
            logits = x @ inner.astype(x.dtype) + parameters[-1]
            if self.several:
                losses = np.logaddexp(0.0, logits) - target * logits
                error = 1 / (1 + np.exp(-np.clip(logits, -500, 500))) - target
            else:
                logits = logits - logits.max(1, keepdims=True)
                norm = np.log(np.exp(logits).sum(1, keepdims=True))
                losses = target * (norm - logits)
                error = np.exp(logits - norm) - target
            gradient = np.empty_like(parameters)
            gradient[:-1] = x.T @ error.astype(x.dtype) / n + penalty * inner
            gradient[-1] = error.sum(0) / n
            value = losses.sum() / n + 0.5 * float((penalty * inner**2).sum())
            return float(value), gradient.ravel()

        first = np.zeros((x.shape[1] + 1, k))
        if start is not None:
            first[:-1], first[-1] = start.weight[:, self.fitted] / unit[:, None], start.bias[self.fitted]
        options = {"maxiter": 2000, "gtol": tolerance, "ftol": tolerance**2}
        found = minimize(objective, first.ravel(), jac=True, method="L-BFGS-B", options=options).x.reshape(-1, k)
        weight[:, self.fitted] = found[:-1] * unit[:, None]
        return Solution(weight, self._unseen(found[-1]))

    def _unseen(self, bias: np.ndarray) -> np.ndarray:
        """Intercepts of all classes: of labels that all samples have or none has, of classes without a sample."""
        lowest = float(bias.min()) if len(bias) else 0.0
        full = self.constant.copy() if self.several else np.full(self.num_classes, lowest - _UNSEEN)
        full[self.fitted] = bias
        return full


def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the losses of some samples; of several labels each sample's is the sum over them."""
    if labels.ndim == 1:
        return F.cross_entropy(logits, labels, reduction="sum")
    return F.binary_cross_entropy_with_logits(logits, (labels > 0).to(logits), reduction="sum")


def _folds(labels: Tensor, groups: Tensor | None, seed: int) -> Iterator[Tensor]:
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
