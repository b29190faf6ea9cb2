"""Frames of video files, decoded by FFmpeg through PyAV (our extra `video`), turned as a player turns them."""

import struct
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import damaged
from lightning_mmnas.data.columns.pixels import Channels, grey_of, over_background
from lightning_mmnas.errors import DamagedFilesError, MissingExtraError

_MAX_SIDE = 16_384
"""Pixels; larger frames come from damaged headers."""


def frame_times(path: Path) -> list[float]:
    """When each frame of a video file is shown, in seconds, and when the last one ends.

    Frames that the file holds but hides, as where a film was trimmed without encoding it again, do not count.

    Raises:
        DamagedFilesError: It is no video, or holds fewer frames than its header says.
        MissingExtraError: PyAV is not installed.
    """
    av = _av()
    if path.stat().st_size == 0:
        raise damaged(path, "it is empty")
    found: list[tuple[int | None, int]] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise damaged(path, "it holds no video")
            stream = container.streams.video[0]
            if not (0 < stream.width <= _MAX_SIDE and 0 < stream.height <= _MAX_SIDE):
                raise damaged(path, f"its header says {stream.width} x {stream.height} pixels")
            announced, unit = stream.frames, float(stream.time_base or 1)
            edited = "mp4" in container.format.name  # its header counts hidden frames too, its duration does not
            end = (stream.start_time or 0) + stream.duration if edited and stream.duration else None
            for packet in container.demux(stream):
                if packet.size and not packet.is_discard:  # what an edit list hides the decoder drops
                    found.append((packet.dts if packet.pts is None else packet.pts, packet.duration or 0))
    except DamagedFilesError:  # a ValueError too
        raise
    except (av.error.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        raise damaged(path, _reason(error)) from error
    length = len(found)
    if length == 0:
        raise damaged(path, "it holds no frame")
    if length < announced - _tolerance(announced) and not (end and _reaches(found, end)):
        raise damaged(path, f"it is cut short: {length:,} frames of {announced:,}")
    times = sorted(time for time, _ in found if time is not None)
    if len(set(times)) < length:  # no times, or wrong ones
        return [float(i) for i in range(length + 1)]
    gaps = sorted(later - time for time, later in pairwise(times))
    last = next((duration for time, duration in found if time == times[-1]), 0) or (gaps[len(gaps) // 2] if gaps else 1)
    return [time * unit for time in (*times, times[-1] + last)]


def decode_film(
    path: Path, length: int, wanted: set[int], size: tuple[int, int], channels: Channels
) -> dict[int, Tensor]:
    """Decodes some frames of a video file.

    Args:
        path: The file.
        length: Number of its frames; see `frame_times`.
        wanted: Which of them, by their place in the order in which they are shown.
        size: (h, w) of every frame as it is shown.
        channels: 3 for RGB, 1 for grey.

    Returns:
        The frames by their place, uint8, shape (channels, h, w).

    Raises:
        DamagedFilesError: A frame cannot be decoded.
        MissingExtraError: PyAV is not installed.
    """
    av = _av()
    found: dict[int, Tensor] = {}
    count = 0
    last = None
    turn: _Turn | None = None
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # loaders have processes for that
            for frame in container.decode(stream):
                turn = _turn(frame) if turn is None else turn
                last = frame
                if count in wanted:
                    if frame.is_corrupt:
                        raise damaged(path, f"frame {count} cannot be decoded")
                    found[count] = _pixels(frame, size, channels, turn)
                count += 1
                if len(found) == len(wanted):
                    return _opaque(found, channels)
    except DamagedFilesError:  # a ValueError too
        raise
    except (av.error.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        raise damaged(path, _reason(error)) from error
    if last is None or turn is None or count < length - _tolerance(length):
        raise damaged(path, f"only {count:,} frames of {length:,} can be decoded")
    # Some encoders write a packet or two without a picture: the last frame stands for them.
    closing = _pixels(last, size, channels, turn)
    return _opaque({i: found.get(i, closing) for i in wanted}, channels)


class _Turn(NamedTuple):
    """How a player shows a frame: its sides exchanged first, then mirrored."""

    transpose: bool = False
    left_right: bool = False
    up_down: bool = False


def _turn(frame: Any) -> _Turn:
    """What the display matrix says: x' = a x + c y, y' = b x + d y, to the nearest right angle."""
    from av.sidedata.sidedata import Type

    side = frame.side_data.get(Type.DISPLAYMATRIX)
    if side is None:
        return _Turn()
    a, b, _, c, d = struct.unpack("=5i", bytes(side)[:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return _Turn(False, a < 0, d < 0)
    return _Turn(True, c < 0, b < 0)


def _pixels(frame: Any, size: tuple[int, int], channels: Channels, turn: _Turn) -> Tensor:
    """A frame as it is shown, (c, h, w); of 4 channels where it is transparent somewhere."""
    alpha = any(component.is_alpha for component in frame.format.components)
    pixels = "rgba" if alpha else "rgb24" if channels == 3 else "gray"
    h, w = (size[1], size[0]) if turn.transpose else size
    values = torch.from_numpy(frame.reformat(width=w, height=h, format=pixels).to_ndarray())
    values = values.unsqueeze(0) if values.ndim == 2 else values.permute(2, 0, 1)
    values = values.transpose(1, 2) if turn.transpose else values
    mirrored = [axis for axis, wanted in ((2, turn.left_right), (1, turn.up_down)) if wanted]
    return values.flip(mirrored) if mirrored else values


def _opaque(frames: dict[int, Tensor], channels: Channels) -> dict[int, Tensor]:
    """Frames over their background; see `over_background`."""
    if next(iter(frames.values())).shape[0] != 4:
        return frames
    order = sorted(frames)
    colours = over_background(torch.stack([frames[i] for i in order]).float() / 255) * 255
    if channels == 1:
        colours = grey_of(colours)
    return dict(zip(order, colours.round().clamp(0, 255).to(torch.uint8), strict=True))


def _tolerance(length: int) -> int:
    """Packets without a picture that are no damage."""
    return max(2, length // 50)


def _reaches(found: list[tuple[int | None, int]], end: int) -> bool:
    """Whether frames of these times and durations last until the end, but for those that are no damage."""
    last, duration = max((time, duration) for time, duration in found if time is not None)  # MP4 has all
    return last + duration * (1 + _tolerance(len(found))) >= end


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
