"""Audio files as waveforms of one rate and one length."""

import io
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import FileColumn, damaged
from lightning_mmnas.data.columns.content import Source, form_of, open_source, source_name
from lightning_mmnas.data.columns.wav import WavHeader, read_wav, wav_header
from lightning_mmnas.errors import ConfigError, MissingExtraError

_RATES = (1_000, 768_000)
"""Rates in Hz that a recording can have; others come from damaged headers."""
_ENDLESS = 2**36
"""Samples from which a length is none: FLAC counts with 36 bits, libsndfile says "unknown" by its largest integer."""
_OGG_PAGE = 27 + 255 + 255 * 255
"""Bytes of the largest page of an OGG file."""
_BLOCK = 2**20
"""Samples that are read at once where the number of all is not known."""
_CANCELLED = 0.2
"""Channels cancel where their mean has less than this share of the power that independent channels would leave."""
_LOUDEST = 100.0
"""Floats beyond it are no waveform in [-1, 1] that was driven too high, but other numbers."""


@dataclass(frozen=True)
class Waveform:
    """A decoded sound.

    Attributes:
        samples: Shape (channels, t), float32.
        rate: Samples per second, in Hz.
    """

    samples: Tensor
    rate: int


def audio_column(paths: Sequence[Path], rate: int, seconds: float) -> FileColumn:
    """A column of audio files, each read as by `read_audio`.

    Args:
        paths: One file per sample: WAV, FLAC, OGG, ...
        rate: Samples per second, in Hz.
        seconds: Length of every waveform; the shape of a sample is (1, round(rate * seconds)).

    Raises:
        ConfigError: The rate or the length is not positive.
    """
    if rate < 1 or round(rate * seconds) < 1:
        raise ConfigError(f"rate and seconds must be positive, got rate={rate} and seconds={seconds}")
    return FileColumn(paths, partial(read_audio, rate=rate, seconds=seconds))


def read_audio(source: Source | Waveform, rate: int, seconds: float | None = None) -> Tensor:
    """Reads an audio file: its channels made one, resampled, cropped at the end or padded there with zeros.

    WAV files of integers (PCM) or floats are read as they are, all others (FLAC, OGG, Opus, MP3, AIFF, ...) by
    soundfile, which comes with our extra `audio`. What a file is decides its content, not its name.

    Args:
        source: The file, or its content, or what was decoded from it.
        rate: Samples per second of the result, in Hz; see `resample`.
        seconds: Length of the result; None: that of the file.

    Returns:
        Waveform, shape (1, t), float32; see `mono`. It is in [-1, 1], but for floats that a file has beyond, up to 100,
            and where `resample` overshoots.

    Raises:
        DamagedFilesError: The file is empty, cut short, not audio, or holds NaN.
        MissingExtraError: The format needs soundfile, which is not installed.
    """
    name = "a sound in memory" if isinstance(source, Waveform) else source_name(source, "a sound")
    samples, found = _decoded(source, name, seconds)
    if not _RATES[0] <= found <= _RATES[1]:
        raise damaged(name, f"its header says {found} Hz")
    if samples.numel() == 0:
        raise damaged(name, "it holds no sound")
    try:
        return fit_waveform(samples, found, rate, seconds)
    except ValueError as error:
        raise damaged(name, str(error)) from None


def fit_waveform(waveform: Tensor, before: int, rate: int, seconds: float | None = None) -> Tensor:
    """A waveform (channels, t) of rate `before` as `read_audio` gives that of a file.

    Raises:
        ValueError: It holds NaN or infinity, or numbers that are no waveform in [-1, 1].
    """
    if not bool(torch.isfinite(waveform).all()):
        raise ValueError("it holds NaN or infinity")
    if (peak := float(waveform.abs().max())) > _LOUDEST:
        raise ValueError(f"its floats reach {peak:,.0f}, those of a sound are in [-1, 1]")
    waveform = resample(mono(waveform), before, rate)
    return waveform if seconds is None else fit_length(waveform, round(rate * seconds))


def mono(waveform: Tensor) -> Tensor:
    """The mean of all channels; where they cancel, the loudest of them.

    Stereo whose one channel is the other upside down (a microphone wired the wrong way round, an effect) would become
    silence. The mean counts as cancelled where its power is less than a fifth of what independent channels leave: for
    two channels, where their correlation is below -0.8.

    Args:
        waveform: Shape (channels, t).

    Returns:
        Shape (1, t).
    """
    mean = waveform.T.contiguous().mean(1).unsqueeze(0)
    if not _cancels(waveform, mean):
        return mean
    return waveform[waveform.square().mean(1).argmax()].unsqueeze(0).contiguous()


def channels_cancel(source: Source | Waveform, seconds: float = 30.0) -> bool:
    """Whether `mono` takes the loudest channel of a file, as far as its first seconds tell.

    Raises:
        DamagedFilesError: See `read_audio`.
        MissingExtraError: See `read_audio`.
    """
    name = "a sound in memory" if isinstance(source, Waveform) else source_name(source, "a sound")
    waveform, _ = _decoded(source, name, seconds)
    return waveform.numel() > 0 and _cancels(waveform, waveform.mean(0, keepdim=True))


def sound_length(source: Source | Waveform) -> tuple[int, int, float]:
    """Rate in Hz, channels and seconds of a file, from its header where that knows them.

    Args:
        source: The file, or its content, or what was decoded from it.

    Raises:
        DamagedFilesError: It is empty, or no sound.
        MissingExtraError: The format needs soundfile, which is not installed.
    """
    if isinstance(source, Waveform):
        channels, length = source.samples.shape
        return source.rate, channels, length / source.rate
    name = source_name(source, "a sound")
    with open_source(source) as stream:
        header = _header(stream, name)
    if header is not None and header.plain:
        rate, channels, length = header.rate, header.channels, header.length
    else:
        with _soundfile(source, name) as sound:
            rate, channels, length = int(sound.samplerate), int(sound.channels), int(sound.frames)
            if length >= _ENDLESS:
                length = sum(len(block) for block in _blocks(sound, _ENDLESS))
    if not _RATES[0] <= rate <= _RATES[1]:
        raise damaged(name, f"its header says {rate} Hz")
    return rate, channels, length / rate


def fit_length(waveform: Tensor, length: int) -> Tensor:
    """Crops the end of waveforms (..., t), or pads it with zeros, to shape (..., length)."""
    waveform = waveform[..., :length]
    return torch.nn.functional.pad(waveform, (0, length - waveform.shape[-1]))


def resample(waveform: Tensor, before: int, after: int, zeros: int = 6) -> Tensor:
    """Changes the rate of a waveform by band-limited interpolation.

    Sample m of the result is Σ_n x_n h(m / after - n / before), with h the sinc of the lower of the two Nyquist
    frequencies under a Hann window of `zeros` zero crossings to either side (J. O. Smith, "Digital Audio Resampling",
    https://ccrma.stanford.edu/~jos/resample/); the weights of a sample are scaled to sum to 1, so that a constant
    stays what it is. Outside of the recording the signal is zero, at its ends therefore constants fade.

    Args:
        waveform: Shape (channels, t).
        before: Its rate in Hz.
        after: The rate wanted, in Hz.
        zeros: Zero crossings of the kernel to either side, > 0.

    Returns:
        Shape (channels, ceil(t * after / before)).
    """
    if before == after:
        return waveform
    divisor = math.gcd(before, after)
    before, after = before // divisor, after // divisor
    t = waveform.shape[1]
    size = -(-t * after // before)
    cutoff = min(1.0, after / before)  # cycles per two samples of the input
    reach = math.ceil(zeros / cutoff)
    # Position m * before / after as whole and rest in integers: exact for recordings of any length.
    position = torch.arange(size) * before
    phases, phase = torch.unique(position % after, return_inverse=True)
    offsets = torch.arange(-reach, reach + 1)
    distance = cutoff * (phases.double()[:, None] / after - offsets)  # in zero crossings, (phases, 2 reach + 1)
    window = torch.cos(distance.clamp(-zeros, zeros) * (math.pi / zeros / 2)) ** 2
    kernel = torch.sinc(distance) * window
    kernel = (kernel / kernel.sum(1, keepdim=True)).to(waveform.dtype)
    padded = torch.nn.functional.pad(waveform, (reach, reach))
    taps = padded[:, (position // after)[:, None] + (offsets + reach)]  # (channels, size, 2 reach + 1)
    return (taps * kernel[phase]).sum(2)


def _cancels(waveform: Tensor, mean: Tensor) -> bool:
    power = float(waveform.double().square().mean())
    return float(mean.double().square().mean()) * len(waveform) < _CANCELLED * power


def _header(stream: BinaryIO, name: str) -> WavHeader | None:
    """The header of a WAV file; None for other files."""
    try:
        return wav_header(stream)
    except ValueError as error:
        raise damaged(name, str(error)) from None


def _decoded(source: Source | Waveform, name: str, seconds: float | None) -> tuple[Tensor, int]:
    """The samples of a sound, (channels, t), as far as `seconds` needs them, and its rate in Hz."""
    if isinstance(source, Waveform):
        return source.samples, source.rate
    samples, rate = _decode(source, name, seconds)
    return torch.from_numpy(samples).T, rate


def _decode(source: Source, name: str, seconds: float | None) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """The samples of a file, (t, channels), as far as `seconds` needs them, and the file's rate in Hz."""
    with open_source(source) as stream:
        if (header := _header(stream, name)) is not None:
            if header.declared > header.size:
                raise damaged(name, f"it is cut short: {_cut(header, stream.seek(0, os.SEEK_END))}")
            if header.plain:
                return read_wav(stream, header, _needed(header.rate, seconds)), header.rate
    with _soundfile(source, name) as sound:
        rate, known = int(sound.samplerate), int(sound.frames)
        wanted = min(known, _needed(rate, seconds))
        if known >= _ENDLESS:
            blocks = list(_blocks(sound, wanted))
            return np.concatenate(blocks) if blocks else np.zeros((0, 1), np.float32), rate
        samples: np.ndarray[Any, np.dtype[np.float32]] = sound.read(wanted, dtype="float32", always_2d=True)
    if len(samples) < wanted:
        raise damaged(name, f"it is cut short: {len(samples):,} samples of {wanted:,}")
    return samples, rate


def _cut(header: WavHeader, present: int) -> str:
    block = header.channels * header.width
    if header.whole > present or not block:
        return f"{present:,} bytes of {max(header.whole, header.start + header.declared):,}"
    return f"{header.length:,} samples of {header.declared // block:,}"


@contextmanager
def _soundfile(source: Source, name: str) -> Iterator[Any]:
    """Opens a file with soundfile, by its content; whatever goes wrong is damage."""
    with open_source(source) as stream:
        head, present = stream.read(28), stream.seek(0, os.SEEK_END)
        stream.seek(max(0, present - _OGG_PAGE))
        end = stream.read() if head[:4] == b"OggS" else b""
    if not head:
        raise damaged(name, "it is empty")
    form = form_of(source)
    if form is not None and form.kind != "audio":
        raise damaged(name, f"it is {form.name}: no sound that is read; WAV, FLAC, OGG, MP3 and AIFF are")
    whole = _whole(head) if not end else present + _ogg_missing(end)
    if whole is not None and whole > present + (0 if end else 16):  # some programs round up
        raise damaged(name, f"it is cut short: {present:,} bytes of {whole:,}")
    try:
        import soundfile
    except ImportError:
        raise MissingExtraError(
            f"{name} is not a WAV file of PCM or floats; other formats need the package soundfile, which is not "
            "installed; run: pip install 'lightning-mmnas[audio]'"
        ) from None
    try:
        # A path with the suffix .raw would be taken for samples without a header.
        raw = isinstance(source, Path) and source.suffix.lower() == ".raw"
        content = source.read_bytes() if isinstance(source, Path) and raw else _sized(source, name)
        with soundfile.SoundFile(io.BytesIO(content) if isinstance(content, bytes) else os.fspath(content)) as sound:
            yield sound
    except soundfile.SoundFileError as error:
        reason = f"{type(error).__name__}: {getattr(error, 'error_string', str(error))}".splitlines()[0]
        if "does not exist" in reason:  # so libsndfile says of some that it cannot decode
            what = "no sound" if form is None else f"{form.name}, but damaged or of a variant"
            reason = f"it is {what} that libsndfile does not decode"
        raise damaged(name, reason) from error


def _sized(source: Source, name: str) -> Source:
    """A WAV file of another coding whose header has 0 for the size of its samples, with it; others unchanged."""
    with open_source(source) as stream:
        header = _header(stream, name)
        if header is None or not header.declared:
            return source
        stream.seek(header.start - 4)
        if any(stream.read(4)):
            return source
        stream.seek(0)
        content = stream.read()
    return content[: header.start - 4] + header.size.to_bytes(4, "little") + content[header.start :]


def _whole(head: bytes) -> int | None:
    """The size in bytes that a file of other formats than WAV should have, where its header knows."""
    size = None
    if head[:4] == b"FORM":
        size = int.from_bytes(head[4:8], "big") + 8
    elif head[:4] == b".snd":
        size = int.from_bytes(head[4:8], "big") + int.from_bytes(head[8:12], "big")
    elif head[:4] == b"RF64" and head[12:16] == b"ds64":
        size = int.from_bytes(head[20:28], "little") + 8
    elif head[:4] == b"riff":
        size = int.from_bytes(head[16:24], "little")
    return None if size is None or (size >= 0x7F00_0000 and head[:4] in (b"FORM", b".snd")) else size


def _ogg_missing(end: bytes) -> int:
    """Bytes that the last page lacks, by the end of the file: its header has the sizes of what it holds."""
    page = end[end.rfind(b"OggS") :]
    segments = page[26] if len(page) > 26 else 0
    return max(0, 27 + segments + sum(page[27 : 27 + segments]) - len(page))


def _blocks(sound: Any, wanted: int) -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    """The samples of an open file whose length is not known, as a FLAC file that was written to a pipe."""
    sound.seekable = lambda: False  # soundfile seeks behind what it has read, which fails at such a file's end
    while wanted > 0:
        block = sound.read(min(_BLOCK, wanted), dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block
        wanted -= len(block)


def _needed(rate: int, seconds: float | None) -> int:
    """Samples of a file at `rate` that `seconds` and the kernel of `resample` can reach; all: the largest integer."""
    return 2**62 if seconds is None else math.ceil(rate * (seconds + 0.1)) + 64
