"""Features computed once: memory-mapped shards of what frozen encoders make of every sample, and who may read them.

A cache knows nothing of encoders: what computes the features is passed in, and what they depend on comes as facts,
short texts by name, which are stored beside them and must be the same when they are read.
"""

import hashlib
import io
import json
import math
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.samples import LABEL, Batch, Samples
from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.errors import CacheError
from lightning_mmnas.files import replacing, write_json
from lightning_mmnas.parsing import parse_json

StoredType = Literal["float16", "float32"]
OnChange = Literal["refuse", "rebuild"]
Encode = Callable[[Batch], Mapping[str, Tensor]]
"""A batch of samples -> features by name, each (b, *shape); random for views, by torch's generators."""

_SHARD_BYTES = 64 * 2**20
_MANIFEST = "manifest.json"
_HEADER_BYTES, _CHECKSUM_BYTES = 128, 4


class FeatureCache:
    """The features of all the samples of a split, plain or as views, in shards of some samples each.

    A shard is one `.npy` of shape (n, views, d), all features of a view side by side, and behind it the checksum of all
    that (CRC-32, 4 bytes, which readers of `.npy` do not look at). It is there as a whole or not at all, so that an
    interrupted build goes on with the shards that are missing, in whatever order, on whatever rank.
    Views are drawn by seed, shard and place in it alone.

    Args:
        folder: Where it is, or will be.
        size: Number of samples.
        shapes: Shape of each feature, without batch, by name.
        views: Views per sample.
        facts: All that the features depend on, by name.
        dtype: What is stored.
        seed: Seed of the views.
        batch_size: Samples that are encoded at once.

    Raises:
        CacheError: `dtype` is another word.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        shapes: Mapping[str, Sequence[int]],
        views: int,
        facts: Mapping[str, str],
        dtype: StoredType = "float32",
        seed: int = 0,
        batch_size: int = 32,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise CacheError(f"dtype {dtype!r} is not 'float16' or 'float32'")
        self.folder = folder
        self.size = size
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.views = views
        self.dtype = np.dtype(dtype)
        self.seed = seed
        self.batch_size = batch_size
        self.width = sum(math.prod(shape) for shape in self.shapes.values())
        row = views * self.width * self.dtype.itemsize
        # Whole batches: what is encoded together does not depend on where shards begin.
        self.shard_size = max(1, _SHARD_BYTES // (row * batch_size)) * batch_size
        self.facts = {
            **facts,
            "samples": str(size),
            "features": json.dumps(self.shapes),
            "views per sample": str(views),
            "stored type": dtype,
            "seed of the views": f"{seed}, {batch_size} samples at once",
        }
        self._open: dict[int, Any] = {}

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.size // self.shard_size)

    def differences(self) -> list[str]:
        """What the features in the folder were made from that is not so now; empty where there are none."""
        path = self.folder / _MANIFEST
        if not path.is_file():
            return ["facts, which no manifest.json tells"] if any(self.folder.glob("shard-*.npy")) else []
        try:
            stored = parse_json(path.read_text(encoding="utf-8"))["facts"]
            names = list(self.facts | stored)
        except (OSError, ValueError, TypeError, KeyError):
            return ["facts, which their manifest.json does not tell"]
        return [
            f"{name} ({_short(stored.get(name))}, now {_short(self.facts.get(name))})"
            for name in names
            if stored.get(name) != self.facts.get(name)
        ]

    def check(self, on_change: OnChange) -> bool:
        """Whether what is in the folder, if anything, may be kept.

        Returns:
            False: it was made from something else, and is to be made anew.

        Raises:
            CacheError: So it is, and `on_change` is "refuse"; names what differs.
        """
        different = self.differences()
        if different and on_change == "refuse":
            raise CacheError(
                f"the features in {self.folder} were made from other {'; '.join(different)}; give on_change=rebuild to "
                "make them anew, or another folder"
            )
        return not different

    def claim(self) -> None:
        """Writes the manifest; features of another one are deleted before."""
        if self.differences():
            (self.folder / _MANIFEST).unlink(missing_ok=True)  # first: an interruption leaves no manifest that is wrong
            for path in self.folder.glob("shard-*.npy"):
                path.unlink()
        if not (self.folder / _MANIFEST).is_file():
            write_json(self.folder / _MANIFEST, {"facts": self.facts})

    def missing(self, rank: int = 0, count: int = 1) -> list[int]:
        """Shards that are not there, or damaged, of those that are a rank's; each of them is read once as a whole."""
        kept = not self.differences()
        return [number for number in range(rank, self.shards, count) if not kept or not self._is_whole(number)]

    def bytes_of(self, shards: Iterable[int]) -> int:
        """What some shards take on the disk."""
        row = self.views * self.width * self.dtype.itemsize
        return sum(self._rows(number) * row + _HEADER_BYTES + _CHECKSUM_BYTES for number in shards)

    def encodings(self, shards: Iterable[int]) -> int:
        """Samples times views of some shards."""
        return sum(self._rows(number) * self.views for number in shards)

    def build(
        self,
        samples: Samples,
        keys: Sequence[str],
        encode: Encode,
        shards: Iterable[int],
        device: torch.device | None = None,
        advance: Callable[[int], None] = lambda done: None,
    ) -> None:
        """Computes some shards; an interruption leaves those that are whole.

        Args:
            samples: The samples of the split.
            keys: The modalities that are encoded.
            encode: Computes the features; the global random state is set for it, and put back.
            shards: Which.
            device: Where `encode` draws random numbers, beside the CPU.
            advance: Called with the number of samples times views after each batch.

        Raises:
            CacheError: Features are of another shape than promised, not finite, or too large for float16.
        """
        devices = [device] if device is not None and device.type == "cuda" else []
        for number in shards:
            shard = np.empty((self._rows(number), self.views, self.width), self.dtype)
            for start in range(0, len(shard), self.batch_size):
                first = number * self.shard_size + start
                batch = samples.select(keys, torch.arange(first, min(first + self.batch_size, self.size)))
                rows = len(next(iter(batch.values())))
                for view in range(self.views):
                    with torch.random.fork_rng(devices=devices), torch.no_grad():
                        torch.manual_seed(_seed(self.seed, first, view))
                        shard[start : start + rows, view] = self._joined(encode(batch), rows)
                advance(rows * self.views)
            content = io.BytesIO()
            np.save(content, shard)
            content.write(_checksum(zlib.crc32(content.getbuffer())))
            with replacing(self._path(number)) as path:
                path.write_bytes(content.getbuffer())
            self._open.pop(number, None)

    def read(self, rows: Tensor, views: Tensor) -> Batch:
        """Features by name, each (b, v, *shape), in the stored type.

        Args:
            rows: Which samples, shape (b,).
            views: Which views of each, shape (b, v).

        Raises:
            CacheError: A shard is missing or damaged.
        """
        found = np.empty((len(rows), views.shape[1], self.width), self.dtype)
        numbers, places = rows.numpy() // self.shard_size, rows.numpy() % self.shard_size
        for number in np.unique(numbers).tolist():
            shard = self._read(number)
            if shard is None:
                raise CacheError(f"{self._path(number)} is missing or damaged; build the feature cache again")
            here = numbers == number
            found[here] = shard[places[here, None], views.numpy()[here]]
        parts = torch.split(torch.from_numpy(found), [math.prod(shape) for shape in self.shapes.values()], dim=2)
        return {
            name: part.reshape(*part.shape[:2], *shape)
            for (name, shape), part in zip(self.shapes.items(), parts, strict=True)
        }

    def __getstate__(self) -> dict[str, Any]:
        """Leaves open files behind on the way to a worker process."""
        return {**self.__dict__, "_open": {}}

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.npy"

    def _rows(self, number: int) -> int:
        return min(self.shard_size, self.size - number * self.shard_size)

    def _is_whole(self, number: int) -> bool:
        if self._read(number) is None:
            return False
        found, left = 0, self._path(number).stat().st_size - _CHECKSUM_BYTES
        with self._path(number).open("rb") as file:
            while block := file.read(min(left, 2**20)):
                found, left = zlib.crc32(block, found), left - len(block)
            return file.read() == _checksum(found)

    def _read(self, number: int) -> Any:
        if number not in self._open:
            shape = (self._rows(number), self.views, self.width)
            shard: Any = None
            with suppress(Exception):  # numpy raises dozens of types for damaged headers
                shard = np.load(self._path(number), mmap_mode="r", allow_pickle=False)
            if shard is None or shard.shape != shape or shard.dtype != self.dtype:
                return None
            self._open[number] = shard
        return self._open[number]

    def _joined(self, features: Mapping[str, Tensor], rows: int) -> Any:
        given = {name: tuple(value.shape) for name, value in features.items()}
        wanted = {name: (rows, *shape) for name, shape in self.shapes.items()}
        if given != wanted:
            raise CacheError(f"encoders gave features of shapes {given}, but promised {wanted}")
        joined = torch.cat([features[name].float().flatten(1) for name in self.shapes], dim=1).cpu().numpy()
        with np.errstate(over="ignore"):
            stored = joined.astype(self.dtype)
        if not np.isfinite(stored).all():
            what = "features that are not finite" if not np.isfinite(joined).all() else "features too large for float16"
            raise CacheError(f"encoders gave {what}; " + ("check the encoders" if "finite" in what else "use float32"))
        return stored


class CachedSamples(Samples):
    """Samples as their features, in place of the raw ones, whose labels, groups and means they keep.

    Args:
        raw: The samples that were encoded.
        plain: Features of the samples as they are; None: there are views only.
        views: Features of augmented views; None: there are none.
    """

    def __init__(self, raw: Samples, plain: FeatureCache | None, views: FeatureCache | None) -> None:
        self.raw = raw
        self.plain = plain
        self.views = views
        self.labels = raw.labels
        self.groups = raw.groups

    def __len__(self) -> int:
        return len(self.raw)

    def __getitem__(self, index: int) -> Batch:
        return {name: value[0] for name, value in self.batch(torch.tensor([index])).items()}

    def batch(self, indices: Tensor) -> Batch:
        """Returns the plain features of the samples at `indices`, and their labels."""
        found = self._read(self.plain, indices, torch.zeros(len(indices), 1, dtype=torch.long))
        batch = {name: value[:, 0] for name, value in found.items()}
        return batch if self.labels is None else {**batch, LABEL: self.labels[indices]}

    def select(self, keys: Sequence[str], indices: Tensor) -> Batch:
        """Returns the features of some modalities (and the labels) of the samples at `indices`."""
        return {name: value for name, value in self.batch(indices).items() if _belongs(name, keys)}

    def select_views(self, keys: Sequence[str], indices: Tensor, views: Tensor) -> Batch:
        """Returns stored views, each (b, v, *feature), of some modalities, and labels (b,)."""
        found = self._read(self.views, indices, views)
        batch = {name: value for name, value in found.items() if _belongs(name, keys)}
        return {**batch, LABEL: self.labels[indices]} if self.labels is not None and LABEL in keys else batch

    def means(self, modalities: Mapping[str, ModalitySpec]) -> dict[str, Tensor]:
        """Means of the raw samples."""
        return self.raw.means(modalities)

    def _read(self, cache: FeatureCache | None, indices: Tensor, views: Tensor) -> Batch:
        if cache is None:
            raise CacheError("these features were not stored: a split has plain ones, views, or both")
        return cache.read(indices, views)


def require_space(folder: Path, needed: int) -> None:
    """Checks that a folder's disk has room.

    Raises:
        CacheError: It has not.
    """
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.is_dir())
    free = shutil.disk_usage(there).free
    if needed > free:
        raise CacheError(
            f"the feature cache in {folder} needs {megabytes(needed)} more, but its disk has {megabytes(free)} left; "
            "store fewer views, float16, give a folder on another disk, or enabled=false: features are then computed "
            "in every step"
        )


def megabytes(count: int) -> str:
    """A number of bytes in MB (10⁶ bytes)."""
    return f"{count / 1e6:,.1f} MB"


def data_digest(samples: Samples, modalities: Mapping[str, ModalitySpec]) -> str:
    """Hash of all samples' fingerprints and of what the modalities look like."""
    state = hashlib.blake2b(repr(sorted(modalities.items())).encode(), digest_size=16)
    raw = samples.raw if isinstance(samples, CachedSamples) else samples
    for line in raw.fingerprint():
        state.update(line.encode() + b"\n")
    return state.hexdigest()


def _belongs(name: str, keys: Sequence[str]) -> bool:
    return (name.rpartition("/")[0] or name) in keys


def _seed(*numbers: int) -> int:
    return int.from_bytes(hashlib.blake2b(repr(numbers).encode(), digest_size=7).digest(), "big")


def _checksum(value: int) -> bytes:
    return value.to_bytes(_CHECKSUM_BYTES, "big")


def _short(fact: Any, length: int = 60) -> str:
    text = "nothing" if fact is None else str(fact)
    return text if len(text) <= length else text[:length] + "…"
