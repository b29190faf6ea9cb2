"""Smartwatch recordings of shoulder exercises, shipped inside the PyPI package seglearn."""

import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.samples import LABEL, TensorSamples
from lightning_mmnas.data.splits import group_folds
from lightning_mmnas.errors import ConfigError, DataError, DatasetNotFoundError, MissingExtraError

_SHA256 = "eb122f23cdf06ef6bd6c6c5312958ec5cf9d038e2e6d457b8081662c75a42537"

_SUBJECTS = range(1, 11)

_SENSORS = {"accelerometer": slice(0, 3), "gyroscope": slice(3, 6)}

_EXERCISES = ["PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW"]


class WatchRecordings(NamedTuple):
    """The recordings as they are in the file.

    Attributes:
        signals: One array of shape (t, 6) per recording: acceleration in g along x, y, z, then
            rotation in rad/s about x, y, z, at 50 Hz.
        exercises: Exercise of each recording, 0 to 6.
        subjects: Subject of each recording, 1 to 10.
    """

    signals: list[np.ndarray[Any, np.dtype[np.float64]]]
    exercises: list[int]
    subjects: list[int]


def load_watch() -> WatchRecordings:
    """Reads the 140 recordings out of the installed package seglearn, without importing it.

    Raises:
        MissingExtraError: seglearn is not installed.
        DatasetNotFoundError: Its data file is missing.
        DataError: Its data file is not that of seglearn 1.2.5.
    """
    # Importing seglearn needs pandas, which it does not declare.
    package = importlib.util.find_spec("seglearn")
    if package is None or package.origin is None:
        raise MissingExtraError(
            "the watch recordings are part of the package seglearn, which is not installed; "
            "run: pip install 'lightning-mmnas[demo]'"
        )
    path = Path(package.origin).parent / "data" / "watch_dataset.npy"
    if not path.is_file():
        raise DatasetNotFoundError(
            f"{path} is missing, though seglearn is installed; run: pip install --force-reinstall 'seglearn==1.2.5'"
        )
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != _SHA256:
        raise DataError(
            f"{path} has the SHA-256 {found}, but that of seglearn 1.2.5 is {_SHA256}; it was not "
            "opened. Run: pip install --force-reinstall 'seglearn==1.2.5'"
        )
    # The one pickle in this project: read only after its hash has been found to be the known one.
    content = np.load(path, allow_pickle=True).item()
    return WatchRecordings(
        signals=list(content["X"]),
        exercises=[int(label) for label in content["y"]],
        subjects=[int(subject) for subject in content["subject"]],
    )


class WatchDataModule(MultimodalDataModule):
    """Accelerometer and gyroscope of a smartwatch during seven shoulder exercises.

    Ten subjects did seven physiotherapy exercises with either arm: 140 recordings at 50 Hz, cut
    into overlapping windows, 3,605 of them by default. A sample has "accelerometer" and
    "gyroscope", each of shape (3, window), standardised per channel by mean and standard
    deviation of the training windows. Splits are by subject: 1 to 6 for training, 7 for
    validation, 8 to 10 for test, unless `folds` is given. Groups are recordings.

    The exercises: pendulum (PEN), abduction (ABD), forward elevation (FEL), internal rotation
    (IR), external rotation (ER), trapezius extension (TRAP), upright row (ROW).

    Source: D. M. Burns et al., "Shoulder physiotherapy exercise recognition: machine learning the
    inertial signals from a smartwatch", Physiological Measurement 39 (7), 2018, arXiv:1802.01489.
    Licence: BSD 3-Clause, (c) 2018 David M. Burns; file of the package seglearn 1.2.5.

    Args:
        window: Length of a window in samples of 1/50 s, from 8 on.
        stride: Distance between the beginnings of two windows, in samples.
        folds: Number k of folds by subject; None: the default split.
        fold: Which fold is for test, modulo k, so that it can follow a seed; the first subject of
            the next fold is for validation.
        modalities: See `MultimodalDataModule`, as for all that follow.
        batch_size: Samples per batch.
        num_workers: Worker processes per loader.
        architecture_fraction: Share of the training data for the architecture step.
        architecture_split: "val": the architecture step reads the validation split.
        labels: Whether samples carry `"label"`, the exercise.
        labels_per_class: Label budget; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling and of the architecture split.

    Examples:
        >>> data = WatchDataModule(labels_per_class=5)
        >>> data.modalities["gyroscope"].shape, data.num_classes
        ((3, 128), 7)
    """

    def __init__(
        self,
        window: int = 128,
        stride: int = 64,
        folds: int | None = None,
        fold: int = 0,
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
        if window < 8 or stride < 1:
            raise ConfigError(
                f"window must be at least 8 and stride at least 1, got window={window} and "
                f"stride={stride}; check data.init_args"
            )
        self.window = window
        self.stride = stride
        train, val, test = group_folds(_SUBJECTS, folds, fold if folds is None else fold % folds)
        self.subjects: dict[Split, list[int]] = {"train": train, "val": val, "test": test}
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
        """Accelerometer and gyroscope, (3, window) each."""
        return {name: ModalitySpec("motion", (3, self.window)) for name in _SENSORS}

    @property
    def class_names(self) -> list[str]:
        """The seven exercises."""
        return list(_EXERCISES)

    @property
    def task(self) -> Task:
        """One exercise per window."""
        return "multiclass"

    def _samples(self, split: Split) -> TensorSamples:
        recordings = load_watch()
        windows, labels, groups = self._windows(recordings, self.subjects[split])
        train = windows if split == "train" else self._windows(recordings, self.subjects["train"])[0]
        std, mean = torch.std_mean(train, dim=(0, 2), keepdim=True)
        windows = ((windows - mean) / std).float()
        tensors = {name: windows[:, channels].contiguous() for name, channels in _SENSORS.items()}
        return TensorSamples({**tensors, LABEL: labels}, groups)

    def _windows(self, recordings: WatchRecordings, subjects: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Cuts the recordings of some subjects into windows.

        Returns:
            Windows of shape (n, 6, window) in float64, their exercises (n,), their recordings (n,).
        """
        windows, labels, groups = [], [], []
        for group, (signal, exercise, subject) in enumerate(zip(*recordings, strict=True)):
            if subject not in subjects or len(signal) < self.window:
                continue
            cut = torch.from_numpy(signal).unfold(0, self.window, self.stride)
            windows.append(cut)
            labels.append(torch.full((len(cut),), exercise))
            groups.append(torch.full((len(cut),), group))
        if not windows:
            raise DataError(f"no recording is as long as window={self.window}; check data.init_args.window")
        return torch.cat(windows), torch.cat(labels), torch.cat(groups)
