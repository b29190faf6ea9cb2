"""Videos, as files or as folders of frames, read as clips of a fixed number of frames."""

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import Column, FileColumn, damaged
from lightning_mmnas.data.columns.images import decode_image
from lightning_mmnas.data.columns.pixels import Channels
from lightning_mmnas.errors import ConfigError, MissingExtraError

Sampling = Literal["uniform", "random", "centre"]

_MAX_SIDE = 16_384
"""Pixels; larger frames come from damaged headers."""


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
    return FileColumn(paths, read)


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
) -> Tensor:
    """Reads a clip of a video file of any format that FFmpeg knows, by PyAV (our extra `video`).

    Frames are squeezed into `size` whatever their proportions, with antialiasing.

    Args:
        path: The file; its name is the key of random clips.
        frames: Frames of the clip.
        size: (h, w) of every frame.
        channels: 3 for RGB, 1 for grey.
        sampling: See `clip_positions`.
        seed: See `clip_positions`.

    Returns:
        Pixels in [0, 255], uint8, shape (channels, frames, h, w).

    Raises:
        DamagedFilesError: The file is empty, cut short, no video, or its frames cannot be decoded.
        MissingExtraError: PyAV is not installed.
    """
    length = video_length(path)
    positions = clip_positions(length, frames, sampling, seed, path.name)
    found = _decode(path, length, set(positions), size, channels)
    return torch.stack([found[i] for i in positions], dim=1)


def video_length(path: Path) -> int:
    """Number of frames of a video file, without decoding them.

    Raises:
        DamagedFilesError: It is no video, or holds fewer frames than its header says.
        MissingExtraError: PyAV is not installed.
    """
    av = _av()
    if path.stat().st_size == 0:
        raise damaged(path, "it is empty")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise damaged(path, "it holds no video")
            stream = container.streams.video[0]
            if not (0 < stream.width <= _MAX_SIDE and 0 < stream.height <= _MAX_SIDE):
                raise damaged(path, f"its header says {stream.width} x {stream.height} pixels")
            announced = stream.frames
            length = sum(1 for packet in container.demux(stream) if packet.size)
    except (av.error.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        raise damaged(path, _reason(error)) from error
    if length == 0:
        raise damaged(path, "it holds no frame")
    if length < announced - _tolerance(announced):
        raise damaged(path, f"it is cut short: {length:,} frames of {announced:,}")
    return length


def _decode(path: Path, length: int, wanted: set[int], size: tuple[int, int], channels: int) -> dict[int, Tensor]:
    av = _av()
    pixels = "rgb24" if channels == 3 else "gray"
    found: dict[int, Tensor] = {}
    count = 0
    last = None
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # loaders have processes for that
            for frame in container.decode(stream):
                last = frame
                if count in wanted:
                    if frame.is_corrupt:
                        raise damaged(path, f"frame {count} cannot be decoded")
                    found[count] = _pixels(frame, pixels, size)
                count += 1
                if len(found) == len(wanted):
                    return found
    except (av.error.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        raise damaged(path, _reason(error)) from error
    if last is None or count < length - _tolerance(length):
        raise damaged(path, f"only {count:,} frames of {length:,} can be decoded")
    # Some encoders write a packet or two without a picture: the last frame stands for them.
    closing = _pixels(last, pixels, size)
    return {i: found.get(i, closing) for i in wanted}


def _pixels(frame: Any, pixels: str, size: tuple[int, int]) -> Tensor:
    array = frame.reformat(width=size[1], height=size[0], format=pixels).to_ndarray()
    values = torch.from_numpy(array)
    return values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1)


def _tolerance(length: int) -> int:
    """Packets without a picture that are no damage."""
    return max(2, length // 50)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _av() -> Any:
    try:
        import av
        import av.error
    except ImportError:
        raise MissingExtraError(
            "videos are read by the package av, which is not installed; run: pip install 'lightning-mmnas[video]'"
        ) from None
    return av


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
        for path in files:
            if path not in decoded:
                if not path.is_file():
                    raise damaged(path, "there is no such file")
                decoded[path] = decode_image(path, self.size, self.channels)
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
        files = [column.paths[index]] if isinstance(column, FileColumn) else column.files(index)
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
