"""About how much there is to do in each stage of a run, for an estimate of the time left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_mmnas.comparison.settings import ComparisonSettings

_COST = {"encoders": 1.0, "search": 0.8, "candidate": 0.11, "pretrain": 0.65, "finetune": 0.65, "rival": 0.16}
"""Work of one sample in one pass, by what is trained on it, measured with `configs/digits`; that of encoders is 1."""

_RIVALS = 8
"""Networks of a comparison beside random ones, about."""

_CLASSES = 10
"""Classes, where labels are drawn per class before the data are known."""


def workload(
    configs: Mapping[str, Mapping[str, Any]], settings: ComparisonSettings | None, samples: int
) -> dict[str, list[float]]:
    """Work of every stage, in passes of one sample through encoders that are trained; of a search, then its selection.

    Args:
        configs: Settings by stage, by full key; see `changes.flat`.
        settings: Those of the comparison; None: there is none.
        samples: Training samples.
    """
    work: dict[str, list[float]] = {}
    for name, config in configs.items():
        epochs = max(int(config.get("trainer.max_epochs") or 1), 1)
        labels = config.get("data.init_args.labels_per_class")
        total = config.get("data.init_args.labels_total")
        budget = labels * _CLASSES if labels else total or samples
        work[name] = [_COST[name] * epochs * min(budget, samples)]
    if "search" in configs:
        work["search"].append(_COST["candidate"] * _candidates(configs["search"]))
    if "pretrain" in configs and settings is not None:
        told = configs.get("finetune", {}).get("data.init_args.task") == "regression"
        few, every = settings.counts("regression" if told or settings.labels_total is not None else None)
        tuning = few * settings.steps * settings.batch_size + every * settings.steps_all * settings.batch_size_all
        pretraining = work["pretrain"][0] / _COST["pretrain"] * (settings.random_architectures + 1)
        networks = settings.random_architectures + _RIVALS
        work["comparison"] = [_COST["rival"] * (pretraining + networks * settings.draws * tuning)]
    return work


def _candidates(config: Mapping[str, Any]) -> float:
    """Samples times candidates of the selection after a search."""
    for name, value in config.items():
        if name.endswith(".class_path") and str(value).endswith("GenotypeSelection"):
            arguments = f"{name.removesuffix('class_path')}init_args."
            batch = config.get("data.init_args.batch_size") or 1
            candidates = config.get(f"{arguments}num_candidates", 16) * config.get(f"{arguments}steps", 60)
            return float(candidates * batch)
    return 0.0
