"""Columns of a table as modalities: how each is declared and read."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.arrays import ARRAYS, array_in, finite, is_array, open_array
from lightning_mmnas.data.columns.audio import Waveform, read_audio
from lightning_mmnas.data.columns.axes import arrange, check_axes
from lightning_mmnas.data.columns.column import FileColumn, damaged
from lightning_mmnas.data.columns.frames import read_frames
from lightning_mmnas.data.columns.images import decode_image
from lightning_mmnas.data.columns.motion import read_motion
from lightning_mmnas.data.columns.skeletons import prepare_skeleton, to_joints
from lightning_mmnas.data.columns.video import read_video
from lightning_mmnas.data.spec import Kind, ModalitySpec, Vocabulary
from lightning_mmnas.data.table.column_names import ColumnNames
from lightning_mmnas.data.table.embedded import EmbeddedColumn, Media, is_embedded
from lightning_mmnas.data.table.paths import base_folder, locate
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.errors import ConfigError

_PER_FILE = ("image", "audio", "video", "motion", "skeleton", "text")


@dataclass(frozen=True)
class ColumnSpec:
    """One modality of a table.

    Args:
        kind: What it is: "image" (picture files, or arrays of shape (h, w) or (h, w, colours)), "audio" (sound files),
            "video" (video files, or arrays of shape (t, h, w) or (t, h, w, colours)), "motion" (arrays of shape
            (t, channels) or (t,)), "skeleton" (arrays of shape (t, joints, coordinates), with or without a last axis of
            bodies; of two coordinates, the third is zero), "text", or "features" (numbers in one or several columns, or
            arrays of shape (length,)). Arrays are `.npy` and `.npz` files, or lists of numbers in the cells.
        columns: The columns it lies in: one, or several for numbers.
        files: Only for features: the column holds arrays of `length` numbers, or their paths.
        size: (h, w) of images and of the frames of videos.
        channels: 1 or 3 for images and videos; channels of motion.
        length: Time steps of motion and skeletons, tokens of a text, frames of a video, numbers of a vector.
        fit: How motion is brought to its length: "resample" (linearly, what is too fast removed) or "crop" (the middle,
            or zeros at the end).
        rate: Samples per second of audio, in Hz.
        seconds: Length of audio, in seconds.
        joints: Joints of a skeleton.
        vocabulary: Greatest number of token ids of a text.
        tokenizer: Of a text, see `TextTokenizer`; None: learnt from the training texts.
        maximum: Value that becomes white in image and video arrays, and in picture files of 16 or 32 bits or floats;
            None: 255 for uint8, 65535 for uint16, 1 for the floats of arrays.
        clip: Whether greater values become white too; otherwise they are an error.
        axes: What the axes of arrays are, one letter each, where they are others than above: t(ime), c(hannels, colours
            or coordinates), h(eight), w(idth), j(oints), b(odies), d (numbers of a vector), 1 (to be dropped), such as
            "ct" or "chw".
        key: Name of the array in `.npz` files that hold several.
    """

    kind: Kind
    columns: ColumnNames = field(default_factory=list)
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
    clip: bool = False
    axes: str | None = None
    key: str | None = None

    def check(self, name: str) -> None:
        """Raises `ConfigError` for what cannot be."""
        where = f"check data.init_args.columns.{name}"
        if not self.columns or len(set(self.columns)) < len(self.columns):
            raise ConfigError(f"columns must name one or more columns, each once, got {self.columns}; {where}")
        if len(self.columns) > 1 and (self.kind in _PER_FILE or self.files):
            raise ConfigError(f"kind {self.kind!r} takes one column, got {self.columns}; {where}")
        wrong = [name for name in ("channels", "length", "rate", "joints") if getattr(self, name) < 1]
        wrong += ["size"] if len(self.size) != 2 or min(self.size) < 1 else []
        wrong += ["seconds"] if self.rate > 0 and round(self.rate * self.seconds) < 1 else []
        wrong += ["maximum"] if self.maximum is not None and not self.maximum > 0 else []
        if wrong:
            got = ", ".join(f"{name}={getattr(self, name)}" for name in wrong)
            raise ConfigError(f"sizes and lengths must be positive, got {got}; {where}")
        try:
            check_axes(self.kind, self.axes)
        except ConfigError as error:
            raise ConfigError(f"{error}; {where}") from None
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


def holds_vectors(spec: ColumnSpec, table: Table) -> bool:
    """Whether a modality is lists of numbers in the cells that are read at once."""
    vectors = table.vectors(spec.columns[0])
    return vectors is not None and vectors.shape[1:] == (spec.length,)


def file_column(
    spec: ColumnSpec, table: Table, rows: Sequence[int], files_from: str | None = None
) -> FileColumn | EmbeddedColumn:
    """The column of a modality that lies in files, or in the table's cells; see `locate`."""
    find, decode = partial(locate, base_folder(table.path, files_from)), partial(read_cell, spec=spec)
    if table.has_lists(spec.columns[0]) or is_embedded(cells := table.cells(spec.columns[0])):
        return EmbeddedColumn(table, spec.columns[0], rows, decode, find, repr(spec))
    return FileColumn([find(str(cells[row])) for row in rows], decode, folders=spec.kind == "video")


def read_cell(media: Media, spec: ColumnSpec) -> Tensor:
    """Reads a file, or the content of one, as a sample of the modality.

    Raises:
        DamagedFilesError: It is not what the kind asks for.
        MissingExtraError: A package that reads it is not installed.
    """
    channels: Literal[1, 3] = 1 if spec.channels == 1 else 3
    if isinstance(media, np.ndarray):
        if spec.kind == "audio":
            raise damaged("a cell", "it is a list of numbers, not of kind 'audio'")
        return read_values(media, spec, "a cell")
    if isinstance(media, Waveform):
        if spec.kind != "audio":
            raise damaged("a cell", f"it is a sound, not of kind {spec.kind!r}")
        return read_audio(media, spec.rate, spec.seconds)
    source = media if isinstance(media, Path) else media.data
    suffix = media.suffix.lower() if isinstance(media, Path) else media.suffix
    array = suffix in ARRAYS or is_array(source)
    if spec.kind == "image" and not array:
        return decode_image(source, spec.size, channels, spec.maximum, spec.clip)
    if spec.kind == "audio":
        return read_audio(source, spec.rate, spec.seconds)
    if spec.kind == "video" and not array:
        if isinstance(source, Path):
            return read_video(source, spec.length, spec.size, channels, maximum=spec.maximum, clip=spec.clip)
        with NamedTemporaryFile(suffix=suffix.replace("/", "")) as file:  # the library wants a file
            file.write(source)
            file.flush()
            return read_video(Path(file.name), spec.length, spec.size, channels, maximum=spec.maximum, clip=spec.clip)
    if isinstance(source, Path):
        return read_values(open_array(source, spec.key), spec, source)
    return read_values(array_in(source, spec.key), spec, "an array")


def read_values(values: np.ndarray[Any, np.dtype[Any]], spec: ColumnSpec, source: Path | str) -> Tensor:
    """An array, as a `.npy` file holds it, as a sample of the modality: all kinds but audio and text.

    Args:
        values: See `ColumnSpec`.
        spec: The modality.
        source: What to call it in messages.

    Returns:
        The sample; motion and vectors are float64 where float32 would not do, until they are standardised.

    Raises:
        DamagedFilesError: It is not what the kind asks for.
    """
    place = str(source)
    if spec.kind in ("image", "video"):
        frames = spec.length if spec.kind == "video" else None
        return read_frames(values, spec.size, spec.channels, frames, spec.maximum, spec.clip, spec.axes, place)
    if spec.kind == "motion":
        return read_motion(values, spec.channels, spec.length, spec.fit, spec.axes, place)
    if spec.kind == "skeleton":
        joints = to_joints(values, place, spec.axes)
        if joints.shape[2] != spec.joints:
            raise damaged(place, f"it has {joints.shape[2]} joints instead of {spec.joints}")
        return prepare_skeleton(torch.from_numpy(joints), spec.length, centre=None, bodies=1, smooth=True)
    vector = arrange(values, "features", spec.axes, place)
    if vector.shape != (spec.length,):
        raise damaged(place, f"an array of shape {values.shape} instead of ({spec.length},)")
    found = torch.from_numpy(finite(vector, place))
    return found if not torch.equal(found.float().double(), found.double()) else found.float()
