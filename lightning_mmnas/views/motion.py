"""Augmentations of motion signals on whole batches, on their device; every sample draws its own parameters.

Random numbers come from torch's global generator of the device.
"""

import math

import torch
from torch import Tensor, nn

from lightning_mmnas.errors import DataError
from lightning_mmnas.views.ranges import check


def jitter(x: Tensor, std: float) -> Tensor:
    """Adds Gaussian noise.

    Args:
        x: Signals of any shape.
        std: Standard deviation of the noise, in the unit of `x`, >= 0.
    """
    return x + std * torch.randn_like(x)


def scaling(x: Tensor, std: float) -> Tensor:
    """Multiplies every channel of every sample by a factor of its own from N(1, std²).

    Args:
        x: Signals of shape (b, c, t).
        std: Standard deviation of the factors, >= 0.
    """
    return x * (1 + std * torch.randn_like(x[..., :1]))


def random_rotations(size: int, degrees: float, device: torch.device | None = None) -> Tensor:
    """Draws rotations about uniformly random axes, shape (size, 3, 3), float32.

    Rodrigues' formula, R = I + sin(a) K + (1 - cos(a)) K², with K the cross-product matrix of the
    axis.

    Args:
        size: Number of rotations.
        degrees: The angle a is uniform in ± this.
        device: Where to draw.
    """
    axis = nn.functional.normalize(torch.randn(size, 3, device=device), dim=1)
    angle = math.radians(degrees) * (2 * torch.rand(size, 1, 1, device=device) - 1)
    x, y, z = axis.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(size, 3, 3)
    # K² = a aᵀ - I for a unit axis a; elementwise, so that autocast does not round it to bfloat16.
    squared = axis[:, :, None] * axis[:, None, :] - torch.eye(3, device=device)
    return torch.eye(3, device=device) + angle.sin() * cross + (1 - angle.cos()) * squared


def rotate(x: Tensor, degrees: float) -> Tensor:
    """Rotates the axes of a sensor at random, one rotation per sample.

    All triads of channels (joints of a skeleton) of a sample turn together. On standardised
    channels this rotates the standardised axes, which is not quite a rotation of the sensor.

    Args:
        x: Signals of shape (b, 3k, t): triads of x, y, z.
        degrees: Angles are uniform in ± this, in [0, 180].

    Raises:
        DataError: The channels do not come in triads.
    """
    b, c, t = x.shape
    if c % 3:
        raise DataError(f"rotation needs channels in triads of x, y, z, got {c} channels; set rotation to 0")
    rotations = random_rotations(b, degrees, x.device)
    triads = x.view(b, c // 3, 1, 3, t)
    rotated = (rotations[:, None, :, :, None] * triads).sum(3)  # b: sample, triad, axis, t
    return rotated.view(b, c, t).to(x.dtype)


def resample(x: Tensor, positions: Tensor) -> Tensor:
    """Reads signals at fractional positions by linear interpolation.

    Args:
        x: Signals of shape (b, c, t).
        positions: Positions of shape (b, t'), in [0, t - 1].

    Returns:
        Signals of shape (b, c, t').
    """
    last = x.shape[2] - 1
    positions = positions.clamp(0, last)
    left = positions.floor().long().clamp(max=max(last - 1, 0))
    weight = (positions - left).unsqueeze(1).to(x.dtype)
    index = left.unsqueeze(1).expand(-1, x.shape[1], -1)
    before, after = x.gather(2, index), x.gather(2, (index + 1).clamp(max=last))
    return torch.lerp(before, after, weight)


def crop_resize(x: Tensor, smallest: float, largest: float = 1.0) -> Tensor:
    """Cuts out a random stretch of time and stretches it to the full length again.

    Args:
        x: Signals of shape (b, c, t).
        smallest: Least share of the time that is kept, in (0, 1].
        largest: Greatest share, in [smallest, 1].
    """
    b, _, t = x.shape
    share = smallest + (largest - smallest) * torch.rand(b, 1, device=x.device)
    start = (1 - share) * torch.rand(b, 1, device=x.device)
    steps = torch.arange(t, device=x.device)
    return resample(x, start * (t - 1) + share * steps)


def time_warp(x: Tensor, strength: float, waves: int = 3) -> Tensor:
    """Bends time smoothly; beginning and end stay where they are and time never runs backwards.

    The position at time s in [0, 1] is s + Σ_k a_k sin(πks) / (πk) with a_k uniform in
    ±strength / waves, so that the local speed stays within 1 ± strength.

    Args:
        x: Signals of shape (b, c, t).
        strength: Greatest change of speed, in [0, 1).
        waves: Number of sines, > 0.
    """
    b, _, t = x.shape
    amplitudes = strength / waves * (2 * torch.rand(b, waves, 1, device=x.device) - 1)
    k = math.pi * torch.arange(1, waves + 1, device=x.device).unsqueeze(1)
    s = torch.arange(t, device=x.device) / max(t - 1, 1)
    warped = s + (amplitudes * ((k * s).sin() / k)).sum(1)
    return resample(x, warped * (t - 1))


def mask_channels(x: Tensor, p: float) -> Tensor:
    """Sets every channel of every sample to zero with probability p, but never all of a sample.

    Args:
        x: Signals of shape (b, c, t).
        p: Probability, in [0, 1].
    """
    draws = torch.rand(x.shape[0], x.shape[1], 1, device=x.device)
    kept = (draws >= p) | (draws == draws.amax(1, keepdim=True))
    return x * kept


def mask_segment(x: Tensor, largest: float) -> Tensor:
    """Sets one random stretch of time of every sample to zero, in all channels.

    Args:
        x: Signals of shape (b, c, t).
        largest: The stretch is between nothing and this share of the time, in [0, 1].
    """
    b, _, t = x.shape
    length = (largest * t * torch.rand(b, 1, 1, device=x.device)).round()
    start = ((t - length + 1) * torch.rand(b, 1, 1, device=x.device)).floor()
    steps = torch.arange(t, device=x.device)
    return x * ((steps < start) | (steps >= start + length))


class MotionViews(nn.Module):
    """One random view of motion signals.

    In this order: crop, time warp, rotation, scaling, jitter, channel mask, segment mask. An
    argument of 0 (crop: 1) switches its augmentation off. Random in evaluation mode too.
    Masks set to zero, which is the mean of standardised data.

    Args:
        crop: Least share of the time that a crop keeps, in (0, 1]; see `crop_resize`.
        rotation: Greatest angle of rotation in degrees, in [0, 180]; see `rotate`.
        scale: Standard deviation of the scaling factors; see `scaling`.
        jitter: Standard deviation of the noise; see `jitter`.
        warp: Strength of the time warp, in [0, 1); see `time_warp`.
        channel_mask: Probability that a channel is masked, in [0, 1]; see `mask_channels`.
        segment_mask: Greatest share of the time that is masked, in [0, 1]; see `mask_segment`.

    Raises:
        ConfigError: An argument is out of its range.

    Examples:
        >>> MotionViews()(torch.randn(8, 3, 128)).shape
        torch.Size([8, 3, 128])
    """

    def __init__(
        self,
        crop: float = 0.6,
        rotation: float = 30.0,
        scale: float = 0.2,
        jitter: float = 0.1,
        warp: float = 0.0,
        channel_mask: float = 0.0,
        segment_mask: float = 0.0,
    ) -> None:
        super().__init__()
        check("crop", crop, 0 < crop <= 1, "in (0, 1]")
        check("rotation", rotation, 0 <= rotation <= 180, "in [0, 180] degrees")
        check("scale", scale, scale >= 0, "at least 0")
        check("jitter", jitter, jitter >= 0, "at least 0")
        check("warp", warp, 0 <= warp < 1, "in [0, 1)")
        check("channel_mask", channel_mask, 0 <= channel_mask <= 1, "in [0, 1]")
        check("segment_mask", segment_mask, 0 <= segment_mask <= 1, "in [0, 1]")
        self.crop = crop
        self.rotation = rotation
        self.scale = scale
        self.jitter = jitter
        self.warp = warp
        self.channel_mask = channel_mask
        self.segment_mask = segment_mask

    def forward(self, x: Tensor) -> Tensor:
        """Returns a view of signals (b, c, t), of the same shape and type."""
        if self.crop < 1:
            x = crop_resize(x, self.crop)
        if self.warp > 0:
            x = time_warp(x, self.warp)
        if self.rotation > 0:
            x = rotate(x, self.rotation)
        if self.scale > 0:
            x = scaling(x, self.scale)
        if self.jitter > 0:
            x = jitter(x, self.jitter)
        if self.channel_mask > 0:
            x = mask_channels(x, self.channel_mask)
        if self.segment_mask > 0:
            x = mask_segment(x, self.segment_mask)
        return x

    def extra_repr(self) -> str:
        """Lists the arguments."""
        return (
            f"crop={self.crop}, rotation={self.rotation}, scale={self.scale}, "
            f"jitter={self.jitter}, warp={self.warp}, channel_mask={self.channel_mask}, "
            f"segment_mask={self.segment_mask}"
        )
