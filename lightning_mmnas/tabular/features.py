"""From the stages of a run to the features that a table is made from: encoders, cache, tensors in memory."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from lightning_mmnas.callbacks.caching import FeatureCaching
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.cache import CachedSamples, FeatureCache
from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.splits import label_budget
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.modules.finetune import FineTuning
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.objectives.losses import is_nt_xent
from lightning_mmnas.tabular.protocol import Protocol, TableData


def checked_search(model: object, data: object) -> tuple[FusionSearch, MultimodalDataModule]:
    """A search stage's model and data, if a table can be made of them.

    Raises:
        ConfigError: They are of another kind.
    """
    if not isinstance(model, FusionSearch) or not isinstance(data, MultimodalDataModule):
        raise ConfigError("a table is made of FusionSearch on a MultimodalDataModule; see configs/avmnist")
    return model, data


def require_classes(task: str | None) -> None:
    """Checks the task of data that a table is to be made of.

    Raises:
        ConfigError: It is another one than one class per sample.
    """
    if task != "multiclass":
        raise ConfigError(f"a table is made of data with one class per sample, and these are {task}")


def make_table_data(
    model: FusionSearch,
    unlabelled: MultimodalDataModule,
    tuning: object,
    labelled: object,
    caching: FeatureCaching,
    budgets: Iterable[int] = (),
) -> tuple[TableData, dict[str, Any]]:
    """Builds what a table is made from: the features of frozen encoders, in memory.

    Args:
        model: The search stage.
        unlabelled: Its data.
        tuning: The fine-tuning stage, a `FineTuning`.
        labelled: Its data, a `MultimodalDataModule`.
        caching: Where features are stored.
        budgets: Labels per class that will be asked for.

    Returns:
        The features, and settings of the stages that the protocol takes over.

    Raises:
        ConfigError: The stages or the data are of another kind than a table can be made of.
        DataError: A class has fewer training samples than a budget asks for.
    """
    if not isinstance(tuning, FineTuning) or not isinstance(labelled, MultimodalDataModule):
        raise ConfigError("a table is made with FineTuning on a MultimodalDataModule; see configs/avmnist")
    require_classes(labelled.task)
    if model.classifier is not None or not is_nt_xent(model.objective) or model.built_with["dropout"]:
        raise ConfigError(
            "a table's networks are trained with NT-Xent and without dropout; set model.init_args.objective to null, "
            "supervised to false and dropout to 0"
        )
    if not labelled.labels:
        raise ConfigError("a table needs labels for its accuracies; set data.init_args.labels of finetune.yaml to true")
    labelled.use_all_labels()
    unlabelled.setup("fit")
    model.take_means(unlabelled)
    labelled.setup("fit")
    labelled.setup("test")
    train, test = labelled.part("train"), labelled.part("test")
    if train.labels is None or test.labels is None:
        raise ConfigError("a table needs labels of the training and of the test split")
    for budget in budgets:
        label_budget(train.labels, budget, 0, labelled.class_names)  # too few samples of a class? then say so now
    caching.prepare(model, unlabelled, ["train", "val"])
    caching.prepare(tuning, labelled, ["train", "test"])
    data = TableData(
        feature_shapes=model.encoders.feature_shapes,
        train_views=_views(labelled, "train", train.indices),
        train=_plain(labelled, "train", train.indices),
        val_views=_views(unlabelled, "val", unlabelled.part("val").indices),
        test=_plain(labelled, "test", test.indices),
        train_labels=train.labels,
        test_labels=test.labels,
        class_names=list(labelled.class_names),
        means=_means(model),
        train_groups=train.groups,
    )
    settings = {
        "temperature": model.built_with["temperature"],
        "readout": tuning.built_with["readout"],
        "pool": model.built_with["pool"],
        "grid": model.built_with["grid"],
        "projection_hidden": model.built_with["projection_hidden"],
        "projection_out": model.built_with["projection_out"],
    }
    return data, settings


def protocol_of(settings: dict[str, Any], **changes: Any) -> Protocol:
    """The protocol with the stages' own settings, and changes."""
    return Protocol(**{**settings, **changes})


def _means(model: FusionSearch) -> dict[str, Tensor]:
    """What modality dropout puts in the place of a feature; features that the cache adds to it included."""
    buffers = dict(model.views.named_buffers(recurse=False))
    return {name.removeprefix("mean_"): value for name, value in buffers.items() if "/" in name}


def _views(data: MultimodalDataModule, split: Split, rows: Tensor) -> dict[str, Tensor]:
    cache = _cached(data, split).views
    assert isinstance(cache, FeatureCache)
    return cache.read(rows, torch.arange(cache.views).expand(len(rows), -1))


def _plain(data: MultimodalDataModule, split: Split, rows: Tensor) -> dict[str, Tensor]:
    cache = _cached(data, split).plain
    assert isinstance(cache, FeatureCache)
    found = cache.read(rows, torch.zeros(len(rows), 1, dtype=torch.long))
    return {name: value[:, 0].float() for name, value in found.items()}


def _cached(data: MultimodalDataModule, split: Split) -> CachedSamples:
    source = data.source(split)
    assert isinstance(source, CachedSamples)
    return source
