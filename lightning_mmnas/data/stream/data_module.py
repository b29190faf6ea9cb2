"""The data module of shards."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import Sampler

from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.samples import Part
from lightning_mmnas.data.stream.index import INDEX, read_index
from lightning_mmnas.data.stream.sampler import ShardSampler
from lightning_mmnas.data.stream.samples import StreamedSamples
from lightning_mmnas.data.stream.source import ShardSource
from lightning_mmnas.errors import ConfigError, DataError

_WHOLE_SHARDS = 20
"""Shards from which on the architecture part is made of whole ones: they meet its share to 2.5 %."""


class StreamDataModule(MultimodalDataModule):
    """Samples in shards that `mmnas stream` has written, on a disk or in a cloud's storage.

    Training reads the shards in an order that depends on seed and epoch alone, each rank its own, and shuffles the
    samples of `shuffle_shards` of them with one another. Validation and test read theirs in order. Without groups and
    with 20 shards or more, the architecture part consists of whole shards; otherwise of whole groups, or samples.

    Args:
        shards: The folder, or `s3://…`, `gs://…`, `hf://datasets/…`, `r2://…` or `azure://…` (extra `stream`).
        cache: Folder where downloads are kept; None: `~/.cache/lightning-mmnas/shards`.
        cache_bytes: Least recently read shards are deleted where all take more; None: never.
        storage_options: Passed on to the storage's client, such as `endpoint_url`. Credentials belong into the
            environment: options are stored with a run's configuration.
        shuffle_shards: Shards whose samples are shuffled with one another, at least 1.
        modalities: See `MultimodalDataModule`, as for all that follow.
        batch_size: Samples per batch.
        num_workers: Worker processes per loader; some, where shards are downloaded or files decoded.
        architecture_fraction: Share of the training data for the architecture step.
        architecture_split: "val": the architecture step reads the validation split.
        labels: Whether samples carry `"label"`.
        labels_per_class: Label budget; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling and of the architecture split.

    Raises:
        ConfigError: An argument is out of range.
        DatasetNotFoundError: There are no shards.
        DataError: They cannot be read.
        MissingExtraError: LitData is needed.
    """

    def __init__(
        self,
        shards: str,
        cache: str | None = None,
        cache_bytes: int | None = None,
        storage_options: dict[str, Any] | None = None,
        shuffle_shards: int = 8,
        modalities: Sequence[str] | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        architecture_fraction: float | None = None,
        architecture_split: Literal["val"] | None = None,
        labels: bool = True,
        labels_per_class: int | None = None,
        label_seed: int = 0,
        seed: int = 0,
    ) -> None:
        for name, value in (("cache_bytes", cache_bytes), ("shuffle_shards", shuffle_shards)):
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}; check data.init_args.{name}")
        self.shards = ShardSource(shards, cache, cache_bytes, storage_options)
        self.index = read_index(self.shards.index, self.shards.place(INDEX))
        self.shuffle_shards = shuffle_shards
        super().__init__(
            modalities=modalities,
            batch_size=batch_size,
            num_workers=num_workers,
            architecture_fraction=architecture_fraction,
            architecture_split=architecture_split,
            labels=labels,
            labels_per_class=labels_per_class,
            label_seed=label_seed,
            seed=seed,
        )

    @property
    def available_modalities(self) -> dict[str, ModalitySpec]:
        """The modalities that the shards hold."""
        return {name: modality.spec() for name, modality in self.index.modalities.items()}

    @property
    def class_names(self) -> list[str]:
        """The classes of the shards."""
        return list(self.index.class_names)

    @property
    def task(self) -> Task | None:
        """Whether a sample has one class or several; None without labels."""
        return self.index.task

    def _samples(self, split: Split) -> StreamedSamples:
        if split not in self.index.splits:
            raise DataError(f"{self.shards.location} has no {split} split, but {list(self.index.splits)}")
        return StreamedSamples(self.shards, split, self.index)

    def _indivisible(self, part: Part) -> Tensor | None:
        """The shard of each sample where that can decide its part; a loader then reads no shard of the other's."""
        source = part.source
        if part.groups is not None or not isinstance(source, StreamedSamples):
            return part.groups
        shards = torch.bucketize(part.indices, torch.tensor(source.shards.starts[1:]), right=True)
        return shards if len(torch.unique(shards)) >= _WHOLE_SHARDS else None

    def _sampler(self, part: Part, shuffle: bool) -> Sampler[Any] | None:
        if not shuffle or not isinstance(part.source, StreamedSamples):
            return super()._sampler(part, shuffle)
        return ShardSampler(part, part.source.shards.starts, self.seed, self.shuffle_shards, *self._ranks)
