"""Writes the samples of a data module as shards."""

import json
import os
import re
import shutil
import tempfile
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.columns.column import Column, ColumnSamples, FileColumn, KeptColumn, SelectedColumn
from lightning_mmnas.data.samples import LABEL, Samples, seeded
from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.stream.index import (
    INDEX,
    LABELS_AND_GROUPS,
    SAMPLE_ID,
    SHARD_INDEX,
    STATISTICS,
    StoredModality,
    StoredSplit,
    StreamIndex,
    read_shard_index,
)
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.data.table.standardised import StandardisedColumn
from lightning_mmnas.errors import ConfigError, MissingExtraError, RunDirectoryError
from lightning_mmnas.files import write_bytes, write_text

Files = Literal["auto", "encoded", "decoded"]

_LOOKED_AT = 256
"""Samples whose files decide which form is smaller."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        index: The content of `stream.json`.
        forms: How each modality lies in the shards, "files" or "tensors", and its mean bytes per sample.
    """

    index: StreamIndex
    forms: dict[str, tuple[str, float]]


def write_shards(
    data: MultimodalDataModule,
    folder: Path,
    splits: Sequence[Split] | None = None,
    files: Files = "auto",
    shard_bytes: int = 64_000_000,
    seed: int = 0,
    made_by: Mapping[str, Any] | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> Written:
    """Writes the splits of a data module, each in a random order; the folder is there as a whole or not at all.

    Args:
        data: The samples; their labels are written where there are any.
        folder: A new folder.
        splits: Which splits; None: all, but those of a table that have no rows.
        files: How picture, sound, video and array files of a table lie in the shards: as they are ("encoded"), as the
            tensors they become ("decoded"), or in the smaller form of the two ("auto").
        shard_bytes: Greatest size of a shard; a single larger sample is a shard of its own.
        seed: Of the order.
        made_by: What to note in `stream.json` of how the shards were made.
        advance: Called with 1 after each sample.

    Raises:
        ConfigError: An argument is out of range.
        DataError: There is no sample, or one is damaged.
        RunDirectoryError: The folder exists or cannot be written.
        MissingExtraError: LitData is needed.
    """
    if shard_bytes < 1000 or shard_bytes >= 2**32 or seed < 0:
        raise ConfigError(
            f"a shard has 1,000 to {2**32 - 1:,} bytes and the seed is at least 0, got --shard-bytes {shard_bytes} and "
            f"--seed {seed}"
        )
    if folder.exists() or folder.is_symlink():
        raise RunDirectoryError(f"{folder} exists; nothing was changed. Choose a new folder as --output")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            written = _Writer(data, temporary, splits, files, shard_bytes, seed, advance).write(made_by or {})
            temporary.chmod(0o755)
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        if isinstance(error, RunDirectoryError) or error.errno is None:
            raise
        raise RunDirectoryError(f"cannot write {folder}: {error.strerror or error}; choose another folder") from error
    return written


def left_behind(folder: Path) -> list[Path]:
    """Hidden folders beside one of shards: of writings that were killed, or that are not yet finished."""
    if not folder.parent.is_dir():
        return []
    found = re.compile(re.escape(f".{folder.name}.") + r"[a-z0-9_]{8}")  # as `tempfile` names them
    return sorted(path for path in folder.parent.iterdir() if found.fullmatch(path.name) and path.is_dir())


class _Writer:
    def __init__(
        self,
        data: MultimodalDataModule,
        folder: Path,
        splits: Sequence[Split] | None,
        files: Files,
        shard_bytes: int,
        seed: int,
        advance: Callable[[int], None],
    ) -> None:
        if data.task == "regression":
            raise ConfigError("shards hold classes, not the targets of a regression; train from the table itself")
        self.data = data
        self.folder = folder
        self.shard_bytes = shard_bytes
        self.seed = seed
        self.advance = advance
        every: tuple[Split, ...] = ("train", "val", "test")
        there = [split for split in every if not isinstance(data, TableDataModule) or data.rows[split]]
        self.splits = there if splits is None else [split for split in every if split in splits]
        if "train" not in self.splits:
            raise ConfigError(f"shards need a train split, got {self.splits}")
        data.build("train")
        self.encoded = {name for name in data.modalities if files != "decoded" and self._pays(name, files)}
        self.bytes = dict.fromkeys(data.modalities, 0)
        self.tensors: dict[str, int] = {}

    def write(self, made_by: Mapping[str, Any]) -> Written:
        self._write_statistics()
        splits: dict[Split, StoredSplit] = {}
        for number, split in enumerate(self.splits):
            self.data.build(split)
            splits[split] = self._write_split(split, self.data.source(split), seeded(self.seed, number))
        modalities = {
            name: StoredModality.of(spec, self._declared(name) if name in self.encoded else None)
            for name, spec in self.data.modalities.items()
        }
        index = StreamIndex(
            modalities=modalities,
            class_names=self.data.class_names,
            task=self.data.task,
            splits=splits,
            tensors=self.tensors,
            made_by={**made_by, "seed": self.seed},
        )
        write_text(self.folder / INDEX, index.model_dump_json(indent=2) + "\n")
        count = sum(split.samples for split in splits.values())
        form = {name: "files" if name in self.encoded else "tensors" for name in modalities}
        return Written(index, {name: (form[name], self.bytes[name] / count) for name in modalities})

    def _write_split(self, split: Split, samples: Samples, generator: torch.Generator) -> StoredSplit:
        order = torch.randperm(len(samples), generator=generator)
        folder = self.folder / split
        cache = _cache(folder, self.shard_bytes)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="An item was larger than the target chunk size")
            for place, index in enumerate(order.tolist()):
                cache[place] = self._record(samples, split, index)
                self.advance(1)
            cache.done()
            cache.merge()
        for path in folder.iterdir():
            if path.name != SHARD_INDEX and path.suffix != ".bin":
                path.unlink()
        self._write_labels(folder, samples, order)
        checksums, size = [], 0
        for shard in json.loads((folder / SHARD_INDEX).read_text())["chunks"]:
            content = (folder / shard["filename"]).read_bytes()
            checksums.append(zlib.crc32(content))
            size += len(content)
        stored = StoredSplit(
            samples=len(samples),
            bytes=size,
            checksums=checksums,
            labelled=samples.labels is not None,
            grouped=samples.groups is not None,
        )
        read_shard_index(folder / SHARD_INDEX, str(folder / SHARD_INDEX), stored)  # what LitData wrote is what we read
        return stored

    def _write_labels(self, folder: Path, samples: Samples, order: Tensor) -> None:
        from safetensors.torch import save

        values = {LABEL: samples.labels, "groups": samples.groups}
        found = {name: value[order].int().contiguous() for name, value in values.items() if value is not None}
        if found:
            self._write_tensors(f"{folder.name}/{LABELS_AND_GROUPS}", save(found))

    def _write_statistics(self) -> None:
        from safetensors.torch import save

        means = self.data.modality_means()
        found = {f"{name}/training mean": mean.clone() for name, mean in means.items()}
        if isinstance(self.data, TableDataModule):
            for name in self.encoded:
                mean, std, fill = self.data.statistics[name]
                found[f"{name}/fill"] = fill.clone()
                if mean is not None and std is not None:
                    found |= {f"{name}/mean": mean.clone(), f"{name}/std": std.clone()}
        self._write_tensors(STATISTICS, save(found))

    def _write_tensors(self, name: str, content: bytes) -> None:
        write_bytes(self.folder / name, content)
        self.tensors[name] = zlib.crc32(content)

    def _record(self, samples: Samples, split: Split, index: int) -> bytes:
        from safetensors.torch import save

        plain = [name for name in self.data.modalities if name not in self.encoded]
        batch = samples.select(plain, torch.tensor([index])) if plain else {}
        record = {name: value[0].clone() for name, value in batch.items()}
        for name in self.encoded:
            assert isinstance(samples, ColumnSamples)
            record[name] = _file_content(samples.columns[name], index)
        for name, value in record.items():
            self.bytes[name] += value.nbytes
        if (text := self._id(samples, split, index)) is not None:
            record[SAMPLE_ID] = torch.tensor(list(text.encode()), dtype=torch.uint8)
        return save(record)

    def _id(self, samples: Samples, split: Split, index: int) -> str | None:
        """The cell of the id column; of a table without one, the line."""
        if not isinstance(self.data, TableDataModule) or not isinstance(samples, ColumnSamples):
            return None
        column = next(iter(samples.columns.values()))
        row = self.data.rows[split][column.rows[index] if isinstance(column, SelectedColumn) else index]
        table = self.data.content
        return str(table.line(row) if self.data.id is None else table.cell(row, self.data.id))

    def _declared(self, name: str) -> Any:
        assert isinstance(self.data, TableDataModule)
        return self.data.declared[name]

    def _pays(self, name: str, files: Files) -> bool:
        """Whether a modality lies in files that are to be stored as they are."""
        samples = self.data.source("train")
        if not isinstance(self.data, TableDataModule) or not isinstance(samples, ColumnSamples):
            return False
        column = samples.columns[name]
        paths = [path for i in range(min(len(column), _LOOKED_AT)) if (path := file_of(column, i)) is not None]
        if not paths or any(path.is_dir() for path in paths):  # a folder of frames is no file
            return False
        spec = self.data.available_modalities[name]
        tensors = np.prod(spec.shape) * spec.dtype.itemsize
        return files == "encoded" or sum(path.stat().st_size for path in paths) / len(paths) < tensors


def file_of(column: Column, index: int) -> Path | None:
    """The file that a sample of a column is read from; None where it is from none."""
    if isinstance(column, SelectedColumn):
        return file_of(column.column, column.rows[index])
    if isinstance(column, KeptColumn):
        return file_of(column.column, index)
    if isinstance(column, StandardisedColumn):
        place = column.places[index]
        return None if place is None else file_of(column.column, place)
    return column.paths[index] if isinstance(column, FileColumn) else None


def _file_content(column: Column, index: int) -> Tensor:
    """A file's suffix, a zero and its bytes; nothing for an empty cell."""
    path = file_of(column, index)
    content = b"" if path is None else path.suffix.lower().encode() + b"\0" + path.read_bytes()
    return (
        torch.from_numpy(np.frombuffer(bytearray(content), np.uint8)) if content else torch.empty(0, dtype=torch.uint8)
    )


def _cache(folder: Path, shard_bytes: int) -> Any:
    try:
        from litdata.streaming import Cache
    except ImportError as error:
        raise MissingExtraError(
            "writing shards needs the package litdata; run: pip install 'lightning-mmnas[stream]'"
        ) from error
    folder.mkdir()
    return Cache(str(folder), chunk_bytes=shard_bytes)
