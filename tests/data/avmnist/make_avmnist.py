"""Small files in the layouts of AV-MNIST, MNIST and the Free Spoken Digit Dataset."""

import gzip
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.data.columns.test_audio import write_wav

Array = np.ndarray[Any, np.dtype[Any]]


def make_avmnist(root: Path, train: int = 60, test: int = 20, images: str = "images") -> Path:
    """The layout of MFAS ("images") or MultiBench ("image"): the digit shows in both modalities."""
    random = np.random.default_rng(0)
    for part, size in (("train", train), ("test", test)):
        labels = np.arange(size) % 10
        pictures = random.uniform(0, 100, (size, 784)).astype(np.float32)
        sounds = random.integers(0, 100, (size, 112, 112), dtype=np.uint8)
        for i, digit in enumerate(labels):
            pictures[i, 70 * digit : 70 * digit + 60] += 150
            sounds[i, 11 * digit : 11 * digit + 9] += 150
        for name, values in ((images, pictures), ("audio", sounds)):
            (root / name).mkdir(parents=True, exist_ok=True)
            np.save(root / name / f"{part}_data.npy", values)
        np.save(root / f"{part}_labels.npy", labels)
    return root


def make_mnist(root: Path, train: int = 120, test: int = 30, packed: bool = True) -> Path:
    """The idx files of MNIST: bars whose place is the digit."""
    random = np.random.default_rng(1)
    root.mkdir(parents=True, exist_ok=True)
    for part, size in (("train", train), ("t10k", test)):
        labels = (np.arange(size) % 10).astype(np.uint8)
        images = random.integers(0, 60, (size, 28, 28), dtype=np.uint8)
        for i, digit in enumerate(labels):
            images[i, 2 * digit : 2 * digit + 8] += 150
        write_idx(root / f"{part}-images-idx3-ubyte", images, packed)
        write_idx(root / f"{part}-labels-idx1-ubyte", labels, packed)
    return root


def write_idx(path: Path, values: Array, packed: bool = False) -> Path:
    content = struct.pack(f">{values.ndim + 1}I", 0x0800 + values.ndim, *values.shape) + values.tobytes()
    path = path.with_name(f"{path.name}.gz") if packed else path
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def make_fsdd(root: Path, takes: tuple[int, ...] = (0, 3, 5, 9, 10, 11, 49)) -> Path:
    """Recordings `{digit}_{speaker}_{take}.wav` of half a second: a tone whose pitch is the digit."""
    root.mkdir(parents=True, exist_ok=True)
    time = torch.arange(4000) / 8000
    for digit in range(10):
        for take in takes:
            tone = 0.3 * torch.sin(2 * math.pi * (300 + 200 * digit + take / 5) * time)
            write_wav(root / f"{digit}_jackson_{take}.wav", tone.unsqueeze(0))
    return root
