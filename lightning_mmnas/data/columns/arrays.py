"""Arrays in `.npy` and `.npz` files; columns that are rows of a `.npy` file, read through a memory map."""

import io
import os
import warnings
import zipfile
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import Column, damaged
from lightning_mmnas.data.columns.content import Source, open_source
from lightning_mmnas.errors import DamagedFilesError

Array = np.ndarray[Any, np.dtype[Any]]


ARRAYS = (".npy", ".npz")
"""Suffixes of files that hold arrays."""


def open_array(path: Path, key: str | None = None) -> Array:
    """Opens a `.npy` file of numbers as a memory map, or reads an array of a `.npz` file; nothing in it is executed.

    Args:
        path: The file.
        key: Name of the array in a `.npz` file; None: it holds only one.

    Raises:
        DamagedFilesError: The file is missing, cut short, holds no array of numbers, or several and none is named.
    """
    if not path.is_file():
        raise damaged(path, "there is no such file")
    return _load(path, key, path)


def is_array(source: Source) -> bool:
    """Whether a file, or its content, is a `.npy` or `.npz` file: by its suffix or its content; a folder is none.

    Raises:
        DamagedFilesError: There is no such file.
    """
    if isinstance(source, Path) and source.is_dir():
        return False
    if isinstance(source, Path) and source.suffix.lower() in ARRAYS:
        return True
    with open_source(source) as stream:
        start = stream.read(6)
        if start == b"\x93NUMPY":
            return True
        if start[:2] != b"PK":
            return False
        try:
            with zipfile.ZipFile(stream) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError):
            return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def array_in(content: bytes, key: str | None = None, source: str = "an array") -> Array:
    """The array in the content of a `.npy` or `.npz` file; see `open_array`.

    Raises:
        DamagedFilesError: As of a file; `source` is what it calls it.
    """
    return _load(io.BytesIO(content), key, source)


def _load(file: Path | io.BytesIO, key: str | None, source: Path | str) -> Array:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers of Python 2
            array = _archived(file, key, source)
            if array is None:
                array = np.load(file, mmap_mode="r" if isinstance(file, Path) else None, allow_pickle=False)
    except DamagedFilesError:
        raise
    except Exception as error:  # numpy raises dozens of types for damaged files
        text = str(error).strip().splitlines()
        if "Python objects" in str(error) or "Object arrays" in str(error):
            raise damaged(source, "it holds Python objects, which are not read; save numbers, of one length") from None
        raise damaged(source, f"{type(error).__name__}: {text[0] if text else 'cannot be read'}") from error
    return numbers_only(array, source)


def _archived(file: Path | io.BytesIO, key: str | None, source: Path | str) -> Any:
    """The array of a `.npz` file; None: it is none. We open it, as numpy leaves damaged archives open."""
    with open(file, "rb") if isinstance(file, Path) else io.BytesIO(file.getbuffer()) as stream:
        if stream.read(2) != b"PK":
            return None
        stream.seek(0)
        with zipfile.ZipFile(stream):  # damaged ones end here
            stream.seek(0)
            with np.load(stream, allow_pickle=False) as archive:
                return archive[_member(source, archive.files, key)]


def numbers_only(array: Any, path: Path | str) -> Array:
    """Refuses what is no array of numbers; `path` is what messages call it."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise damaged(path, f"it holds no numbers but {getattr(array, 'dtype', type(array).__name__)}")
    return array


def finite(array: Array, path: Path | str) -> Array:
    """Copies numbers as float32 where that holds them as they are, else as float64; `path` is what messages call them.

    Raises:
        DamagedFilesError: They are NaN, or infinity in float32.
    """
    exact = array.dtype.kind == "b" or array.dtype.itemsize < (4 if array.dtype.kind in "iu" else 8)
    found = np.array(array, dtype=np.float32 if exact else np.float64)
    if not np.isfinite(found).all() or (not exact and np.abs(found).max(initial=0) > np.finfo(np.float32).max):
        raise damaged(path, "it holds NaN or infinity")
    return found


def _member(path: Path | str, names: list[str], key: str | None) -> str:
    if key is None and len(names) == 1:
        return names[0]
    if key is not None and key in names:
        return key
    held = f"it holds the arrays {names}" if names else "it holds no array"
    raise damaged(path, f"{held}; set key to one of them" if key is None else f"{held}, none is the key {key!r}")


class ArrayColumn(Column):
    """A modality that is rows of a `.npy` file; every process opens the file for itself.

    Args:
        path: The file, of shape (n, ...).
        rows: Which rows are the samples.
        shape: Shape of one sample; a row is reshaped to it.
        scale: What a row, as float32, is multiplied by.

    Raises:
        DamagedFilesError: The file cannot be read, or its rows do not have as many numbers as `shape`.
    """

    def __init__(self, path: Path, rows: Sequence[int], shape: Sequence[int], scale: float = 1.0) -> None:
        self.path = path
        self.rows = list(rows)
        self.shape = tuple(shape)
        self.scale = scale
        self._array: Array | None = open_array(path)
        if self._array.ndim < 2 or prod(self._array.shape[1:]) != prod(self.shape):
            raise damaged(path, f"rows of shape {self._array.shape[1:]} instead of {self.shape}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the map out: a pickled map is a copy of the whole file."""
        return self.__dict__ | {"_array": None}

    def read(self, index: int) -> Tensor:
        """Returns one row, in float32.

        Raises:
            DamagedFilesError: The row holds NaN or infinity.
        """
        if self._array is None:
            self._array = open_array(self.path)
        row = self._array[self.rows[index]].astype(np.float32)
        if not np.isfinite(row).all():
            raise damaged(self.source(index), "it holds NaN or infinity")
        return torch.from_numpy(row).reshape(self.shape) * self.scale

    def source(self, index: int) -> str:
        """File and row."""
        return f"{self.path}, row {self.rows[index]}"

    def fingerprint(self, index: int) -> str:
        """File, row, size and time of change."""
        status = os.stat(self.path)
        return f"{self.source(index)} {status.st_size} {status.st_mtime_ns}"
