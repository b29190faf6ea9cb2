"""MNIST's files, and the degradation of its pictures in AV-MNIST."""

import gzip
import math
import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lightning_mmnas.data.columns.column import damaged
from lightning_mmnas.errors import DatasetNotFoundError

Pictures = np.ndarray[Any, np.dtype[np.uint8]]
Digits = np.ndarray[Any, np.dtype[np.uint8]]
Floats = np.ndarray[Any, np.dtype[np.float32]]

_FOLDERS = (".", "raw", "MNIST/raw")
"""Where the files are below the folder given: torchvision puts them into `MNIST/raw`."""

_MAGIC = {1: 0x0801, 3: 0x0803}
"""First number of an idx file of bytes, by its number of axes."""


class Mnist(NamedTuple):
    """One part of MNIST.

    Attributes:
        images: Shape (n, 28, 28), 0 to 255.
        labels: Shape (n,), 0 to 9.
        files: The two files read.
    """

    images: Pictures
    labels: Digits
    files: tuple[Path, Path]


def read_mnist(folder: Path, part: str) -> Mnist:
    """Reads one part of MNIST from its idx files, packed with gzip or not.

    Args:
        folder: The folder of the files, or torchvision's above it.
        part: "train" or "t10k".

    Raises:
        DatasetNotFoundError: The files are not there.
        DamagedFilesError: A file is cut short or is not what its name says.
    """
    images, labels = _find(folder, f"{part}-images", 3), _find(folder, f"{part}-labels", 1)
    pictures, digits = _read_idx(images, 3), _read_idx(labels, 1)
    if pictures.shape[1:] != (28, 28):
        raise damaged(images, f"pictures of shape {pictures.shape[1:]} instead of (28, 28)")
    if len(pictures) != len(digits):
        raise damaged(labels, f"{len(digits):,} labels for the {len(pictures):,} pictures of {images.name}")
    if len(digits) == 0 or digits.max() > 9:
        raise damaged(labels, "its labels are not the digits 0 to 9")
    return Mnist(pictures, digits, (images, labels))


class Degradation(NamedTuple):
    """What pictures lose: their mean and the leading principal components.

    Attributes:
        mean: Shape (784,).
        components: Orthonormal rows, shape (k, 784).
        energy: Share of the variance that the components held.
    """

    mean: Floats
    components: Floats
    energy: float

    def __call__(self, images: Pictures) -> Floats:
        """Takes mean and components out of pictures (n, 28, 28).

        Returns:
            Shape (n, 784), what is left, r, as 127.5 + r / 2: within 0 to 255, with grey for nothing left.
        """
        rest = images.reshape(len(images), -1).astype(np.float32) - self.mean
        rest -= rest @ self.components.T @ self.components
        return np.clip(127.5 + rest / 2, 0, 255).astype(np.float32)


def fit_degradation(images: Pictures, energy: float) -> Degradation:
    """Finds the fewest leading principal components that hold a share of the variance of pictures.

    Args:
        images: Training pictures, shape (n, 28, 28).
        energy: The share to be removed, in [0, 1); 0: only the mean is.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    mean = flat.mean(0)
    flat -= mean
    variances, vectors = np.linalg.eigh(flat.T @ flat / len(flat))
    shares = np.cumsum(variances[::-1]) / max(variances.sum(), 1e-12)
    count = 0 if energy == 0 else int(np.searchsorted(shares, energy)) + 1
    held = float(shares[count - 1]) if count else 0.0
    return Degradation(mean.astype(np.float32), vectors[:, ::-1][:, :count].T.astype(np.float32), held)


def _find(folder: Path, name: str, axes: int) -> Path:
    names = [f"{name}{dot}idx{axes}-ubyte{gz}" for dot in "-." for gz in ("", ".gz")]
    for below in _FOLDERS:
        for candidate in names:
            if (path := folder / below / candidate).is_file():
                return path
    raise DatasetNotFoundError(
        f"MNIST is not in {folder}: no {names[0]} or {names[1]} there, in raw or in MNIST/raw. Download the four files "
        "from https://ossci-datasets.s3.amazonaws.com/mnist/ (Y. LeCun, C. Cortes and C. Burges; CC BY-SA 3.0), or let "
        "--download do it"
    )


def _read_idx(path: Path, axes: int) -> Pictures:
    """The bytes of an idx file: magic number, lengths of the axes (big-endian), numbers."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except Exception as error:  # gzip and zlib raise several types
        raise damaged(path, f"{type(error).__name__}: {error}") from error
    head = 4 * (axes + 1)
    if len(content) < head:
        raise damaged(path, f"it is cut short: {len(content)} bytes")
    magic, *shape = struct.unpack(f">{axes + 1}I", content[:head])
    if magic != _MAGIC[axes]:
        raise damaged(path, f"not an idx file of bytes with {axes} axes: it begins with {magic:#x}")
    if len(content) != head + math.prod(shape):
        raise damaged(path, f"{len(content) - head:,} bytes for the shape {tuple(shape)}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)
