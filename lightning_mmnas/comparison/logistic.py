"""Logistic regression on the features of frozen encoders: the rival that needs no network."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lightning_mmnas.fusion.readout import SUMMARY, LateFeatures

Features = Mapping[str, Tensor]


def logistic_regression(
    train: Features, labels: Tensor, feature_shapes: Mapping[str, Sequence[int]], num_classes: int
) -> Callable[[Features], Tensor]:
    """Fits logistic regression on the pooled, standardised features of all levels.

    Args:
        train: Features of the training samples by name, each (n, c_in, *rest).
        labels: Classes (n,), or multi-label targets (n, num_classes).
        feature_shapes: Shapes that the encoders promise, by name.
        num_classes: Number of classes; some may have no training sample.

    Returns:
        Features of other samples -> class probabilities, or for multi-label targets logits, (m, num_classes).
    """
    names = [name for name in train if not name.endswith(SUMMARY)]
    pooled = LateFeatures(names, feature_shapes)
    several = labels.ndim > 1
    model = LogisticRegression(max_iter=1000)
    classifier = make_pipeline(StandardScaler(), OneVsRestClassifier(model) if several else model)
    with warnings.catch_warnings():
        # Few labels may hold nothing of a rare label; its probability is then a constant.
        warnings.filterwarnings("ignore", message="Label .* is present in all training examples")
        warnings.filterwarnings("ignore", message="Label not .* is present in all training examples")
        classifier.fit(pooled(train).cpu().numpy(), labels.numpy())

    def predict(features: Features) -> Tensor:
        probabilities = torch.from_numpy(classifier.predict_proba(pooled(features).cpu().numpy()))
        if several:
            return torch.logit(probabilities, eps=1e-6)
        scores = probabilities.new_zeros(len(probabilities), num_classes)
        scores[:, torch.as_tensor(classifier.classes_)] = probabilities
        return scores

    return predict
