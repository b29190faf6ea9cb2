"""Videos, animations and folders of frames, read as clips of a fixed number of frames."""

import hashlib
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from lightning_mmnas.data.columns import ffmpeg
from lightning_mmnas.data.columns.column import Column, FileColumn, damaged
from lightning_mmnas.data.columns.content import form_of
from lightning_mmnas.data.columns.images import decode_frames, decode_image, frame_seconds, image_background, image_info
from lightning_mmnas.data.columns.pixels import Channels
from lightning_mmnas.errors import ConfigError

Sampling = Literal["uniform", "random", "centre"]

PICTURES = frozenset(
    {".avif", ".bmp", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"}
    | {".tif", ".tiff", ".webp"}
)
"""Suffixes of frames in a folder."""


def clip_positions(length: int, frames: int, sampling: Sampling, seed: int = 0, key: str = "") -> list[int]:
    """Chooses the frames of a clip.

    "uniform" cuts the video into `frames` equal segments and takes the middle of each (TSN, Wang et al., ECCV 2016).
    "random" and "centre" take consecutive frames, from a random place or from the middle; a video that is too short
    is repeated from its beginning, as in 3D-ResNets (Hara et al., CVPR 2018). The random place depends on `seed` and
    `key` alone: the same video gives the same clip in every epoch, worker process and resumed run, and can be cached.
    What changes from epoch to epoch is the crop in time of `VideoViews`.

    Args:
        length: Frames of the video, > 0.
        frames: Frames of the clip, > 0.
        sampling: How they are chosen.
        seed: Seed of random places.
        key: What tells one video from another, such as its name.
    """
    if sampling == "uniform":
        return [(2 * i + 1) * length // (2 * frames) for i in range(frames)]
    spare = max(length - frames, 0)
    if sampling == "random":
        digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8).digest()
        first = int.from_bytes(digest, "little") % (spare + 1)
    else:
        first = spare // 2
    return [(first + i) % length for i in range(frames)]


def video_column(
    paths: Sequence[Path],
    frames: int,
    size: tuple[int, int],
    channels: Channels = 3,
    sampling: Sampling = "uniform",
    seed: int = 0,
) -> FileColumn:
    """A column of video files, each read as by `read_video`.

    Args:
        paths: One file per sample.
        frames: Frames of every clip.
        size: (h, w) of every frame.
        channels: 3 for RGB, 1 for grey.
        sampling: See `clip_positions`.
        seed: See `clip_positions`.

    Raises:
        ConfigError: An argument cannot be.
    """
    check_clip(frames, size, channels, sampling)
    seed = seed if sampling == "random" else 0  # other clips do not depend on it, nor should their fingerprints
    read = partial(read_video, frames=frames, size=(size[0], size[1]), channels=channels, sampling=sampling, seed=seed)
    return FileColumn(paths, read, folders=True)


def check_clip(frames: int, size: tuple[int, int], channels: int = 3, sampling: str = "uniform") -> None:
    """Refuses clips that cannot be.

    Raises:
        ConfigError: Names the argument.
    """
    if frames < 1 or len(size) != 2 or min(size) < 1 or channels not in (1, 3):
        raise ConfigError(
            "a clip has at least one frame, a positive (h, w) and 1 or 3 channels, "
            f"got frames={frames}, size={tuple(size)}, channels={channels}"
        )
    if sampling not in ("uniform", "random", "centre"):
        raise ConfigError(f"sampling {sampling!r} is not in ['uniform', 'random', 'centre']")


def read_video(
    path: Path,
    frames: int,
    size: tuple[int, int],
    channels: Channels = 3,
    sampling: Sampling = "uniform",
    seed: int = 0,
    maximum: float | None = None,
    clip: bool = False,
) -> Tensor:
    """Reads a clip as a player shows it: of a video file, an animated picture or a folder of frames.

    Video files may be of any format that FFmpeg knows; PyAV reads them (our extra `video`). They are turned and
    mirrored as their display matrix says. Where the rate of frames varies, "uniform" cuts the video into segments of
    equal duration, not of equally many frames. Animated GIF, PNG, WebP and AVIF files are read likewise, the pages of a
    TIFF file and the pictures of a folder one after the other, a folder in natural order (2.png before 10.png). What is
    transparent shows white, or black where the rest of the first frame is nearly white. Frames are squeezed into `size`
    whatever their proportions, with antialiasing.

    Args:
        path: The file or the folder; its name is the key of random clips.
        frames: Frames of the clip.
        size: (h, w) of every frame.
        channels: 3 for RGB, 1 for grey.
        sampling: See `clip_positions`.
        seed: See `clip_positions`.
        maximum: Of pictures: see `decode_image`.
        clip: Of pictures: see `decode_image`.

    Returns:
        Pixels in [0, 255], uint8, shape (channels, frames, h, w).

    Raises:
        DamagedFilesError: The file is empty, cut short, no video, or its frames cannot be decoded.
        MissingExtraError: PyAV is not installed.
    """
    if path.is_dir():
        pictures = frame_files(path)
        positions = clip_positions(len(pictures), frames, sampling, seed, path.name)
        ground = image_background(pictures[0])
        found = {i: decode_image(pictures[i], size, channels, maximum, clip, ground) for i in set(positions)}
    elif _is_picture(path):
        times = list(accumulate(frame_seconds(path), initial=0.0))
        positions = _positions(times, frames, sampling, seed, path.name)
        wanted, found = set(positions), {}
        for index, pixels in enumerate(decode_frames(path, size, channels, maximum, clip)):
            if index in wanted:
                found[index] = pixels
    else:
        times = ffmpeg.frame_times(path)
        positions = _positions(times, frames, sampling, seed, path.name)
        found = ffmpeg.decode_film(path, len(times) - 1, set(positions), size, channels)
    return torch.stack([found[i] for i in positions], dim=1)


def video_length(path: Path) -> int:
    """Number of frames of a video by the packets of a film or the header of an animation, whose first frame is decoded.

    Raises:
        DamagedFilesError: It is no video, or holds fewer frames than its header says.
        MissingExtraError: PyAV is not installed.
    """
    if path.is_dir():
        return len(frame_files(path))
    return image_info(path).frames if _is_picture(path) else len(ffmpeg.frame_times(path)) - 1


def frame_files(folder: Path) -> list[Path]:
    """The pictures in a folder in natural order: numbers within names count as numbers.

    Raises:
        DamagedFilesError: There are none.
    """
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURES and not file.name.startswith(".")]
    if not files:
        raise damaged(folder, f"the folder holds no pictures ({', '.join(sorted(PICTURES))})")
    return sorted(files, key=lambda file: (_natural(file.name), file.name))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name.lower())]


def _is_picture(path: Path) -> bool:
    form = form_of(path)
    return form is not None and form.kind == "image"


def _positions(times: Sequence[float], frames: int, sampling: Sampling, seed: int, key: str) -> list[int]:
    """The frames of a clip; `times` has one more entry than there are frames: the end of the last one."""
    length = len(times) - 1
    if sampling != "uniform" or _is_steady(times):
        return clip_positions(length, frames, sampling, seed, key)
    duration = times[-1] - times[0]
    moments = [times[0] + (2 * i + 1) * duration / (2 * frames) for i in range(frames)]
    return [min(bisect_right(times, moment), length) - 1 for moment in moments]


def _is_steady(times: Sequence[float]) -> bool:
    """Whether no frame is shown half a frame's time, or more, from where a constant rate would show it."""
    step = (times[-1] - times[0]) / (len(times) - 1)
    return all(abs(time - times[0] - i * step) < max(step / 2, 1e-9) for i, time in enumerate(times))


class FrameRange(NamedTuple):
    """A clip in a folder of frames: the files `{number:06d}.jpg`, or another pattern.

    Attributes:
        folder: The folder.
        first: Number of the first frame.
        last: Number of the last frame, included.
    """

    folder: Path
    first: int
    last: int


class FrameFolderColumn(Column):
    """A modality of one range of frames per sample, in folders of images.

    Args:
        ranges: The frames of every sample.
        frames: Frames of every clip.
        size: (h, w) of every frame.
        channels: 3 for RGB, 1 for grey.
        sampling: See `clip_positions`; the key of random clips is the folder's path below `root` and the first frame.
        seed: See `clip_positions`.
        pattern: Name of a frame's file, a format string of its number.
        root: Folder that keys are relative to, so that they do not depend on where the data lie.
    """

    def __init__(
        self,
        ranges: Sequence[FrameRange],
        frames: int,
        size: tuple[int, int],
        channels: Channels = 3,
        sampling: Sampling = "uniform",
        seed: int = 0,
        pattern: str = "{:06d}.jpg",
        root: Path | None = None,
    ) -> None:
        check_clip(frames, size, channels, sampling)
        self.ranges = list(ranges)
        self.frames = frames
        self.size = (size[0], size[1])
        self.channels: Channels = channels
        self.sampling: Sampling = sampling
        self.seed = seed
        self.pattern = pattern
        self.root = root

    def __len__(self) -> int:
        return len(self.ranges)

    def files(self, index: int) -> list[Path]:
        """The files of a clip, in order; a file may occur more than once."""
        folder, first, last = self.ranges[index]
        if last < first:
            raise damaged(self.source(index), "its last frame comes before its first")
        key = folder if self.root is None else folder.relative_to(self.root)
        positions = clip_positions(last - first + 1, self.frames, self.sampling, self.seed, f"{key.as_posix()} {first}")
        return [folder / self.pattern.format(first + i) for i in positions]

    def read(self, index: int) -> Tensor:
        """Reads the clip, uint8 of shape (channels, frames, h, w)."""
        decoded: dict[Path, Tensor] = {}
        files = self.files(index)
        ground = image_background(files[0])
        for path in files:
            if path not in decoded:
                decoded[path] = decode_image(path, self.size, self.channels, background=ground)
        return torch.stack([decoded[path] for path in files], dim=1)

    def source(self, index: int) -> str:
        """Folder and frames."""
        folder, first, last = self.ranges[index]
        return f"{folder}, frames {first} to {last}"

    def fingerprint(self, index: int) -> str:
        """Paths, sizes and times of change of the clip's files."""
        lines = [self.source(index)]
        for path in sorted(set(self.files(index))):
            status = path.stat() if path.is_file() else None
            lines.append("missing" if status is None else f"{path.name} {status.st_size} {status.st_mtime_ns}")
        return " ".join(lines)


class PresenceColumn(Column):
    """What tells cheaply whether the samples of another column are there: files that exist and are not empty.

    Args:
        column: A column of files or of frames.
        probe: A further check of one file, which raises `DamagedFilesError`, such as `video_length`.
    """

    def __init__(self, column: FileColumn | FrameFolderColumn, probe: Callable[[Path], object] | None = None) -> None:
        self.column = column
        self.probe = probe

    def __len__(self) -> int:
        return len(self.column)

    def read(self, index: int) -> Tensor:
        """Checks one sample; returns nothing of use."""
        column = self.column
        files = column.files(index) or [column.paths[index]] if isinstance(column, FileColumn) else column.files(index)
        for path in dict.fromkeys(files):
            if not path.is_file():
                raise damaged(path, "there is no such file")
            if path.stat().st_size == 0:
                raise damaged(path, "it is empty")
            if self.probe is not None:
                self.probe(path)
        return torch.empty(0)

    def source(self, index: int) -> str:
        """That of the column."""
        return self.column.source(index)

    def fingerprint(self, index: int) -> str:
        """That of the column."""
        return self.column.fingerprint(index)
