"""What a folder of shards says of itself: `stream.json`, the index of each split, and small files of tensors.

    stream.json                  modalities, classes, splits, checksums, how it was made; written last
    statistics.safetensors       training means, and what encoded files are standardised by
    train/index.json             LitData's index: the shards, their bytes and samples
    train/chunk-0-0.bin, ...     LitData's shards; a sample is one `bytes` leaf, in it the tensors as safetensors
    train/samples.safetensors    labels and groups of all samples, where there are any

Nothing in it can run code when it is read: JSON, safetensors, and raw bytes that are decoded as in a table.
"""

import math
import re
import zlib
from pathlib import Path
from reprlib import repr as shown
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from lightning_mmnas.data.names import flaw
from lightning_mmnas.data.spec import Kind, ModalitySpec, Split, Task, Vocabulary
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.parsing import parse_json

INDEX = "stream.json"
STATISTICS = "statistics.safetensors"
LABELS_AND_GROUPS = "samples.safetensors"
SHARD_INDEX = "index.json"
SAMPLE_ID = ".id"
"""Key of a sample's name in its record; no modality has a dot in its name."""

_SHARD_NAME = re.compile(r"chunk-\d+-\d+\.bin")
_LARGEST = 2**32
"""Bytes that a sample of a modality may have."""
_DTYPES = {"uint8": torch.uint8, "int64": torch.int64, "float32": torch.float32, "float64": torch.float64}

Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class StoredVocabulary(_Strict):
    """A `Vocabulary`."""

    size: Count
    pad: int
    unknown: int
    mask: int
    special: list[int]


class StoredModality(_Strict):
    """A modality: what a sample looks like once it has been read, and how it lies in the shards.

    Attributes:
        files: Where files lie in the shards as they are: how one becomes a sample; None: samples are tensors.
    """

    kind: Kind
    shape: list[Count]
    dtype: Literal["uint8", "int64", "float32", "float64"]
    vocabulary: StoredVocabulary | None = None
    files: ColumnSpec | None = None

    def spec(self) -> ModalitySpec:
        """What one sample looks like."""
        words = self.vocabulary
        known = None
        if words is not None:
            known = Vocabulary(words.size, words.pad, words.unknown, words.mask, tuple(words.special))
        return ModalitySpec(self.kind, tuple(self.shape), _DTYPES[self.dtype], known)

    @classmethod
    def of(cls, spec: ModalitySpec, files: ColumnSpec | None) -> "StoredModality":
        """How a modality is stored."""
        words = spec.vocabulary
        known = None
        if words is not None:
            known = StoredVocabulary(
                size=words.size, pad=words.pad, unknown=words.unknown, mask=words.mask, special=list(words.special)
            )
        dtype: Any = str(spec.dtype).removeprefix("torch.")
        return cls(kind=spec.kind, shape=list(spec.shape), dtype=dtype, vocabulary=known, files=files)


class StoredSplit(_Strict):
    """A split.

    Attributes:
        samples: Their number.
        bytes: What its shards take.
        checksums: CRC-32 of each shard, in order.
        labelled: Whether there are labels.
        grouped: Whether there are groups.
    """

    samples: Count
    bytes: Count
    checksums: list[int]
    labelled: bool
    grouped: bool


class StreamIndex(_Strict):
    """The content of `stream.json`.

    Attributes:
        tensors: CRC-32 of each file of tensors, by its name in the folder; shards of early days have none.
    """

    format: Literal["lightning-mmnas shards"] = "lightning-mmnas shards"
    version: Literal[1] = 1
    modalities: dict[str, StoredModality]
    class_names: list[str]
    task: Task | None
    splits: dict[Split, StoredSplit]
    tensors: dict[str, int] = {}
    made_by: dict[str, Any]


class ShardFile(_Strict):
    """A shard: its name in the split's folder, its bytes and its samples."""

    filename: str
    chunk_bytes: Count
    chunk_size: Count


def read_index(content: bytes, place: str) -> StreamIndex:
    """Reads `stream.json`.

    Raises:
        DataError: It is none, or of another version; names the place in it.
    """
    try:
        index = StreamIndex.model_validate_json(content)
        for name, modality in index.modalities.items():
            _check_modality(name, modality)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise DataError(f"{place} is no index of shards: {where}: {first['msg']}; write it with mmnas stream") from None
    except (DataError, ConfigError) as error:
        raise DataError(f"{place} is no index of shards: {error}; write it with mmnas stream") from None
    if (index.task is None) != (not index.class_names):
        raise DataError(f"{place} is no index of shards: task {index.task} with classes {index.class_names[:5]}")
    return index


def _check_modality(name: str, modality: StoredModality) -> None:
    spec, files = modality.spec(), modality.files
    if (reason := flaw(name)) is not None:
        raise DataError(f"{name!r} cannot be the name of a modality: {reason}")
    if math.prod(spec.shape) * spec.dtype.itemsize > _LARGEST:
        raise DataError(f"a sample of {name!r} has the shape {spec.shape}, more than {_LARGEST} bytes")
    if files is not None:
        files.check(name)
        read = files.modality()
        if (read.kind, read.shape, read.dtype) != (spec.kind, spec.shape, spec.dtype):
            raise DataError(f"files of {name!r} become {read}, not {spec}")


def read_shard_index(path: Path, place: str, split: StoredSplit) -> list[ShardFile]:
    """Reads LitData's index of a split.

    Raises:
        DataError: It is none, does not fit `stream.json`, or names anything but shards of plain bytes: LitData would
            read others with pickle.
    """
    try:
        content = parse_json(path.read_bytes())
        config, chunks = dict(content["config"]), list(content["chunks"])
        found = [
            ShardFile(filename=c["filename"], chunk_bytes=c["chunk_bytes"], chunk_size=c["chunk_size"]) for c in chunks
        ]
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise DataError(f"{place} is no index of LitData's: {str(error).splitlines()[0]}") from None
    format_, compression = config.get("data_format"), config.get("compression")
    if format_ != ["bytes"] or compression is not None or config.get("encryption") is not None:
        raise DataError(
            f"{place}: samples are stored as {shown(format_)}, compression {shown(compression)}; only plain "
            "['bytes'] are read, as mmnas stream writes them: others may run code"
        )
    for file in found:
        if not _SHARD_NAME.fullmatch(file.filename):
            raise DataError(f"{place}: {shown(file.filename)} is no name of a shard")
    sizes = (len(found), sum(file.chunk_size for file in found), sum(file.chunk_bytes for file in found))
    promised = (len(split.checksums), split.samples, split.bytes)
    if sizes != promised:
        raise DataError(
            f"{place} has {sizes[0]} shards, {sizes[1]} samples and {sizes[2]} bytes, but {INDEX} promises "
            f"{promised[0]}, {promised[1]} and {promised[2]}; write the shards again"
        )
    return found


def read_tensors(path: Path, place: str, checksum: int | None = None) -> dict[str, Tensor]:
    """Reads a file of tensors.

    Args:
        path: The file.
        place: What to call it in messages.
        checksum: Its CRC-32, if that is known.

    Raises:
        DataError: It is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        content = path.read_bytes()
        if checksum is not None and zlib.crc32(content) != checksum:
            raise ValueError("its checksum is another")
        return load(content)
    except (SafetensorError, OSError, ValueError) as error:
        raise DataError(f"{place} is damaged: {error}; copy it again, or write the shards again") from None
