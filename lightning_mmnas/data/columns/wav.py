"""WAV files: what their chunks say, and samples of PCM and floats, without another package."""

import os
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

PCM, FLOATS, _EXTENSIBLE = 1, 3, 0xFFFE
_SUBFORMAT = (bytes.fromhex("000000001000800000aa00389b71"), bytes.fromhex("00002107d3118644c8c1ca000000"))
"""What follows the format's number in a `WAVE_FORMAT_EXTENSIBLE` header: Microsoft's and that of ambisonics."""
_UNKNOWN = 0x7F00_0000
"""Sizes from here on that no file has are those of programs that could not go back to the header: 0x7ffff000 by SoX,
0xffffffff by ffmpeg, 0x80000000 by arecord."""


@dataclass(frozen=True)
class WavHeader:
    """What a WAV file says of itself.

    Attributes:
        form: 1: integers (PCM); 3: floats; others are compressed.
        channels: Number of channels.
        rate: Samples per second, in Hz.
        width: Bytes per sample of one channel.
        start: Where the samples begin, in bytes.
        size: Bytes of samples that are there.
        declared: Bytes of samples that there should be.
        whole: Bytes that the whole file should have.
    """

    form: int
    channels: int
    rate: int
    width: int
    start: int
    size: int
    declared: int
    whole: int

    @property
    def plain(self) -> bool:
        """Whether `read_wav` reads it."""
        widths = {PCM: (1, 2, 3, 4), FLOATS: (4, 8)}
        return self.channels > 0 and self.width in widths.get(self.form, ())

    @property
    def length(self) -> int:
        """Samples of each channel that are there."""
        return self.size // (self.channels * self.width)


def wav_header(stream: BinaryIO) -> WavHeader | None:
    """Reads the chunks of a WAV file up to its samples.

    The size of the samples is that of the file where the header does not know it: 0 with more than further chunks
    behind, or 2 GB and more that are not there.

    Returns:
        None where the stream is no WAV file.

    Raises:
        ValueError: A chunk is missing.
    """
    present = stream.seek(0, os.SEEK_END)
    stream.seek(0)
    head = stream.read(12)
    if head[:4] != b"RIFF" or head[8:] != b"WAVE":
        return None
    whole = int.from_bytes(head[4:8], "little") + 8
    form: bytes | None = None
    while len(chunk := stream.read(8)) == 8:
        size, start = int.from_bytes(chunk[4:], "little"), stream.tell()
        if chunk[:4] == b"data":
            if form is None:
                raise ValueError("its samples come before their format")
            code, channels, rate, block, bits = _format(form)
            width = block // channels if channels and block % channels == 0 and block else (bits + 7) // 8
            rest = present - start
            unknown = size >= _UNKNOWN if size > rest else size == 0 and not _chunks_follow(stream, present)
            size = rest if unknown else size
            return WavHeader(code, channels, rate, width, start, min(size, rest), size, present if unknown else whole)
        if chunk[:4] == b"fmt ":
            form = stream.read(min(size, 64))
            if len(form) < 16:
                raise ValueError("its format is cut short")
        stream.seek(start + size + size % 2)
    raise ValueError("it has no samples: its header ends before them")


def read_wav(stream: BinaryIO, header: WavHeader, length: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Reads at most `length` samples of PCM or floats, shape (t, channels), in [-1, 1]."""
    block = header.channels * header.width
    stream.seek(header.start)
    content = stream.read(min(header.length, length) * block)
    raw = np.frombuffer(content[: len(content) // block * block], np.uint8)
    if header.form == FLOATS:
        with np.errstate(over="ignore", invalid="ignore"):
            floats: np.ndarray[Any, np.dtype[np.float32]] = raw.view(np.dtype(f"<f{header.width}")).astype(np.float32)
        return floats.reshape(-1, header.channels)
    if header.width == 1:  # unsigned, the others signed
        values = raw.astype(np.float32) - 128
    else:
        # The bytes become the upper ones of an int32.
        padded = np.zeros((len(raw) // header.width, 4), np.uint8)
        padded[:, 4 - header.width :] = raw.reshape(-1, header.width)
        values = padded.view("<i4")[:, 0].astype(np.float32) / 2 ** (8 * (4 - header.width))
    scaled: np.ndarray[Any, np.dtype[np.float32]] = values / np.float32(2 ** (8 * header.width - 1))
    return scaled.reshape(-1, header.channels)


def _format(form: bytes) -> tuple[int, int, int, int, int]:
    """Code, channels, rate, bytes of a sample of all channels, bits of a sample."""
    code, channels = (int.from_bytes(form[i : i + 2], "little") for i in (0, 2))
    rate = int.from_bytes(form[4:8], "little")
    block, bits = (int.from_bytes(form[i : i + 2], "little") for i in (12, 14))
    if code == _EXTENSIBLE and form[26:40] in _SUBFORMAT:
        code = int.from_bytes(form[24:26], "little")
    return code, channels, rate, block, bits


def _chunks_follow(stream: BinaryIO, present: int) -> bool:
    """Whether what is left of the file is whole chunks, or nothing."""
    place = stream.tell()
    while place + 8 <= present:
        stream.seek(place)
        name, size = stream.read(4), int.from_bytes(stream.read(4), "little")
        if not (name.isascii() and name.decode().isprintable()):
            return False
        place += 8 + size + size % 2
    return place - 1 <= present <= place
