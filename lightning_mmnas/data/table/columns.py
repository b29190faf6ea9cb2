"""Columns of a table as modalities: how each is declared and read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lightning_mmnas.data.columns.arrays import open_array
from lightning_mmnas.data.columns.audio import read_audio
from lightning_mmnas.data.columns.column import FileColumn, damaged
from lightning_mmnas.data.columns.images import decode_image
from lightning_mmnas.data.columns.skeletons import prepare_skeleton, to_joints
from lightning_mmnas.data.columns.video import clip_positions, read_video
from lightning_mmnas.data.spec import Kind, ModalitySpec, Vocabulary
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.errors import ConfigError

_PER_FILE = ("image", "audio", "video", "motion", "skeleton", "text")


@dataclass(frozen=True)
class ColumnSpec:
    """One modality of a table.

    Args:
        kind: What it is: "image" (picture files, or `.npy` of shape (h, w) or (h, w, 3)), "audio" (sound files),
            "video" (video files, or `.npy` clips of shape (t, h, w) or (t, h, w, 3)), "motion" (`.npy`
            of shape (t, channels) or (t,)), "skeleton" (`.npy` of shape (t, joints, 3)), "text", or "features" (numbers
            in one or several columns, or `.npy` vectors).
        columns: The columns it lies in: one, or several for numbers.
        files: Only for features: the column holds paths of `.npy` vectors of `length` numbers.
        size: (h, w) of images and of the frames of videos.
        channels: 1 or 3 for images and videos; channels of motion.
        length: Time steps of motion and skeletons, tokens of a text, frames of a video, numbers of a vector.
        fit: How motion is brought to its length: "resample" (linearly) or "crop" (the middle, or zeros at the end).
        rate: Samples per second of audio, in Hz.
        seconds: Length of audio, in seconds.
        joints: Joints of a skeleton.
        vocabulary: Greatest number of token ids of a text.
        tokenizer: Of a text, see `TextTokenizer`; None: learnt from the training texts.
        maximum: Value in image and video arrays that becomes white; None: 255 for uint8, 65535 for uint16, 1 for
            floats.
    """

    kind: Kind
    columns: list[str] = field(default_factory=list)
    files: bool = False
    size: tuple[int, int] = (64, 64)
    channels: int = 3
    length: int = 64
    fit: Literal["resample", "crop"] = "resample"
    rate: int = 16_000
    seconds: float = 1.0
    joints: int = 25
    vocabulary: int = 8192
    tokenizer: str | None = None
    maximum: float | None = None

    def check(self, name: str) -> None:
        """Raises `ConfigError` for what cannot be."""
        where = f"check data.init_args.columns.{name}"
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"columns must name one or more columns, each once, got {self.columns}; {where}")
        if len(self.columns) > 1 and (self.kind in _PER_FILE or self.files):
            raise ConfigError(f"kind {self.kind!r} takes one column, got {self.columns}; {where}")
        numbers = (*self.size, self.channels, self.length, self.rate, self.joints, round(self.rate * self.seconds))
        if min(numbers) < 1 or len(self.size) != 2 or (self.maximum is not None and not self.maximum > 0):
            raise ConfigError(f"sizes and lengths must be positive, got {self}; {where}")
        if self.kind in ("image", "video") and self.channels not in (1, 3):
            raise ConfigError(f"channels of kind {self.kind!r} are 1 or 3, got {self.channels}; {where}")

    def modality(self, vocabulary: Vocabulary | None = None) -> ModalitySpec:
        """What one sample looks like."""
        h, w = self.size
        if self.kind == "text":
            return ModalitySpec("text", (self.length,), torch.int64, vocabulary or Vocabulary(self.vocabulary))
        if self.kind == "features":
            return ModalitySpec("features", (self.length if self.files else len(self.columns),))
        shapes = {
            "image": (self.channels, h, w),
            "video": (self.channels, self.length, h, w),
            "audio": (1, round(self.rate * self.seconds)),
            "motion": (self.channels, self.length),
            "skeleton": (3, self.length, self.joints, 1),
        }
        pixels = self.kind in ("image", "video")
        return ModalitySpec(self.kind, shapes[self.kind], torch.uint8 if pixels else torch.float32)

    @property
    def standardised(self) -> bool:
        """Whether samples are standardised by the statistics of the training samples."""
        return self.kind in ("features", "motion")


def file_column(spec: ColumnSpec, table: Table, rows: Sequence[int]) -> FileColumn:
    """The column of a modality that lies in files, relative to the table's folder."""
    cells = table.cells(spec.columns[0])
    return FileColumn([table.folder / str(cells[row]).strip() for row in rows], partial(read_cell, spec=spec))


def read_cell(path: Path, spec: ColumnSpec) -> Tensor:
    """Reads one file as a sample of the modality.

    Raises:
        DamagedFilesError: The file is not what the kind asks for.
    """
    channels: Literal[1, 3] = 1 if spec.channels == 1 else 3
    array = path.suffix.lower() == ".npy"
    if spec.kind == "image" and not array:
        return decode_image(path, spec.size, channels)
    if spec.kind == "video" and not array:
        return read_video(path, spec.length, spec.size, channels)
    if spec.kind == "audio":
        return read_audio(path, spec.rate, spec.seconds)
    return read_values(open_array(path), spec, path)


def read_values(values: np.ndarray[Any, np.dtype[Any]], spec: ColumnSpec, source: Path | str) -> Tensor:
    """An array, as a `.npy` file holds it, as a sample of the modality: all kinds but audio and text.

    Args:
        values: See `ColumnSpec`.
        spec: The modality.
        source: What to call it in messages.

    Raises:
        DamagedFilesError: It is not what the kind asks for.
    """
    if spec.kind == "image":
        return _array_frames(source, values, spec, clip=False)[:, 0]
    if spec.kind == "video":
        return _array_frames(source, values, spec, clip=True)
    if spec.kind == "motion":
        return _motion(source, values, spec)
    if spec.kind == "skeleton":
        joints = to_joints(values, source)
        if joints.shape[2] != spec.joints:
            raise damaged(source, f"it has {joints.shape[2]} joints instead of {spec.joints}")
        return prepare_skeleton(torch.from_numpy(joints), spec.length, centre=None, bodies=1)
    if values.shape != (spec.length,):
        raise damaged(source, f"an array of shape {values.shape} instead of ({spec.length},)")
    return torch.from_numpy(_floats(source, values))


def _motion(path: Path | str, array: np.ndarray[Any, np.dtype[Any]], spec: ColumnSpec) -> Tensor:
    values = _floats(path, array)
    if values.ndim == 1:
        values = values[:, None]
    if values.ndim != 2 or values.shape[1] != spec.channels or len(values) == 0:
        raise damaged(path, f"an array of shape {values.shape} instead of (t, {spec.channels})")
    signal = torch.from_numpy(values).T.contiguous()
    t = signal.shape[1]
    if spec.fit == "crop":
        start = max(0, (t - spec.length) // 2)
        signal = signal[:, start : start + spec.length]
        return pad(signal, (0, spec.length - signal.shape[1])).contiguous()
    if t == spec.length:
        return signal
    return interpolate(signal[None], spec.length, mode="linear", align_corners=True)[0]


def _array_frames(path: Path | str, values: np.ndarray[Any, np.dtype[Any]], spec: ColumnSpec, clip: bool) -> Tensor:
    """Frames of an array as uint8 pixels, shape (channels, t, h, w); an image is one frame."""
    wanted = "(t, h, w) or (t, h, w, 3)" if clip else "(h, w) or (h, w, 3)"
    grey = values.ndim == (3 if clip else 2)
    colour = values.ndim == (4 if clip else 3) and values.shape[-1] == 3
    if not (grey or colour) or min(values.shape) == 0:
        raise damaged(path, f"an array of shape {values.shape} instead of {wanted}")
    if clip:
        values = values[clip_positions(len(values), spec.length, "uniform")]
    whites = {"u1": 255.0, "u2": 65535.0, "b1": 1.0}
    kind = f"{values.dtype.kind}{values.dtype.itemsize}"
    white = spec.maximum or (1.0 if values.dtype.kind == "f" else whites.get(kind))
    if white is None:
        raise damaged(path, f"numbers of type {values.dtype} have no known white; set maximum")
    numbers = torch.from_numpy(_floats(path, values)) / white
    if numbers.min() < 0 or (spec.maximum is None and numbers.max() > 1):
        raise damaged(path, f"pixels from {numbers.min() * white:g} to {numbers.max() * white:g}, not 0 to {white:g}")
    numbers = numbers.clamp(max=1)
    frames = numbers if clip else numbers[None]
    frames = frames.unsqueeze(1) if grey else frames.permute(0, 3, 1, 2)  # (t, c, h, w)
    if frames.shape[1] != spec.channels:
        frames = frames.expand(-1, 3, -1, -1) if spec.channels == 3 else frames.mean(1, keepdim=True)
    if tuple(frames.shape[2:]) != tuple(spec.size):
        frames = interpolate(frames, tuple(spec.size), mode="bilinear", antialias=True)
    return (frames * 255).round().clamp(0, 255).to(torch.uint8).transpose(0, 1).contiguous()


def _floats(path: Path | str, values: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    with np.errstate(over="ignore"):
        found = np.array(values, dtype=np.float32)
    if not np.isfinite(found).all():
        raise damaged(path, "it holds NaN or infinity")
    return found
