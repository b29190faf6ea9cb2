"""Augmentations of skeletons on whole batches, on their device; every sample draws its own parameters.

Random numbers come from torch's global generator of the device. A body that is not there (all zero) stays so.
"""

import torch
from torch import Tensor, nn

from lightning_mmnas.views.motion import crop_resize, jitter, rotate, scaling
from lightning_mmnas.views.ranges import check


def as_motion(x: Tensor) -> Tensor:
    """Skeletons (b, 3, t, joints, bodies) as signals (b, bodies joints 3, t), triads of x, y, z."""
    return x.permute(0, 4, 3, 1, 2).flatten(1, 3)


def as_skeleton(x: Tensor, joints: int, bodies: int) -> Tensor:
    """The inverse of `as_motion`."""
    return x.reshape(len(x), bodies, joints, 3, -1).permute(0, 3, 4, 2, 1)


def mask_joints(x: Tensor, p: float) -> Tensor:
    """Sets every joint of every sample to zero with probability p, in all frames and bodies, but never all of a sample.

    Args:
        x: Skeletons of shape (b, 3, t, joints, bodies).
        p: Probability, in [0, 1].
    """
    draws = torch.rand(x.shape[0], 1, 1, x.shape[3], 1, device=x.device)
    return x * ((draws >= p) | (draws == draws.amax(3, keepdim=True)))


def present(x: Tensor) -> Tensor:
    """Which bodies are there, bool of shape (b, 1, 1, 1, bodies)."""
    return (x != 0).any(1, keepdim=True).any(2, keepdim=True).any(3, keepdim=True)


class SkeletonViews(nn.Module):
    """One random view of skeletons.

    In this order: crop in time (stretched to the full length), rotation of all joints together about a random axis
    through the origin, scale, jitter of every coordinate, joint mask. An argument of 0 (crop: 1) switches its
    augmentation off. Random in evaluation mode too. The origin is the middle of the first body's spine, to which a
    masked joint is moved.

    Args:
        crop: Least share of the time that a crop keeps, in (0, 1]; 0.5 in HCN.
        rotation: Greatest angle of rotation in degrees, in [0, 180].
        scale: The sample's size is multiplied by a factor from N(1, scale²), >= 0.
        jitter: Standard deviation of the noise in metres, >= 0.
        joint_mask: Probability that a joint is masked, in [0, 1]; see `mask_joints`.

    Raises:
        ConfigError: An argument is out of its range.

    Examples:
        >>> SkeletonViews()(torch.randn(8, 3, 32, 25, 2)).shape
        torch.Size([8, 3, 32, 25, 2])
    """

    def __init__(
        self,
        crop: float = 0.5,
        rotation: float = 30.0,
        scale: float = 0.1,
        jitter: float = 0.01,
        joint_mask: float = 0.1,
    ) -> None:
        super().__init__()
        check("crop", crop, 0 < crop <= 1, "in (0, 1]")
        check("rotation", rotation, 0 <= rotation <= 180, "in [0, 180] degrees")
        check("scale", scale, scale >= 0, "at least 0")
        check("jitter", jitter, jitter >= 0, "at least 0")
        check("joint_mask", joint_mask, 0 <= joint_mask <= 1, "in [0, 1]")
        self.crop = crop
        self.rotation = rotation
        self.scale = scale
        self.jitter = jitter
        self.joint_mask = joint_mask

    def forward(self, x: Tensor) -> Tensor:
        """Returns a view of skeletons (b, 3, t, joints, bodies), of the same shape, float32."""
        there, (joints, bodies) = present(x), x.shape[3:]
        signals = as_motion(x.float())
        if self.crop < 1:
            signals = crop_resize(signals, self.crop)
        if self.rotation > 0:
            signals = rotate(signals.contiguous(), self.rotation)
        if self.scale > 0:
            signals = scaling(signals.flatten(1).unsqueeze(1), self.scale).view_as(signals)
        if self.jitter > 0:
            signals = jitter(signals, self.jitter)
        x = as_skeleton(signals, joints, bodies)
        if self.joint_mask > 0:
            x = mask_joints(x, self.joint_mask)
        return (x * there).contiguous()

    def extra_repr(self) -> str:
        """Lists the arguments."""
        return (
            f"crop={self.crop}, rotation={self.rotation}, scale={self.scale}, jitter={self.jitter}, "
            f"joint_mask={self.joint_mask}"
        )
