"""Files that lie in the cells of a table: their bytes, what Hugging Face's data sets put there, lists of numbers."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.audio import Waveform
from lightning_mmnas.data.columns.column import Column, FileColumn, damaged
from lightning_mmnas.data.samples import tensor_digest
from lightning_mmnas.data.table.listed import Array, array_of, holds_array
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.errors import DamagedFilesError, MissingExtraError


@dataclass(frozen=True)
class Content:
    """A file in memory.

    Attributes:
        data: Its bytes.
        suffix: What its name ended in, such as ".npy", in lower case; "" where it had none.
    """

    data: bytes
    suffix: str = ""


Media = Path | Content | Waveform | Array
"""What a cell of files holds, or names."""


def is_embedded(cells: Iterable[Any]) -> bool:
    """Whether some cells of a column hold what the others name by a path."""
    return any(cell is not None and (not isinstance(cell, str) or holds_array(cell)) for cell in cells)


def path_in(cell: Any) -> Any:
    """The path of a mapping that has nothing else, as `datasets` leaves it; any other cell as it is."""
    if isinstance(cell, Mapping) and all(cell.get(key) is None for key in ("bytes", "array")):
        return cell.get("path", cell)
    return cell


def media_in(cell: Any, find: Callable[[str], Path]) -> Media:
    """What a cell holds or names.

    Args:
        cell: A path; bytes; or a mapping: of bytes, a path, or both, as `datasets.Image` and `datasets.Audio` have it,
            or of the array and the sampling_rate of a sound; or a list of numbers, or a text that spells one.
        find: Gives the file that a path means.

    Raises:
        ValueError: It is nothing of these.
    """
    if holds_array(cell):
        return array_of(cell)
    if isinstance(cell, str):
        return find(cell)
    if isinstance(cell, Path):
        return cell
    if isinstance(cell, bytes | bytearray | memoryview):
        return Content(bytes(cell))
    if isinstance(cell, list | tuple) and not any(cell):
        raise ValueError("its list is empty")
    if not isinstance(cell, Mapping):
        raise ValueError(f"a {type(cell).__name__} is neither a path, nor the bytes of a file, nor a list of numbers")
    if cell.get("array") is not None:
        return _waveform(cell["array"], cell.get("sampling_rate"))
    name, data = cell.get("path"), cell.get("bytes")
    if isinstance(data, bytes | bytearray | memoryview):
        return Content(bytes(data), PurePosixPath(str(name or "")).suffix.lower())
    if data is not None:
        raise ValueError(f"its bytes are a {type(data).__name__}")
    if isinstance(name, str) and name.strip():
        return find(name)
    raise ValueError(f"it holds neither bytes nor a path, but {sorted(map(str, cell))}")


def source_in(cell: Any, find: Callable[[str], Path]) -> Path | bytes | Waveform | Array | None:
    """What a cell holds or names, for functions that take a file or its content; None where it is nothing of these."""
    try:
        media = media_in(cell, find)
    except ValueError:
        return None
    return media.data if isinstance(media, Content) else media


class EmbeddedColumn(Column):
    """A modality whose files lie in the cells of a table.

    Args:
        table: The table.
        name: The column.
        rows: Which rows are the samples.
        decode: Reads what a cell holds; any exception it raises is reported as damage to that cell.
        find: See `media_in`.
        reading: Text that says how `decode` reads, for fingerprints.
    """

    def __init__(
        self,
        table: Table,
        name: str,
        rows: Sequence[int],
        decode: Callable[[Media], Tensor],
        find: Callable[[str], Path],
        reading: str,
    ) -> None:
        self.table = table
        self.name = name
        self.rows = list(rows)
        self.decode = decode
        self.find = find
        self.reading = reading

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Tensor:
        """Decodes one cell, or the file that it names.

        Raises:
            DamagedFilesError: It cannot be decoded, or holds NaN or infinity; names line and column.
            MissingExtraError: A package that the decoder needs is not installed.
        """
        media = self._media(index)
        if isinstance(media, Path):
            return FileColumn([media], self.decode, folders=True).read(0)
        return decode_media(media, self.decode, self.source(index))

    def source(self, index: int) -> str:
        """File, line and column."""
        return self.table.place(self.rows[index], self.name)

    def fingerprint(self, index: int) -> str:
        """Hash of the content, or the file's own fingerprint; and how it is read."""
        return f"{self._of_media(index, FileColumn.fingerprint)} {self.reading}"

    def digest(self, index: int) -> str:
        """Hash of the content, equal to that of a file with it."""
        return self._of_media(index, FileColumn.digest)

    def _media(self, index: int) -> Media:
        try:
            return media_in(self.table.cell(self.rows[index], self.name), self.find)
        except ValueError as error:
            raise damaged(self.source(index), str(error)) from None

    def _of_media(self, index: int, of_file: Callable[[FileColumn, int], str]) -> str:
        try:
            media = self._media(index)
        except DamagedFilesError as error:  # it is named when it is read
            return str(error)
        if isinstance(media, Path):
            return of_file(FileColumn([media], self.decode, folders=True), 0)
        if isinstance(media, Waveform):
            return f"{tensor_digest(media.samples)} {media.rate}"
        if isinstance(media, np.ndarray):
            return tensor_digest(torch.from_numpy(media))
        return hashlib.blake2b(media.data, digest_size=16).hexdigest()


def decode_media(media: Media, decode: Callable[[Media], Tensor], source: str) -> Tensor:
    """Decodes what is in memory; errors call it `source`.

    Raises:
        DamagedFilesError: It cannot be decoded, or holds NaN or infinity.
        MissingExtraError: A package that the decoder needs is not installed.
    """
    try:
        value = decode(media)
    except MissingExtraError:
        raise
    except DamagedFilesError as error:
        raise damaged(source, error.files[0][1]) from error
    except Exception as error:  # decoders raise dozens of types for damaged files
        raise damaged(source, f"{type(error).__name__}: {error}".splitlines()[0]) from error
    if value.is_floating_point() and not bool(torch.isfinite(value).all()):
        raise damaged(source, "it holds NaN or infinity")
    return value


def _waveform(array: Any, rate: Any) -> Waveform:
    try:
        samples = np.asarray(array, dtype=np.float32)
    except (TypeError, ValueError):
        raise ValueError("its array holds no numbers, or channels of different lengths") from None
    if not isinstance(rate, int) or rate < 1:
        raise ValueError(f"its array has the sampling_rate {rate!r}, not a number of Hz")
    if samples.ndim not in (1, 2) or samples.size == 0:
        raise ValueError(f"its array has shape {samples.shape} instead of (t,) or (channels, t)")
    if samples.ndim == 2 and samples.shape[0] > samples.shape[1]:
        raise ValueError(f"its array of shape {samples.shape} has more channels than moments; channels come first")
    return Waveform(torch.from_numpy(samples.reshape(-1, samples.shape[-1]).copy()), rate)
