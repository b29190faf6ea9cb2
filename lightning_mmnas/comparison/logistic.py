"""Linear models of the features of frozen encoders, logistic or ridge regression: the rivals that need no network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from lightning_mmnas.data.spec import Task
from lightning_mmnas.fusion.readout import SUMMARY, LateFeatures
from lightning_mmnas.objectives.linear import LinearModel
from lightning_mmnas.objectives.mixture import choose_linear

Features = Mapping[str, Tensor]


@dataclass(frozen=True)
class LogisticRival:
    """Logistic (or ridge) regression on the pooled features of some levels.

    Attributes:
        pooled: Features by name -> (n, d).
        model: (n, d) -> logits (n, num_classes), or standardised targets.
    """

    pooled: LateFeatures
    model: LinearModel

    def __call__(self, features: Features) -> Tensor:
        """Features by name -> logits (n, num_classes), or standardised targets."""
        return self.model(self.pooled(features).cpu())


def logistic_rivals(
    train: Features,
    labels: Tensor,
    groups: Tensor | None,
    feature_shapes: Mapping[str, Sequence[int]],
    num_classes: int,
    seed: int,
    task: Task | None = None,
) -> dict[str, LogisticRival]:
    """Fits linear models of pooled features, their strength chosen by cross-validation on the samples at hand.

    ``raw_features`` reads all levels, ``raw_features_deepest`` the deepest level of each modality, and
    ``raw_features:NAME`` all levels of one modality.

    Args:
        train: Features of the training samples by name ``<modality>/<level>``, each (n, c_in, *rest).
        labels: Classes (n,), multi-label targets (n, num_classes), or standardised targets (n, 1).
        groups: Group of each sample, (n,), never divided between folds; None: none.
        feature_shapes: Shapes that the encoders promise, by name.
        num_classes: Number of classes; some may have no training sample.
        seed: Seed of the folds.
        task: The task; ridge regression of a regression.

    Returns:
        The rivals by name.
    """
    names = [name for name in train if not name.endswith(SUMMARY)]
    modality_of = {name: name.rpartition("/")[0] or name for name in names}
    modalities = list(dict.fromkeys(modality_of.values()))
    read = {
        "raw_features": names,
        "raw_features_deepest": list({modality_of[name]: name for name in names}.values()),
        **{f"raw_features:{m}": [name for name in names if modality_of[name] == m] for m in modalities},
    }

    def fitted(chosen: Sequence[str]) -> LogisticRival:
        pooled = LateFeatures(chosen, feature_shapes)
        return LogisticRival(pooled, choose_linear(task, pooled(train), labels, num_classes, groups, seed))

    return {name: fitted(chosen) for name, chosen in read.items()}
