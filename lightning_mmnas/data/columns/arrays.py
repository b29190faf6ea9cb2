"""Columns that are rows of a `.npy` file, read through a memory map."""

import os
import warnings
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import Column, damaged

Array = np.ndarray[Any, np.dtype[Any]]


def open_array(path: Path) -> Array:
    """Opens a `.npy` file of numbers as a memory map; nothing in it is executed.

    Raises:
        DamagedFilesError: The file is missing, cut short, or holds no array of numbers.
    """
    if not path.is_file():
        raise damaged(path, "there is no such file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers of Python 2
            array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # numpy raises dozens of types for damaged files
        text = str(error).strip().splitlines()
        raise damaged(path, f"{type(error).__name__}: {text[0] if text else 'cannot be read'}") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "buif":
        raise damaged(path, f"it holds no numbers but {getattr(array, 'dtype', type(array).__name__)}")
    return array


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
