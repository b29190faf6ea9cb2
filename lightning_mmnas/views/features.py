"""Augmentations of vectors on whole batches; every sample draws its own parameters."""

import torch
from torch import Tensor, nn

from lightning_mmnas.views.motion import jitter
from lightning_mmnas.views.ranges import check


def mask_features(x: Tensor, p: float) -> Tensor:
    """Sets every number to zero with probability p, but never all of a sample.

    Args:
        x: Vectors (b, d).
        p: Probability, in [0, 1].
    """
    draws = torch.rand(x.shape, device=x.device)
    return x * ((draws >= p) | (draws == draws.amax(1, keepdim=True)))


class FeatureViews(nn.Module):
    """One random view of vectors: scaling, noise, masking. Random in evaluation mode too.

    Masks set to zero, which is the mean of standardised data.

    Args:
        scale: Standard deviation of the factor, about 1, that multiplies a sample; >= 0.
        jitter: Standard deviation of Gaussian noise, in the unit of the numbers, >= 0.
        mask: Probability that a number is masked, in [0, 1].

    Raises:
        ConfigError: An argument is out of its range.

    Examples:
        >>> FeatureViews()(torch.randn(8, 5)).shape
        torch.Size([8, 5])
    """

    def __init__(self, scale: float = 0.1, jitter: float = 0.1, mask: float = 0.2) -> None:
        super().__init__()
        check("scale", scale, scale >= 0, "at least 0")
        check("jitter", jitter, jitter >= 0, "at least 0")
        check("mask", mask, 0 <= mask <= 1, "in [0, 1]")
        self.scale = scale
        self.jitter = jitter
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        """Returns a view of vectors (b, d), of the same shape and type."""
        if self.scale > 0:
            x = x * (1 + self.scale * torch.randn_like(x[:, :1]))
        if self.jitter > 0:
            x = jitter(x, self.jitter)
        if self.mask > 0:
            x = mask_features(x, self.mask)
        return x

    def extra_repr(self) -> str:
        """Lists the arguments."""
        return f"scale={self.scale}, jitter={self.jitter}, mask={self.mask}"
