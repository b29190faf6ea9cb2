"""EgoGesture: hand gestures seen by a head-mounted camera, in colour and depth."""

import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.columns.column import Column, ColumnSamples, OnError, damaged, usable_rows
from lightning_mmnas.data.columns.video import FrameFolderColumn, FrameRange, PresenceColumn, Sampling, check_clip
from lightning_mmnas.errors import DatasetNotFoundError
from lightning_mmnas.parsing import parse_json

Check = Literal["files", "content"]

ANNOTATION = "egogestureall_but_None.json"

_SUBSETS: dict[str, Split] = {"training": "train", "validation": "val", "testing": "test"}


class Clip(NamedTuple):
    """A gesture: its key in the annotation, the frames from first to last, its class, its split."""

    key: str
    first: int
    last: int
    label: int
    split: Split

    @property
    def folder(self) -> str:
        """Folder of its colour frames: the key without its counter, `Subject03/Scene1/Color/rgb1`."""
        return self.key.split("_")[0]


def read_annotation(path: Path) -> tuple[list[str], list[Clip]]:
    """Reads the classes and the gestures of an annotation file.

    Raises:
        DamagedFilesError: It is no JSON, or an entry of it lacks something; names the entry.
    """
    try:
        content = parse_json(path.read_bytes().decode("utf-8"))
        labels, database = content["labels"], content["database"]
        if not isinstance(labels, list) or not isinstance(database, dict):
            raise TypeError("labels must be a list and database an object")
        classes = {str(label): i for i, label in enumerate(labels)}
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}".splitlines()[0]) from None
    if not classes or len(classes) < len(labels):
        raise damaged(path, "its labels are empty, or one of them occurs twice")
    return list(classes), [_clip(path, str(key), entry, classes) for key, entry in database.items()]


def _clip(path: Path, key: str, entry: Any, classes: dict[str, int]) -> Clip:
    place = f"{path}, {key!r}"
    try:
        note = entry["annotations"]
        first, last = float(note["start_frame"]), float(note["end_frame"])
        split, label = _SUBSETS[entry["subset"]], classes[note["label"]]
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(place, f"{type(error).__name__}: {error}".splitlines()[0]) from None
    if not (math.isfinite(first) and math.isfinite(last) and 0 <= first <= last < 1e6):
        raise damaged(place, f"frames {first:g} to {last:g} are no range")
    parts = Path(key).parts
    if len(parts) < 3 or ".." in parts or Path(key).is_absolute() or parts[-2] != "Color":
        raise damaged(place, "the key is not like 'Subject03/Scene1/Color/rgb1'")
    return Clip(key, int(first), int(last), label, split)


class EgoGestureDataModule(MultimodalDataModule):
    """EgoGesture, 24,161 gestures of 83 classes by 50 subjects in six scenes, in RGB and depth.

    A sample has "rgb", uint8 of shape (3, frames, h, w), and "depth", uint8 of shape (1, frames, h, w): a clip of the
    frames of one gesture. `root` (or `root/images`) holds `Subject03/Scene1/Color/rgb1/000067.jpg` and
    `Subject03/Scene1/Depth/depth1/000067.jpg`, and `root` the annotation. Splits are the official ones, by subject:
    14,416 gestures for training, 4,768 for validation, 4,977 for test. Groups are recordings: one subject, scene and
    camera file.

    Source: Y. Zhang, C. Cao, J. Cheng, H. Lu, "EgoGesture: A New Dataset and Benchmark for Egocentric Hand Gesture
    Recognition", IEEE Transactions on Multimedia 20 (5), 2018. Licence: academic research only, on request from NLPR,
    Chinese Academy of Sciences. Annotation as JSON: Real-time-GesRec (Köpüklü et al., FG 2019), MIT.

    Args:
        root: The folder.
        annotation: The annotation, below `root`, or a path of its own.
        frames: Frames of a clip; 32 in BM-NAS.
        size: (h, w) of a frame in pixels.
        sampling: Frames of a clip; "random" holds for training, validation and test then take the centre. See
            `clip_positions`.
        check: What is read of every clip when a split is built: "files" (that the frames are there and not empty) or
            "content" (all of them).
        on_error: Samples with damaged or missing files: "raise" names them, "skip" leaves them out with a warning.
        modalities: See `MultimodalDataModule`, as for all that follow.
        batch_size: Samples per batch.
        num_workers: Worker processes per loader.
        architecture_fraction: Share of the training data for the architecture step.
        architecture_split: "val": the architecture step reads the validation split.
        labels: Whether samples carry `"label"`, the gesture.
        labels_per_class: Label budget; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling, of the architecture split and of random clips.

    Examples:
        >>> data = EgoGestureDataModule("data/egogesture", frames=16)
        >>> data.modalities["depth"].shape
        (1, 16, 112, 112)
    """

    def __init__(
        self,
        root: str = "data/egogesture",
        annotation: str = ANNOTATION,
        frames: int = 32,
        size: tuple[int, int] = (112, 112),
        sampling: Sampling = "uniform",
        check: Check = "files",
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
        check_clip(frames, size, sampling=sampling)
        self.root = Path(root)
        self.annotation = annotation
        self.frames = frames
        self.size = (int(size[0]), int(size[1]))
        self.sampling: Sampling = sampling
        self.check: Check = check
        self.on_error: OnError = on_error
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
        """RGB (3, t, h, w) and depth (1, t, h, w)."""
        return {
            "rgb": ModalitySpec("video", (3, self.frames, *self.size), torch.uint8),
            "depth": ModalitySpec("video", (1, self.frames, *self.size), torch.uint8),
        }

    @property
    def class_names(self) -> list[str]:
        """The gestures, in the order of the annotation."""
        return list(self._content[0])

    @property
    def task(self) -> Task:
        """One gesture per clip."""
        return "multiclass"

    @cached_property
    def _content(self) -> tuple[list[str], list[Clip]]:
        path = next((p for p in (self.root / self.annotation, Path(self.annotation)) if p.is_file()), None)
        if path is None:
            raise self._not_found(f"there is no {self.root / self.annotation}")
        return read_annotation(path)

    def _samples(self, split: Split) -> ColumnSamples:
        clips = [clip for clip in self._content[1] if clip.split == split]
        good = self._usable(clips, split)
        clips = [clips[i] for i in good]
        labels = torch.tensor([clip.label for clip in clips], dtype=torch.long)
        recordings = {folder: i for i, folder in enumerate(sorted({clip.folder for clip in self._content[1]}))}
        groups = torch.tensor([recordings[clip.folder] for clip in clips], dtype=torch.long)
        columns: dict[str, Column] = {name: self._column(name, clips, split) for name in self.modalities}
        return ColumnSamples(columns, labels, groups)

    def _usable(self, clips: Sequence[Clip], split: Split) -> list[int]:
        columns: dict[str, Column] = {}
        for name in self.modalities:
            column = self._column(name, clips, split)
            columns[name] = column if self.check == "content" else PresenceColumn(column)
        found: list[int] = usable_rows(columns, self.on_error, split).tolist() if clips else []
        return found

    def _column(self, modality: str, clips: Sequence[Clip], split: Split) -> FrameFolderColumn:
        sampling: Sampling = "centre" if self.sampling == "random" and split != "train" else self.sampling
        images = self._images()
        ranges = []
        for clip in clips:
            folder = images / clip.folder
            if modality == "depth":  # .../Color/rgb1 -> .../Depth/depth1
                folder = folder.parents[1] / "Depth" / folder.name.replace("rgb", "depth")
            ranges.append(FrameRange(folder, clip.first, clip.last))
        channels: Literal[1, 3] = 1 if modality == "depth" else 3
        return FrameFolderColumn(ranges, self.frames, self.size, channels, sampling, self.seed, root=images)

    def _images(self) -> Path:
        for folder in (self.root, self.root / "images"):
            if folder.is_dir() and any(folder.glob("Subject*")):
                return folder
        raise self._not_found(f"neither {self.root} nor {self.root / 'images'} has folders Subject01, Subject02, ...")

    def _not_found(self, reason: str) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"EgoGesture: {reason}. Request the images at "
            f"http://www.nlpr.ia.ac.cn/iva/yfzhang/datasets/egogesture.html (academic research only), and unpack them "
            f"so that {self.root}/Subject01/Scene1/Color/rgb1/000001.jpg is one of them; put {ANNOTATION} of "
            f"https://github.com/ahmetgunduz/Real-time-GesRec (MIT; folder annotation_EgoGesture) into {self.root}; "
            "another root: data.init_args.root"
        )
