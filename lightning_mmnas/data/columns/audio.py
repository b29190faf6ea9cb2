"""Audio files as waveforms of one rate and one length."""

import math
import os
import wave
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import FileColumn, damaged
from lightning_mmnas.errors import ConfigError, MissingExtraError

_RATES = (1_000, 768_000)
"""Rates in Hz that a recording can have; others come from damaged headers."""

_UNKNOWN_SIZE = 0xFFFFFFFF
"""Size in the header of a WAV file that was written to a pipe."""


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


def read_audio(path: Path, rate: int, seconds: float | None = None) -> Tensor:
    """Reads an audio file: its channels averaged, resampled, cropped at the end or padded there with zeros.

    WAV files of integer samples (PCM) are read by the standard library, all others (FLAC, OGG, WAV of floats, MP3, ...)
    by soundfile, which comes with our extra `audio`.

    Args:
        path: The file.
        rate: Samples per second of the result, in Hz; see `resample`.
        seconds: Length of the result; None: that of the file.

    Returns:
        Waveform in [-1, 1], shape (1, t), float32.

    Raises:
        DamagedFilesError: The file is empty, cut short, not audio, or holds NaN.
        MissingExtraError: The format needs soundfile, which is not installed.
    """
    length = None if seconds is None else round(rate * seconds)
    samples, found = _decode(path, seconds)
    if not _RATES[0] <= found <= _RATES[1]:
        raise damaged(path, f"its header says {found} Hz")
    if samples.shape[0] == 0 or samples.shape[1] == 0:
        raise damaged(path, "it holds no sound")
    waveform = torch.from_numpy(samples).mean(1).unsqueeze(0)
    if not bool(torch.isfinite(waveform).all()):
        raise damaged(path, "it holds NaN or infinity")
    waveform = resample(waveform, found, rate)
    return waveform if length is None else fit_length(waveform, length)


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


def _decode(path: Path, seconds: float | None) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    """The samples of a file, (t, channels), as far as `seconds` needs them, and the file's rate in Hz."""
    with open(path, "rb") as file:
        head = file.read(12)
    if not head:
        raise damaged(path, "it is empty")
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        size, present = int.from_bytes(head[4:8], "little"), os.path.getsize(path)
        if size != _UNKNOWN_SIZE and size + 8 > present:
            raise damaged(path, f"it is cut short: {present:,} bytes of {size + 8:,}")
        try:
            return _decode_pcm(path, seconds, piped=size == _UNKNOWN_SIZE)
        except wave.Error:  # floats, compressed: soundfile knows more formats, and says what is wrong
            pass
    try:
        import soundfile
    except ImportError:
        raise MissingExtraError(
            f"{path} is not a WAV file of integer samples; other formats need the package soundfile, "
            "which is not installed; run: pip install 'lightning-mmnas[audio]'"
        ) from None
    with soundfile.SoundFile(os.fspath(path)) as sound:
        rate = int(sound.samplerate)
        wanted = min(int(sound.frames), _needed(rate, seconds))
        samples: np.ndarray[Any, np.dtype[np.float32]] = sound.read(wanted, dtype="float32", always_2d=True)
    if len(samples) < wanted:
        raise damaged(path, f"it is cut short: {len(samples):,} samples of {wanted:,}")
    return samples, rate


def _decode_pcm(path: Path, seconds: float | None, piped: bool) -> tuple[np.ndarray[Any, np.dtype[np.float32]], int]:
    with wave.open(os.fspath(path), "rb") as sound:
        rate, channels, width = sound.getframerate(), sound.getnchannels(), sound.getsampwidth()
        if width not in (1, 2, 3, 4):
            raise damaged(path, f"its header says {width} bytes per sample")
        present = os.path.getsize(path) // (channels * width)
        wanted = min(sound.getnframes(), _needed(rate, seconds), present)
        if sound.getnframes() > present and not piped:
            raise damaged(path, f"it is cut short: at most {present:,} samples of {sound.getnframes():,}")
        content = sound.readframes(wanted)
    if len(content) < wanted * channels * width and not piped:
        raise damaged(path, f"it is cut short: {len(content) // (channels * width):,} samples of {wanted:,}")
    raw = np.frombuffer(content[: len(content) // (channels * width) * channels * width], np.uint8)
    if width == 1:  # unsigned, the others signed
        values = raw.astype(np.float32) - 128
    else:
        # The bytes become the upper ones of an int32.
        whole = np.zeros((len(raw) // width, 4), np.uint8)
        whole[:, 4 - width :] = raw.reshape(-1, width)
        values = whole.view("<i4")[:, 0].astype(np.float32) / 2 ** (8 * (4 - width))
    return values.reshape(-1, channels) / np.float32(2 ** (8 * width - 1)), rate


def _needed(rate: int, seconds: float | None) -> int:
    """Samples of a file at `rate` that `seconds` and the kernel of `resample` can reach; all: the largest integer."""
    return 2**62 if seconds is None else math.ceil(rate * (seconds + 0.1)) + 64
