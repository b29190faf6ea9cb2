"""What predictions and vectors of the test split amount to: confusions, F1, confident errors, two dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

_OFTEN = 100
"""Labels of which a table still says something; of more, the most frequent are kept."""


def confusion(probabilities: Tensor, labels: Tensor) -> list[list[int]]:
    """How often a class (row) was taken for a class (column).

    Args:
        probabilities: Shape (n, num_classes).
        labels: Class indices, shape (n,).

    Examples:
        >>> confusion(torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]]), torch.tensor([0, 1, 1]))
        [[1, 0], [1, 1]]
    """
    count = probabilities.shape[1]
    pairs = labels.long() * count + probabilities.argmax(1)
    table: list[list[int]] = pairs.bincount(minlength=count * count).view(count, count).tolist()
    return table


def most_confused(confusion: Sequence[Sequence[int]], count: int) -> list[tuple[int, int, int]]:
    """The pairs of a true and another, predicted class that are most frequent, each with its number of samples.

    Examples:
        >>> most_confused([[5, 1, 0], [3, 0, 0], [0, 0, 2]], 2)
        [(1, 0, 3), (0, 1, 1)]
    """
    pairs = [(i, j, n) for i, row in enumerate(confusion) for j, n in enumerate(row) if i != j and n]
    return sorted(pairs, key=lambda pair: -pair[2])[:count]


def label_scores(decisions: Tensor, labels: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """F1, precision and recall of every label, the most frequent first.

    Args:
        decisions: 0 or 1, shape (n, num_labels).
        labels: 0 or 1, of the same shape.
        names: Of the labels.
    """
    hits = ((decisions > 0) & (labels > 0)).sum(0).tolist()
    given, there = (decisions > 0).sum(0).tolist(), (labels > 0).sum(0).tolist()
    rows = [
        {
            "label": name,
            "samples": there[k],
            "precision": hits[k] / max(given[k], 1),
            "recall": hits[k] / max(there[k], 1),
            "f1": 2 * hits[k] / max(given[k] + there[k], 1),
        }
        for k, name in enumerate(names)
    ]
    return sorted(rows, key=lambda row: -int(row["samples"]))[:_OFTEN]


def confident_errors(probabilities: Tensor, labels: Tensor, count: int) -> list[dict[str, Any]]:
    """The wrong predictions of highest probability: places, true and predicted class and their probabilities."""
    top, predicted = probabilities.max(1)
    wrong = (predicted != labels).nonzero().flatten()
    order = wrong[top[wrong].argsort(descending=True, stable=True)][:count].tolist()
    return [
        {
            "index": i,
            "true": int(labels[i]),
            "predicted": int(predicted[i]),
            "probability": float(top[i]),
            "probability_of_true": float(probabilities[i, int(labels[i])]),
        }
        for i in order
    ]


def worst_labels(probabilities: Tensor, labels: Tensor, count: int) -> list[dict[str, Any]]:
    """Of multi-label data: the samples with the largest mean binary cross-entropy, and the label that is most wrong."""
    clear = probabilities.clamp(1e-7, 1 - 1e-7)
    losses = torch.nn.functional.binary_cross_entropy(clear, (labels > 0).to(clear), reduction="none")
    order = losses.mean(1).argsort(descending=True, stable=True)[:count].tolist()
    worst = losses.argmax(1).tolist()
    return [
        {
            "index": i,
            "label": worst[i],
            "has_it": bool(labels[i, worst[i]] > 0),
            "probability": float(probabilities[i, worst[i]]),
            "loss": float(losses[i].mean()),
        }
        for i in order
    ]


def largest_errors(predicted: Tensor, true: Tensor, count: int) -> list[dict[str, Any]]:
    """Of a regression: the samples whose prediction is farthest from their target, the farthest first.

    Args:
        predicted: In the target's unit, shape (n,).
        true: Of the same shape.
        count: How many.

    Examples:
        >>> largest_errors(torch.tensor([1.0, 5.0]), torch.tensor([1.5, 2.0]), 1)
        [{'index': 1, 'true': 2.0, 'predicted': 5.0}]
    """
    order = (predicted - true).abs().argsort(descending=True, stable=True)[:count].tolist()
    return [{"index": i, "true": float(true[i]), "predicted": float(predicted[i])} for i in order]


def neighbour_correlation(vectors: Tensor, targets: Tensor, groups: Tensor | None = None) -> float | None:
    """Pearson correlation of targets with those of the most similar other samples (cosine); None where all are equal.

    Args:
        vectors: Shape (n, d), n >= 2.
        targets: Shape (n,).
        groups: See `neighbour_accuracy`.
    """
    pairs = torch.stack([targets.double(), targets.double()[_nearest(vectors, groups)]])
    found = float(torch.corrcoef(pairs)[0, 1])
    return None if math.isnan(found) else found


def two_dimensions(vectors: Tensor) -> tuple[list[list[float]], float]:
    """Projects vectors onto their first two principal components.

    Args:
        vectors: Shape (n, d).

    Returns:
        Coordinates, (n, 2), and the share of the variance that they hold, in [0, 1].

    Examples:
        >>> two_dimensions(torch.tensor([[0.0, 0.0, 1.0], [3.0, 0.0, 1.0], [0.0, 4.0, 1.0]]))[1]
        1.0
    """
    centred = vectors.double() - vectors.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    points = torch.zeros(len(vectors), 2, dtype=torch.float64)
    kept = min(2, len(s))
    points[:, :kept] = u[:, :kept] * s[:kept]
    share = float(s[:2].square().sum() / s.square().sum().clamp(min=1e-300))
    return [[round(x, 4), round(y, 4)] for x, y in points.tolist()], round(share, 6)


def neighbour_accuracy(vectors: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    """How often the most similar other sample (cosine) has the same class; of multi-label data, a label in common.

    Args:
        vectors: Shape (n, d), n >= 2.
        labels: Shape (n,) or (n, num_labels).
        groups: Of the samples, shape (n,): those of one group, such as windows of one recording, are no neighbours,
            unless there is one group only.
    """
    nearest = _nearest(vectors, groups)
    if labels.ndim == 1:
        return float((labels[nearest] == labels).float().mean())
    return float(((labels[nearest] > 0) & (labels > 0)).any(1).float().mean())


def _nearest(vectors: Tensor, groups: Tensor | None) -> Tensor:
    """Place of the most similar other sample, of another group where there are several, (n,)."""
    directions = torch.nn.functional.normalize(vectors.float(), dim=1)
    similar = (directions @ directions.T).fill_diagonal_(-2)
    if groups is not None and bool((groups != groups[0]).any()):
        similar = similar.masked_fill(groups[:, None] == groups, -2)
    return similar.argmax(1)
