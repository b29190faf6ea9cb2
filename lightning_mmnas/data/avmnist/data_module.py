"""AV-MNIST: pictures and spoken recordings of digits, both degraded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.columns.arrays import Array, ArrayColumn, open_array
from lightning_mmnas.data.columns.column import Column, ColumnSamples, OnError, damaged, usable_rows
from lightning_mmnas.errors import ConfigError, DataError, DatasetNotFoundError
from lightning_mmnas.parsing import parse_json

MANIFEST = "manifest.json"

_SHAPES = {"image": (1, 28, 28), "audio": (1, 112, 112)}

_IMAGES = ("images", "image")
"""The folder of the images, as MFAS and as MultiBench call it."""

_CLASSES = 10


class AVMNISTDataModule(MultimodalDataModule):
    """AV-MNIST in the layout of MFAS and MultiBench: pictures of digits with spectrograms of spoken ones.

    A folder with `images/` (or `image/`) and `audio/`, each with `train_data.npy` and `test_data.npy`, and with
    `train_labels.npy` and `test_labels.npy`. The official files have 60,000 and 10,000 samples; `mmnas prepare avmnist`
    writes the same layout from MNIST and the Free Spoken Digit Dataset, with `manifest.json` beside it, and
    `train_pairs.npy` and `test_pairs.npy` (which picture, which recording), by which recordings are groups.

    A sample has "image", shape (1, 28, 28), and "audio", a spectrogram of shape (1, 112, 112), frequencies by time;
    both float32: the numbers of the files, 0 to 255, whether whole or not, divided by 255.

    Source: V. Vielzeuf et al., "CentralNet: a multilayer approach for multimodal fusion", ECCV Workshops 2018,
    arXiv:1808.07275; layout: J.-M. Pérez-Rúa et al., "MFAS", CVPR 2019, and P. P. Liang et al., "MultiBench", NeurIPS
    2021, which takes the last 5,000 training samples for validation.
    Licence: MNIST is CC BY-SA 3.0, the Free Spoken Digit Dataset CC BY-SA 4.0; the recordings of the official files are
    those of TIDIGITS, under the terms of the Linguistic Data Consortium.

    Args:
        root: The folder.
        val_size: Training samples, from the end, that are for validation; None: what the manifest says, or else a
            twelfth, which is the 5,000 of the official files.
        on_error: Samples that are damaged: "raise" names them, "skip" leaves them out with a warning.
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
        >>> data = AVMNISTDataModule("data/avmnist")
        >>> data.modalities["audio"].shape, data.num_classes
        ((1, 112, 112), 10)
    """

    def __init__(
        self,
        root: str = "data/avmnist",
        val_size: int | None = None,
        on_error: OnError = "raise",
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
        if val_size is not None and val_size < 1:
            raise ConfigError(f"val_size must be at least 1, got {val_size}; check data.init_args.val_size")
        self.root = Path(root)
        self.val_size = val_size
        self.on_error = on_error
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
        """Image (1, 28, 28) and audio (1, 112, 112)."""
        return {"image": ModalitySpec("image", _SHAPES["image"]), "audio": ModalitySpec("audio", _SHAPES["audio"])}

    @property
    def class_names(self) -> list[str]:
        """The ten digits."""
        return [str(digit) for digit in range(_CLASSES)]

    @property
    def task(self) -> Task:
        """One digit per sample."""
        return "multiclass"

    def _samples(self, split: Split) -> ColumnSamples:
        self._check_files()
        part = "test" if split == "test" else "train"
        files = {name: self._folder(name) / f"{part}_data.npy" for name in _SHAPES}
        label_file = self.root / f"{part}_labels.npy"
        sizes = {str(path): len(np.atleast_1d(open_array(path))) for path in [*files.values(), label_file]}
        if len(set(sizes.values())) != 1:
            raise DataError(f"the files of {self.root} do not belong together, their lengths are {sizes}")
        size = next(iter(sizes.values()))
        if split != "test":
            val = self._val_size(size)
            rows = range(size - val) if split == "train" else range(size - val, size)
        else:
            rows = range(size)
        columns: dict[str, Column] = {n: ArrayColumn(files[n], rows, _SHAPES[n], 1 / 255) for n in self.modalities}
        labels = _Labels(label_file, rows)
        good = usable_rows(columns | {"label": labels}, self.on_error, split)
        chosen = [rows[i] for i in good.tolist()]
        columns = {n: ArrayColumn(files[n], chosen, _SHAPES[n], 1 / 255) for n in columns}
        return ColumnSamples(columns, labels.values[good].long(), self._groups(part, chosen, size))

    def _folder(self, modality: str) -> Path:
        if modality == "audio":
            return self.root / "audio"
        found = [self.root / name for name in _IMAGES if (self.root / name).is_dir()]
        return found[0] if found else self.root / _IMAGES[0]

    def _check_files(self) -> None:
        wanted = [self.root / f"{part}_labels.npy" for part in ("train", "test")]
        wanted += [self._folder(name) / f"{part}_data.npy" for name in _SHAPES for part in ("train", "test")]
        missing = [str(path) for path in wanted if not path.is_file()]
        if missing:
            raise DatasetNotFoundError(
                f"AV-MNIST is not complete in {self.root}; missing: {', '.join(missing)}. Build it from MNIST and the "
                f"Free Spoken Digit Dataset (CC BY-SA 3.0 and 4.0): mmnas prepare avmnist --help. Or download "
                f"avmnist.tar.gz, linked from https://github.com/juanmanpr/mfas and "
                f"https://github.com/pliang279/MultiBench (its recordings are those of TIDIGITS, under the terms "
                f"of the Linguistic Data Consortium), and unpack it so that {self.root} holds images, audio and the "
                "labels; another folder: data.init_args.root"
            )

    def _val_size(self, size: int) -> int:
        found = self.val_size
        manifest = self.root / MANIFEST
        if found is None and manifest.is_file():
            try:
                found = int(parse_json(manifest.read_text(encoding="utf-8"))["val_size"])
            except (ValueError, KeyError, TypeError) as error:
                raise damaged(manifest, f"no number val_size: {type(error).__name__}: {error}") from error
        if found is None:
            found = max(size // 12, 1)
        if not 0 < found < size:
            raise DataError(
                f"val_size={found}, but {self.root} has {size} training samples, of which some must be left; "
                "check data.init_args.val_size"
            )
        return found

    def _groups(self, part: str, rows: Sequence[int], size: int) -> Tensor | None:
        """Recording of each sample, where the folder says it."""
        path = self.root / f"{part}_pairs.npy"
        if not path.is_file():
            return None
        pairs = open_array(path)
        if pairs.shape != (size, 2) or pairs.dtype.kind not in "ui":
            raise damaged(path, f"{pairs.dtype} numbers of shape {pairs.shape} instead of whole ones of ({size}, 2)")
        return torch.from_numpy(np.asarray(pairs[list(rows), 1], dtype=np.int64))


class _Labels(Column):
    """Digits, as a column so that wrong ones are reported with all other damage."""

    def __init__(self, path: Path, rows: Sequence[int]) -> None:
        array: Array = open_array(path)
        if array.ndim != 1:
            raise damaged(path, f"labels of shape {array.shape} instead of one number per sample")
        self.path = path
        self.rows = rows
        self.values = torch.from_numpy(np.asarray(array[list(rows)], dtype=np.float64))

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Tensor:
        value = self.values[index]
        if value.item() not in range(_CLASSES):
            raise damaged(self.source(index), f"label {value.item():g} is not a digit from 0 to 9")
        return value

    def source(self, index: int) -> str:
        return f"{self.path}, row {self.rows[index]}"

    def fingerprint(self, index: int) -> str:
        return f"{self.values[index].item():g}"
