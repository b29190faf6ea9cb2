"""Augmentations of audio on whole batches, on their device; every sample draws its own parameters.

Waveforms have shape (b, c, t), spectrograms (b, c, mel, t). Random numbers come from torch's global generator of the
device.
"""

import torch
from torch import Tensor, nn

from lightning_mmnas.errors import DataError
from lightning_mmnas.views.ranges import check


def shift(x: Tensor, largest: float, fill: Tensor | None = None) -> Tensor:
    """Moves every sample in time; what enters at the other end is `fill`.

    Args:
        x: Audio of shape (b, ..., t).
        largest: Steps are whole and uniform in ± this share of the time, in [0, 1].
        fill: Broadcastable to `x`; None: zero.
    """
    b, t = x.shape[0], x.shape[-1]
    steps = (largest * t * (2 * torch.rand(b, 1, device=x.device) - 1)).round().long()
    source = torch.arange(t, device=x.device) - steps
    inside = (source >= 0) & (source < t)
    between = [1] * (x.ndim - 2)
    moved = x.gather(-1, source.clamp(0, t - 1).view(b, *between, t).expand_as(x))
    return torch.where(inside.view(b, *between, t), moved, x.new_zeros(()) if fill is None else fill)


def add_noise(x: Tensor, strength: float) -> Tensor:
    """Adds white noise; its standard deviation is uniform in [0, strength] times that of the sample.

    Args:
        x: Audio of shape (b, ...).
        strength: >= 0.
    """
    flat = x.flatten(1)
    std = flat.std(1, correction=0).view(-1, *[1] * (x.ndim - 1))
    return x + strength * torch.rand_like(std) * std * torch.randn_like(x)


def mask_stretches(x: Tensor, largest: float, count: int, axis: int, fill: Tensor | None = None) -> Tensor:
    """Replaces random stretches along one axis by `fill`, as the masks of SpecAugment.

    A stretch has a length uniform in [0, largest * size] and a place uniform among those where it fits; several may
    overlap.

    Args:
        x: Audio of shape (b, ..., size, ...).
        largest: Greatest share of the axis for one stretch, in [0, 1].
        count: Stretches per sample.
        axis: Which axis, negative: -1 for time, -2 for the frequencies of a spectrogram.
        fill: Broadcastable to `x`; None: zero.
    """
    b, size = x.shape[0], x.shape[axis]
    length = (largest * size * torch.rand(b, count, 1, device=x.device)).round()
    start = ((size - length + 1) * torch.rand(b, count, 1, device=x.device)).floor()
    steps = torch.arange(size, device=x.device)
    hit = ((steps >= start) & (steps < start + length)).any(1)
    hit = hit.view(b, *[1] * (x.ndim + axis - 1), size, *[1] * (-axis - 1))
    return torch.where(hit, x.new_zeros(()) if fill is None else fill, x)


def mask_band(x: Tensor, largest: float, count: int) -> Tensor:
    """Takes random bands of frequencies out of waveforms (b, c, t), by a Fourier transform of the whole.

    Args:
        x: Waveforms.
        largest: Greatest share of all frequencies for one band, in [0, 1].
        count: Bands per sample.
    """
    spectrum = mask_stretches(torch.fft.rfft(x), largest, count, axis=-1)
    waveform: Tensor = torch.fft.irfft(spectrum, n=x.shape[-1])
    return waveform


class AudioViews(nn.Module):
    """One random view of waveforms or spectrograms.

    In this order: shift in time, gain, noise, masks of time, masks of frequency. The masks are those of SpecAugment
    (Park et al., Interspeech 2019, arXiv:1904.08779), with limits as shares of the axis and without its time warp;
    as there, masked places of a spectrogram take the sample's mean. Those of a waveform are silent. An argument of 0
    switches its augmentation off. Random in evaluation mode too.

    Args:
        shift: Greatest shift as a share of the time, in [0, 1]; see `shift`.
        gain: With u uniform in ± this, waveforms are multiplied by exp(u); to spectrograms, which are taken to be
            logarithmic, u times the sample's standard deviation is added.
        noise: Greatest strength of the noise, in standard deviations of the sample; see `add_noise`.
        time_mask: Greatest share of the time for one mask, in [0, 1]; see `mask_stretches`.
        frequency_mask: Greatest share of the frequencies for one mask, in [0, 1]; for waveforms see `mask_band`.
        masks: Masks of either sort per sample.

    Raises:
        ConfigError: An argument is out of its range.

    Examples:
        >>> AudioViews()(torch.randn(8, 1, 112, 112)).shape
        torch.Size([8, 1, 112, 112])
        >>> AudioViews()(torch.randn(8, 1, 8000)).shape
        torch.Size([8, 1, 8000])
    """

    def __init__(
        self,
        shift: float = 0.1,
        gain: float = 0.3,
        noise: float = 0.2,
        time_mask: float = 0.15,
        frequency_mask: float = 0.15,
        masks: int = 2,
    ) -> None:
        super().__init__()
        check("shift", shift, 0 <= shift <= 1, "in [0, 1]")
        check("gain", gain, gain >= 0, "at least 0")
        check("noise", noise, noise >= 0, "at least 0")
        check("time_mask", time_mask, 0 <= time_mask <= 1, "in [0, 1]")
        check("frequency_mask", frequency_mask, 0 <= frequency_mask <= 1, "in [0, 1]")
        check("masks", masks, masks >= 0, "at least 0")
        self.shift = shift
        self.gain = gain
        self.noise = noise
        self.time_mask = time_mask
        self.frequency_mask = frequency_mask
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        """Returns a view of waveforms (b, c, t) or spectrograms (b, c, mel, t), of the same shape, float32.

        Raises:
            DataError: The shape is neither.
        """
        if x.ndim not in (3, 4):
            raise DataError(f"expected waveforms (b, c, t) or spectrograms (b, c, mel, t), got shape {tuple(x.shape)}")
        x = x.float()
        waveform = x.ndim == 3
        if self.shift > 0:
            x = shift(x, self.shift, _silence(x))
        if self.gain > 0:
            u = self.gain * (2 * torch.rand(len(x), *[1] * (x.ndim - 1), device=x.device) - 1)
            x = x * u.exp() if waveform else x + u * x.std((1, 2, 3), correction=0, keepdim=True)
        if self.noise > 0:
            x = add_noise(x, self.noise)
        silence = _silence(x)
        if self.time_mask > 0:
            x = mask_stretches(x, self.time_mask, self.masks, -1, silence)
        if self.frequency_mask > 0 and waveform:
            x = mask_band(x, self.frequency_mask, self.masks)
        elif self.frequency_mask > 0:
            x = mask_stretches(x, self.frequency_mask, self.masks, -2, silence)
        return x

    def extra_repr(self) -> str:
        """Lists the arguments."""
        return (
            f"shift={self.shift}, gain={self.gain}, noise={self.noise}, time_mask={self.time_mask}, "
            f"frequency_mask={self.frequency_mask}, masks={self.masks}"
        )


def _silence(x: Tensor) -> Tensor | None:
    """What stands for silence: zero (None) in waveforms, the sample's mean in spectrograms."""
    return None if x.ndim == 3 else x.mean((1, 2, 3), keepdim=True)
