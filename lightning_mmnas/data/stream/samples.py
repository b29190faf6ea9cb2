"""Samples that are read from shards, and what becomes of a record."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from lightning_mmnas.data.samples import LABEL, Batch, Samples
from lightning_mmnas.data.spec import ModalitySpec, Split
from lightning_mmnas.data.stream.index import (
    LABELS_AND_GROUPS,
    SAMPLE_ID,
    STATISTICS,
    StoredModality,
    StreamIndex,
    read_tensors,
)
from lightning_mmnas.data.stream.shards import Shards
from lightning_mmnas.data.stream.source import ShardSource
from lightning_mmnas.data.table.columns import ColumnSpec, read_cell
from lightning_mmnas.data.table.embedded import Content, decode_media
from lightning_mmnas.data.table.standardised import standardise
from lightning_mmnas.errors import DamagedFilesError, DataError


class StreamedSamples(Samples):
    """The samples of one split in shards; none is kept in memory.

    Labels and groups are: 4 bytes each per sample, 8 once they are in use.

    Args:
        source: Where the shards lie.
        split: Which split.
        index: The content of `stream.json`.

    Raises:
        DataError: A file is damaged, or does not fit the others.
    """

    def __init__(self, source: ShardSource, split: Split, index: StreamIndex) -> None:
        self.source = source
        self.modalities = index.modalities
        self.specs = {name: modality.spec() for name, modality in index.modalities.items()}
        self.shards = Shards(source, split, index.splits[split])
        self.statistics = self._tensors(STATISTICS, index)
        stored = index.splits[split]
        if stored.labelled or stored.grouped:
            self._read_labels(f"{split}/{LABELS_AND_GROUPS}", index, split)

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Batch:
        keys = [*self.modalities, LABEL] if self.labels is not None else list(self.modalities)
        return {name: value[0] for name, value in self.select(keys, torch.tensor([index])).items()}

    def batch(self, indices: Tensor) -> Batch:
        """Returns the samples at `indices` (shape (b,)), collated."""
        return self.select([*self.modalities, LABEL], indices)

    def select(self, keys: Sequence[str], indices: Tensor) -> Batch:
        """Reads the samples at `indices` and decodes only the modalities asked for."""
        rows = [self._decoded(index, keys) for index in indices.tolist()]
        batch = {name: torch.stack([row[name] for row in rows]) for name in keys if name != LABEL}
        if LABEL in keys and self.labels is not None:
            batch[LABEL] = self.labels[indices].long()
        return batch

    def id(self, index: int) -> str:
        """The name of a sample, as its table had it; its number where it had none."""
        found = self._record(index).get(SAMPLE_ID)
        return str(index) if found is None else bytes(found.tolist()).decode("utf-8", errors="replace")

    def fingerprint(self) -> Iterator[str]:
        """The checksum of each shard."""
        yield self.source.index.decode("utf-8", errors="replace")
        yield from map(str, self.shards.checksums)

    def means(self, modalities: Mapping[str, ModalitySpec]) -> dict[str, Tensor]:
        """Training means, as they were measured when the shards were written."""
        return {name: self._like_a_sample(name, "training mean") for name in modalities}

    def _tensors(self, name: str, index: StreamIndex) -> dict[str, Tensor]:
        try:
            return read_tensors(self.source.fetch(name)[0], self.source.place(name), index.tensors.get(name))
        except DataError:
            self.source.forget(name)
            raise

    def _read_labels(self, name: str, index: StreamIndex, split: Split) -> None:
        place = self.source.place(name)
        found, stored = self._tensors(name, index), index.splits[split]
        classes = len(index.class_names)
        wanted = (len(self), classes) if index.task == "multilabel" else (len(self),)
        for key, needed, shape in ((LABEL, stored.labelled, wanted), ("groups", stored.grouped, (len(self),))):
            if needed and (key not in found or found[key].shape != shape or found[key].is_floating_point()):
                raise DataError(f"{place} lacks {key} of shape {shape}; write the shards again")
        if stored.labelled:
            labels = found[LABEL]
            least, most = (-1, 1 if index.task == "multilabel" else classes - 1)
            if labels.numel() and not least <= int(labels.min()) <= int(labels.max()) <= most:
                raise DataError(f"{place} has labels that are not from {least} to {most}; write the shards again")
            self.labels = labels.long()
        if stored.grouped:
            self.groups = found["groups"].long()

    def _record(self, index: int) -> dict[str, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self.shards.record(index))
        except SafetensorError as error:
            raise DataError(f"{self.shards.place(index)} holds no tensors: {error}; write the shards again") from None

    def _decoded(self, index: int, keys: Sequence[str]) -> dict[str, Tensor]:
        record = self._record(index)
        found = {}
        for name in keys:
            if name == LABEL:
                continue
            if name not in record:
                raise DataError(f"{self.shards.place(index)} lacks the modality {name!r}; write the shards again")
            modality, spec = self.modalities[name], self.specs[name]
            value = record[name] if modality.files is None else self._from_file(record[name], name, modality, index)
            if tuple(value.shape) != spec.shape or value.dtype != spec.dtype:
                raise DataError(
                    f"{self.shards.place(index)}: {name!r} is {value.dtype} of shape {tuple(value.shape)} instead of "
                    f"{spec.dtype} of shape {spec.shape}; write the shards again"
                )
            found[name] = value
        return found

    def _from_file(self, content: Tensor, name: str, modality: StoredModality, index: int) -> Tensor:
        """A file's suffix, a zero and its bytes, decoded as in a table; nothing stands for an empty cell."""
        assert modality.files is not None
        if not content.numel():
            return self._like_a_sample(name, "fill")
        suffix, _, data = content.numpy().tobytes().partition(b"\0")
        try:
            value = decode_file(suffix.decode("ascii", errors="replace"), data, modality.files)
        except DamagedFilesError as error:
            raise DataError(f"{self.shards.place(index)}: {name!r}: {error.files[0][1]}") from None
        if f"{name}/mean" not in self.statistics:
            return value
        return standardise(value, self._statistic(name, "mean"), self._statistic(name, "std"))

    def _statistic(self, name: str, what: str) -> Tensor:
        if f"{name}/{what}" not in self.statistics:
            raise DataError(f"{self.source.place(STATISTICS)} lacks the {what} of {name!r}; write the shards again")
        return self.statistics[f"{name}/{what}"].clone()

    def _like_a_sample(self, name: str, what: str) -> Tensor:
        value = self._statistic(name, what)
        if tuple(value.shape) != self.specs[name].shape:
            raise DataError(
                f"{self.source.place(STATISTICS)}: the {what} of {name!r} has shape {tuple(value.shape)} instead of "
                f"{self.specs[name].shape}; write the shards again"
            )
        return value


def decode_file(suffix: str, content: bytes, spec: ColumnSpec) -> Tensor:
    """A file in memory as a sample of the modality; see `read_cell`.

    Raises:
        DamagedFilesError: It is not what the kind asks for.
        MissingExtraError: A package that reads it is not installed.
    """
    # Whatever cannot be read is damage of the content, as of a file.
    return decode_media(Content(content, suffix), partial(read_cell, spec=spec), "a file in memory")
