"""Where the fine-tuning of every network of a comparison starts, as `FineTuning` in mode "mixture" does it."""

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from lightning_mmnas.comparison.logistic import LogisticRival
from lightning_mmnas.data.spec import Task
from lightning_mmnas.fusion.readout import out_features
from lightning_mmnas.objectives.labelled import Labelled
from lightning_mmnas.objectives.losses import LabelLoss, classification_loss
from lightning_mmnas.objectives.mixture import LinearPath, Mixture, fit_parts

Features = Mapping[str, Tensor]

_CHUNK = 512
"""Samples that pass through a network at once."""


def mixture_start(
    network: nn.Module,
    regression: LogisticRival,
    features: Features,
    labels: Tensor,
    groups: Tensor | None,
    num_classes: int,
    seed: int,
    interpolation: float | None,
    dropout: float,
    task: Task | None = None,
    loss: LabelLoss = classification_loss,
) -> Labelled:
    """A copy of a network under the convex parts of its mixture.

    Args:
        network: Features by name -> (b, out_features).
        regression: Linear model of the same samples, of the features that the network may read.
        features: Of the labelled samples, by name.
        labels: Classes (n,), multi-label targets (n, num_classes), or standardised targets (n, 1).
        groups: Group of each sample, (n,); None: none.
        num_classes: Number of classes.
        seed: Seed of the folds, that of the regression.
        interpolation: See `Mixture`; None: the network was never trained, so its batch norms need statistics first
            and the fine-tuned weights are taken as they are.
        dropout: Before the classifier, in training.
        task: The task.
        loss: Of the task; see `label_loss`.
    """
    body = copy.deepcopy(network)
    device = next(iter(features.values())).device
    classifier = nn.Linear(out_features(body), num_classes).to(device)
    with torch.no_grad():
        if interpolation is None:
            update_bn(_chunks(features, len(labels)), body)
        body.eval()
        vectors = torch.cat([body(chunk) for chunk in _chunks(features, len(labels))])
    parts = fit_parts(regression.model, vectors, labels, num_classes, groups, seed, task)
    path = LinearPath(copy.deepcopy(regression.pooled), num_classes)
    mixture = Mixture(body, classifier, path, 1.0 if interpolation is None else interpolation).to(device)
    mixture.begin(body, classifier, parts)
    return Labelled(body, classifier, dropout, mixture, loss)


def _chunks(features: Features, count: int) -> Iterator[Features]:
    """The features of all samples, some at a time, and never of one sample alone where there are more."""
    for indices in torch.arange(count).tensor_split(-(-count // _CHUNK)):
        yield {name: value[indices[0] : indices[-1] + 1] for name, value in features.items()}
