"""The filters of the mel scale, which encoders of sound and prepared spectrograms share."""

import math

import torch
from torch import Tensor

from lightning_mmnas.errors import ConfigError


def mel_filters(mels: int, bins: int, rate: int, low: float = 0.0, high: float | None = None) -> Tensor:
    """Triangular filters, equally far apart on the mel scale, of height 1, shape (mels, bins).

    The scale is that of HTK, mel(f) = 2595 log10(1 + f / 700); filter i rises from corner i to i + 1 and falls to
    i + 2 of mels + 2 corners, linearly in Hz. Slaney's variant, which divides each by its width, is not used.

    Args:
        mels: Number of filters, > 0.
        bins: Frequencies of the spectrum, from 0 to rate / 2, both included.
        rate: Samples per second, in Hz.
        low: Lowest corner, in Hz.
        high: Highest corner, in Hz; None: rate / 2.

    Raises:
        ConfigError: A filter holds none of the frequencies: too many filters for so few bins.
    """
    high = rate / 2 if high is None else high
    first, last = (2595 * math.log10(1 + f / 700) for f in (low, high))
    corners = 700 * (10 ** (torch.linspace(first, last, mels + 2, dtype=torch.float64) / 2595) - 1)
    frequencies = torch.linspace(0, rate / 2, bins, dtype=torch.float64)
    left, peak, right = (corners[i : mels + i, None] for i in range(3))
    rise, fall = (frequencies - left) / (peak - left), (right - frequencies) / (right - peak)
    filters = torch.minimum(rise, fall).clamp(min=0)
    if not bool((filters.sum(1) > 0).all()):
        raise ConfigError(f"{mels} mel filters are too many for {bins} frequencies; take fewer, or a longer window")
    return filters.float()
