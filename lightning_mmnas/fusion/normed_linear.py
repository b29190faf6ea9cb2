"""Linear layers in front of a batch norm, which takes their bias out again.

The gradient of such a bias is zero. Summed over the batch it is rounding noise, of which Adam makes whole steps:
networks trained alone and in groups would part.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class NormedLinear(nn.Linear):
    """``nn.Linear`` that can be told that its bias makes no difference."""

    def forward(self, input: Tensor, normed: bool = False) -> Tensor:
        """(..., in) -> (..., out).

        Args:
            input: Shape (..., in).
            normed: Whether a batch norm with the statistics of the batch follows.
        """
        if not normed or self.bias is None:
            return super().forward(input)
        return F.linear(input, self.weight, at_rest(self.bias))


def at_rest(bias: Tensor) -> Tensor:
    """The same values, with a gradient of exactly zero; with one, so that DDP and weight decay do not miss it."""
    return torch.add(bias.detach(), bias, alpha=0) if bias.requires_grad else bias
