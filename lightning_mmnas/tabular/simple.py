"""The simple baselines beside a table: late fusion in three forms, single modalities, logistic regression."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.fusion.readout import LateFeatures
from lightning_mmnas.objectives.logistic import choose_logistic
from lightning_mmnas.tabular.protocol import GroupTraining


class Repeats(nn.Module):
    """Several modules of one kind, each with weights of its own: features by name -> (g, b, out_features)."""

    def __init__(self, modules: Sequence[LateFusion]) -> None:
        super().__init__()
        self.members = nn.ModuleList(modules)
        self.out_features = modules[0].out_features

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name -> (g, b, out_features)."""
        return torch.stack([member(features) for member in self.members])


def simple_baselines(training: GroupTraining, repeats: int = 5) -> list[dict[str, Any]]:
    """Trains the simple baselines by the protocol of a table.

    Args:
        training: Data, protocol and seed.
        repeats: Trainings of each, from different first weights; their mean is returned.

    Returns:
        One row per baseline, with the columns of a table that labels decide.
    """
    shapes = training.data.feature_shapes
    modalities = list(dict.fromkeys(name.rpartition("/")[0] for name in shapes))
    kinds: dict[str, dict[str, Any]] = {
        "late_fusion": {},
        "late_fusion_all_levels": {"all_levels": True},
        "late_fusion_linear": {"hidden": None},
        **{f"modality:{name}": {"modalities": [name]} for name in modalities},
    }
    rows = []
    for name, options in kinds.items():
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(training.seed)
            group = Repeats([LateFusion(shapes, **options) for _ in range(repeats)])
        columns = training.with_labels(group, repeats)
        rows.append({"name": name, **{column: statistics.fmean(values) for column, values in columns.items()}})
    rows.append({"name": "raw_features", **_logistic_regression(training)})
    return rows


def _logistic_regression(training: GroupTraining) -> dict[str, float]:
    """Logistic regression on the pooled features of all levels, its strength chosen on the labels at hand.

    No network, no pretraining but the encoders'.
    """
    data = training.data
    pooled = LateFeatures(list(data.feature_shapes), data.feature_shapes)
    train, test = pooled(data.train), pooled(data.test)
    chosen = {f"scratch_{budget}": rows for budget, rows in training.chosen.items()}
    chosen["supervised"] = torch.arange(len(data.train_labels))
    found = {}
    for column, rows in chosen.items():
        groups = None if data.train_groups is None else data.train_groups[rows]
        model = choose_logistic(train[rows], data.train_labels[rows], len(data.class_names), groups, training.seed)
        found[column] = float((model(test).argmax(1) == data.test_labels).float().mean())
    return found
