"""Logistic regression, trained to its optimum, with a strength of regularisation that cross-validation chooses.

The optimum is that of scikit-learn's `LogisticRegression`: C times the sum of the losses plus half the squared norm of
the weights, intercepts free. All labels and all strengths are solved together here, which makes choosing affordable.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController
from torch import Tensor
from torch.nn import functional as F

from lightning_mmnas.objectives.linear import Coordinates, LinearModel, folds

STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Values of C that are tried, from strong to weak regularisation."""

_DEFAULT = 1e-2
"""C where there are too few samples to choose."""

_SMALL = 4_000_000
"""Numbers in the samples up to which one thread of BLAS is faster than several, which wait for each other."""

_EXACT, _CHOSEN, _ROUGH = 1e-6, 1e-5, 1e-3
"""Tolerances of the solver: with a given strength, with the chosen one, and where only the best is sought."""
_UNSEEN = 5.0
"""A class without a training sample has a logit so far below the least likely one that has some."""


def fit_logistic(x: Tensor, labels: Tensor, num_classes: int, strength: float) -> LinearModel:
    """Fits logistic regression with one given strength.

    Args:
        x: Features, (n, d).
        labels: Classes (n,), or 0 and 1 of shape (n, num_classes).
        num_classes: Number of classes; some may have no sample.
        strength: C.

    Raises:
        DataError: There is no sample, or a feature is not finite.
    """
    coordinates = Coordinates(x)
    solution = _Problem(coordinates, labels, num_classes).solve(strength, _EXACT)
    return coordinates.model(*solution.tensors(), strength, {})


def choose_logistic(
    x: Tensor,
    labels: Tensor,
    num_classes: int,
    groups: Tensor | None = None,
    seed: int = 0,
    strengths: Sequence[float] = STRENGTHS,
) -> LinearModel:
    """Fits logistic regression with the strength that is best on held-out folds of the samples at hand.

    The path goes from strong to weak regularisation and ends when the held-out loss has risen twice in a row. With
    too few samples to hold any out, C is 0.01. Held-out samples of a class that no other sample has do not count; their
    rows of ``held_out`` are NaN. The features are standardised once, by all samples at hand.

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
    coordinates = Coordinates(x)
    masks = [(~held, _judged(labels, held)) for held in folds(labels, groups, seed)]
    parts = [(_Problem(coordinates, labels, num_classes, rest), held) for rest, held in masks if bool(held.any())]
    losses: dict[float, float] = {}
    chosen, held_out = _DEFAULT, None
    threads = 1 if coordinates.samples.size <= _SMALL else None
    starts: list[Solution | None] = [None] * len(parts)
    for strength in sorted(strengths) if parts else ():
        logits = torch.full((len(labels), num_classes), torch.nan, dtype=torch.double)
        with _controller().limit(limits=threads):
            for i, (problem, held) in enumerate(parts):
                starts[i] = solution = problem.solve(strength, _ROUGH, starts[i])
                logits[held] = torch.from_numpy(coordinates.samples[held.numpy()] @ solution.weight + solution.bias)
        judged = ~logits.isnan().any(1)
        losses[strength] = float(_loss(logits[judged], labels[judged])) / int(judged.sum())
        if held_out is None or losses[strength] < losses[chosen]:
            chosen, held_out = strength, logits
        last = list(losses.values())[-3:]
        if len(last) == 3 and last[0] < last[1] < last[2]:
            break
    with _controller().limit(limits=threads):
        solution = _Problem(coordinates, labels, num_classes).solve(chosen, _CHOSEN)
    return replace(coordinates.model(*solution.tensors(), chosen, losses), held_out=held_out)


def _judged(labels: Tensor, held: Tensor) -> Tensor:
    """Which held-out samples say something of a model: those of a class that the other samples have.

    Of a class that is one group, or one sample, nothing is learned without it: less confidence would always be better.
    """
    return held if labels.ndim > 1 else held & torch.isin(labels, labels[~held])


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@dataclass(frozen=True)
class Solution:
    """Weights (r, num_classes) in the coordinates of the samples, and intercepts (num_classes,)."""

    weight: np.ndarray
    bias: np.ndarray

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Both as tensors."""
        return torch.from_numpy(self.weight), torch.from_numpy(self.bias)


class _Problem:
    """The optimisation problem of some of the samples."""

    def __init__(self, coordinates: Coordinates, labels: Tensor, num_classes: int, rows: Tensor | None = None) -> None:
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
