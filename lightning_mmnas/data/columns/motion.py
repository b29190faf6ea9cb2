"""Arrays of sensor channels, brought to one length."""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate, pad

from lightning_mmnas.data.columns.arrays import Array, finite
from lightning_mmnas.data.columns.axes import arrange, way_out
from lightning_mmnas.data.columns.column import damaged

Fit = Literal["resample", "crop"]

_ORDER, _CUTOFF = 12, 0.9
"""Of the low-pass: a Butterworth filter, its cutoff in Nyquist frequencies of the result."""
_NEAR = 2**-10
"""Of numbers that vary by less than this share of their size, float32 would lose more than four digits."""


def read_motion(
    array: Array, channels: int, length: int, fit: Fit = "resample", axes: str | None = None, source: str = "an array"
) -> Tensor:
    """An array of channels as a sample.

    Args:
        array: As the file has it.
        channels: Channels that it must have.
        length: Moments of the result.
        fit: How it is brought to its length: "resample" (see `resample_linearly`) or "crop" (the middle, or zeros at
            the end).
        axes: See `arrange`; None: (t,) or (t, channels).
        source: What to call it in messages.

    Returns:
        Shape (channels, length); float64 where float32 would hide how the numbers vary, as with seconds of the unix
        epoch, else float32.

    Raises:
        DamagedFilesError: It has another shape, or holds NaN or infinity.
    """
    values = arrange(array, "motion", axes, source)
    values = values[:, None] if values.ndim == 1 else values
    if values.shape[1] != channels:
        found = f"an array of shape {array.shape} has {values.shape[1]} channels instead of {channels}"
        raise damaged(source, found + way_out(array, "motion", axes))
    signal = torch.from_numpy(finite(values, source)).T.contiguous()
    if signal.dtype == torch.float64 and not _needs_double(signal):
        signal = signal.float()
    t = signal.shape[1]
    if fit == "crop":
        start = max(0, (t - length) // 2)
        signal = signal[:, start : start + length]
        return pad(signal, (0, length - signal.shape[1])).contiguous()
    return resample_linearly(signal, length)


def resample_linearly(signal: Tensor, length: int, smooth: bool = True) -> Tensor:
    """Brings signals to a length; the first and the last moment stay where they are.

    Longer signals are first freed of what the result cannot hold, frequencies above its Nyquist frequency, which would
    come back as others: by a Butterworth low-pass that runs forth and back, so that nothing is delayed, as
    `scipy.signal.decimate` does with `zero_phase`. Of one moment, the mean is taken.

    Args:
        signal: Shape (channels, t).
        length: Moments of the result.
        smooth: Whether longer signals are freed of these frequencies.

    Returns:
        Shape (channels, length), of the same type.
    """
    t = signal.shape[1]
    if t == length:
        return signal
    kept = lowpass(signal.double(), length) if smooth and t > length else signal
    return interpolate(kept[None], length, mode="linear", align_corners=True)[0].to(signal.dtype)


def lowpass(signal: Tensor, length: int) -> Tensor:
    """Removes what `length` moments cannot hold from longer signals, shape (channels, t)."""
    from scipy.signal import butter, sosfiltfilt

    t = signal.shape[1]
    if length == 1:
        return signal.double().mean(1, keepdim=True).expand(-1, t).to(signal.dtype)
    ratio = (t - 1) / (length - 1)
    filters = butter(_ORDER, _CUTOFF / ratio, output="sos")
    values = signal.double().numpy()
    first = values[:, :1]  # constants stay exactly what they are
    kept = sosfiltfilt(filters, values - first, axis=1, padlen=min(t - 1, int(20 * ratio) + 50))
    return torch.from_numpy(np.ascontiguousarray(kept + first)).to(signal.dtype)


def _needs_double(signal: Tensor) -> bool:
    """Whether a channel varies little for its size, and is no row of float32 anyway."""
    if torch.equal(signal.float().double(), signal):
        return False
    spread, size = signal.amax(1) - signal.amin(1), signal.abs().amax(1)
    return bool((spread < _NEAR * size).any())
