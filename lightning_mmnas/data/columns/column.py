"""Samples that lie in files: one column per modality, read when asked for, checked before they are used."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import default_collate

from lightning_mmnas.data.columns.described import described, is_described, once
from lightning_mmnas.data.samples import LABEL, Batch, Samples, tensor_digest
from lightning_mmnas.data.spec import ModalitySpec, to_unit
from lightning_mmnas.errors import DamagedFilesError, DataError, MissingExtraError

OnError = Literal["raise", "skip"]

Flaws = Mapping[int, Sequence[tuple[str, str]]]
"""By sample: its files or cells that cannot be used, each with the reason."""

_NOT_FINITE = "it holds NaN or infinity"
_NAMED = 5
"""Damaged files that a warning names; the others are counted."""
_MEAN_SAMPLES = 256
"""Samples that a mean is taken over where each must be read from a file."""


class Column(ABC):
    """One modality of n samples.

    `read` raises `DamagedFilesError` (through `damaged`) for a file that is missing or cannot be read; whatever it
    returns has the shape and type of the modality's `ModalitySpec`, and only finite numbers.
    """

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Tensor:
        """Reads one sample."""

    @abstractmethod
    def source(self, index: int) -> str:
        """Where a sample comes from, for messages: its file, or its place in one."""

    @abstractmethod
    def fingerprint(self, index: int) -> str:
        """Text that changes when the sample's source does, without reading all of it."""

    def digest(self, index: int) -> str:
        """Hash of a sample's content; equal for identical files."""
        return tensor_digest(self.read(index))

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Reads several samples, stacked."""
        found: Tensor = default_collate([self.read(index) for index in indices])
        return found

    def check(self, index: int) -> None:
        """Raises `DamagedFilesError` where `read` does; a sample found whole before need not be read again."""
        self.read(index)

    def glance(self, index: int) -> None:
        """Raises `DamagedFilesError` where it is seen at once that `read` would; here the sample is checked."""
        self.check(index)

    def flaws(self) -> Flaws | None:
        """The samples that cannot be used, where that is known without reading each; None: it is not."""
        return None


class TensorColumn(Column):
    """A modality that is in memory.

    Args:
        values: The samples, shape (n, *sample).
        name: What to call it in messages, such as the file it came from.
    """

    def __init__(self, values: Tensor, name: str) -> None:
        self.values = values
        self.name = name

    def __len__(self) -> int:
        return len(self.values)

    def read(self, index: int) -> Tensor:
        """Returns one sample."""
        return self.values[index]

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Returns several samples."""
        return self.values.index_select(0, torch.as_tensor(indices, dtype=torch.long))

    def flaws(self) -> Flaws | None:
        """Samples that hold NaN or infinity."""
        finite = self.values.isfinite().flatten(1).all(1) if self.values.ndim > 1 else self.values.isfinite()
        return {index: [(self.source(index), _NOT_FINITE)] for index in (~finite).nonzero().flatten().tolist()}

    def source(self, index: int) -> str:
        """Name and row."""
        return f"{self.name}, row {index}"

    def fingerprint(self, index: int) -> str:
        """Hash of the values."""
        return tensor_digest(self.values[index])


class FileColumn(Column):
    """A modality of one file per sample.

    Args:
        paths: The files.
        decode: Reads one file; any exception it raises is reported as damage to that file.
        folders: Whether a path may be a folder, whose files are the sample.
    """

    def __init__(self, paths: Sequence[Path], decode: Callable[[Path], Tensor], folders: bool = False) -> None:
        self.paths = list(paths)
        self.folders = folders
        self.decode = decode
        self._reading = described(decode)
        self._is_described = is_described(decode)

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> Tensor:
        """Decodes one file.

        Raises:
            DamagedFilesError: The file is missing, cannot be decoded, or holds NaN or infinity.
            MissingExtraError: A package that the decoder needs is not installed.
        """
        self.glance(index)
        path = self.paths[index]
        try:
            value = self.decode(path)
        except (DamagedFilesError, MissingExtraError):
            raise
        except Exception as error:  # decoders raise dozens of types for damaged files
            raise damaged(path, _reason(error)) from error
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise damaged(path, _NOT_FINITE)
        return value

    def check(self, index: int) -> None:
        """Reads a file, unless it was found whole before by this process and has not changed since."""
        if not self._is_described:
            self.read(index)
            return
        once(self.fingerprint(index), lambda: self.read(index))

    def glance(self, index: int) -> None:
        """Raises where the file is missing."""
        path = self.paths[index]
        if not (path.is_file() or (self.folders and path.is_dir())):
            raise damaged(path, "there is no such file")

    def source(self, index: int) -> str:
        """The file."""
        return str(self.paths[index])

    def fingerprint(self, index: int) -> str:
        """Path, size and time of change of the file, and how it is read."""
        files = self.files(index)
        if not files:
            return f"{self.paths[index]} missing"
        states = [f"{path} {(status := path.stat()).st_size} {status.st_mtime_ns}" for path in files]
        return f"{' '.join(states)} {self._reading}"

    def digest(self, index: int) -> str:
        """Hash of the file's bytes."""
        found = hashlib.blake2b(digest_size=16)
        for path in self.files(index) or [self.paths[index]]:
            found.update(path.read_bytes())
        return found.hexdigest()

    def files(self, index: int) -> list[Path]:
        """The file of a sample, or those of its folder; none where it is missing."""
        path = self.paths[index]
        if self.folders and path.is_dir():
            return sorted(file for file in path.iterdir() if file.is_file())
        return [path] if path.is_file() else []


class KeptColumn(Column):
    """Another column whose samples are kept in memory once they have been read.

    Args:
        column: The other column.
    """

    def __init__(self, column: Column) -> None:
        self.column = column
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.column)

    def read(self, index: int) -> Tensor:
        """Reads one sample, or remembers it."""
        if index not in self._kept:
            self._kept[index] = self.column.read(index)
        return self._kept[index]

    def source(self, index: int) -> str:
        """That of the other column."""
        return self.column.source(index)

    def fingerprint(self, index: int) -> str:
        """That of the other column."""
        return self.column.fingerprint(index)

    def digest(self, index: int) -> str:
        """That of the other column."""
        return self.column.digest(index)


class SelectedColumn(Column):
    """Some samples of another column.

    Args:
        column: The other column.
        rows: Which of its samples, in order.
    """

    def __init__(self, column: Column, rows: Sequence[int]) -> None:
        self.column = column
        self.rows = list(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Tensor:
        """Reads one sample."""
        return self.column.read(self.rows[index])

    def check(self, index: int) -> None:
        """As the other column does."""
        self.column.check(self.rows[index])

    def glance(self, index: int) -> None:
        """As the other column does."""
        self.column.glance(self.rows[index])

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Reads several samples."""
        return self.column.batch([self.rows[index] for index in indices])

    def source(self, index: int) -> str:
        """That of the other column."""
        return self.column.source(self.rows[index])

    def fingerprint(self, index: int) -> str:
        """That of the other column."""
        return self.column.fingerprint(self.rows[index])

    def digest(self, index: int) -> str:
        """That of the other column."""
        return self.column.digest(self.rows[index])


class ColumnSamples(Samples):
    """Samples whose modalities are columns.

    Args:
        columns: One column per modality, all of the same length.
        labels: See `Samples`.
        groups: See `Samples`.
        rows: Of a table, which row each sample is.
    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        labels: Tensor | None = None,
        groups: Tensor | None = None,
        rows: Sequence[int] | None = None,
    ) -> None:
        sizes = {name: len(column) for name, column in columns.items()}
        sizes |= {name: len(values) for name, values in ((LABEL, labels), ("groups", groups)) if values is not None}
        if len(set(sizes.values())) != 1:
            raise DataError(f"all columns need the same number of samples, got {sizes}")
        self.columns = dict(columns)
        self.labels = labels
        self.groups = groups
        self.rows = rows
        self._size = next(iter(sizes.values()))

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Batch:
        sample = {name: column.read(index) for name, column in self.columns.items()}
        if self.labels is not None:
            sample[LABEL] = self.labels[index]
        return sample

    def batch(self, indices: Tensor) -> Batch:
        """Returns the samples at `indices` (shape (b,)), collated."""
        batch: Batch = {}
        for name, column in self.columns.items():
            batch[name] = column.batch(indices.tolist())
        if self.labels is not None:
            batch[LABEL] = self.labels[indices]
        return batch

    def select(self, keys: Sequence[str], indices: Tensor) -> Batch:
        """Reads only the modalities asked for."""
        labels = self.labels if LABEL in keys else None
        return ColumnSamples({n: c for n, c in self.columns.items() if n in keys}, labels).batch(indices)

    def fingerprint(self) -> Iterator[str]:
        """One line per sample and modality; see `Column.fingerprint`."""
        for name, column in self.columns.items():
            yield from (f"{name} {column.fingerprint(i)}" for i in range(len(self)))

    def means(self, modalities: Mapping[str, ModalitySpec]) -> dict[str, Tensor]:
        """Mean of each modality over at most 256 samples drawn with a fixed seed; padding only, for a text."""
        drawn = torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:_MEAN_SAMPLES]
        found = {}
        for name, spec in modalities.items():
            if spec.vocabulary is not None:
                found[name] = torch.full(spec.shape, spec.vocabulary.pad)
                continue
            total = torch.zeros(spec.shape)
            for index in drawn.tolist():
                total += to_unit(self.columns[name].read(index))
            found[name] = total / len(drawn)
        return found


def damaged(source: Path | str, reason: str) -> DamagedFilesError:
    """The error for one file (or place in a file) that cannot be used."""
    return DamagedFilesError([(str(source), reason)])


def usable_rows(
    columns: Mapping[str, Column],
    on_error: OnError,
    split: str | None = None,
    progress: bool = False,
    most: int | None = None,
) -> Tensor:
    """Reads every sample once and finds those that are whole.

    Args:
        columns: All of the same length.
        on_error: "raise": any damage raises, after everything has been read; "skip": damaged samples are left out, with
            a warning that counts them and names the first files.
        split: Name of the split, for the warning; None: there is none.
        progress: Whether to show a progress bar.
        most: Samples that are read where there are more, from all over the split; of the others it is only seen
            whether they are there. None: all.

    Returns:
        Indices of the usable samples, ascending.

    Raises:
        DamagedFilesError: Names the damaged files and their number.
    """
    size = len(next(iter(columns.values())))
    rows: Iterable[int] = range(size)
    if progress:
        from rich.progress import track

        rows = track(rows, "checking files")
    known = {name: column.flaws() for name, column in columns.items()}
    unread = {name: column for name, column in columns.items() if known[name] is None}
    whole = range(size) if most is None or size <= most else {i * size // most for i in range(most)}
    broken: list[tuple[str, str]] = []
    good = []
    for row in rows if unread else range(size):
        before = len(broken)
        for name, column in columns.items():
            if (flaws := known[name]) is not None:
                broken += flaws.get(row, ())
                continue
            try:
                column.check(row) if row in whole else column.glance(row)
            except DamagedFilesError as error:
                broken += error.files
        if len(broken) == before:
            good.append(row)
    if broken and on_error == "raise":
        raise DamagedFilesError(broken)
    if broken and split is not None:
        named = "; ".join(f"{source}: {reason}" for source, reason in broken[:_NAMED])
        more = f"; and {len(broken) - _NAMED} more files" if len(broken) > _NAMED else ""
        rank_zero_warn(f"{size - len(good)} damaged samples of the {split} split are left out: {named}{more}")
    return torch.tensor(good, dtype=torch.long)


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
