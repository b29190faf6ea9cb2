"""NT-Xent with few passes over memory, and memory that need not grow with the square of the batch.

`readable_nt_xent` is what it computes. Used where that counts: for groups of networks and for large batches.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_mmnas.fusion.fused import is_fused

_HIGHEST = 50.0
"""1 / temperature up to which sums of exponentials are finite in float32 without their largest term taken out."""

_ON_CPU, _ELSEWHERE = 2**20, 2**25
"""Similarities that there are at once: such that they stay in a processor's cache, or few large kernels elsewhere."""


def fused_nt_xent(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent (SimCLR, eq. 1) of g sets of projections; (g, 2b, d), the first views before the second -> (g,).

    Args:
        z: Not normalised.
        temperature: Softmax temperature, unitless, > 0.
    """
    z = F.normalize(z.to(torch.promote_types(z.dtype, torch.float32)), dim=-1) * temperature**-0.5
    if not is_fused() or temperature * _HIGHEST < 1:
        return readable_nt_xent(z)
    out: Tensor = _NTXent.apply(z)
    return out


def readable_nt_xent(z: Tensor) -> Tensor:
    """Scaled projections (g, 2b, d), whose products are similarities over the temperature -> (g,)."""
    b = z.shape[1] // 2
    positives = (z[:, :b] * z[:, b:]).sum(-1)  # (g, b)
    similarities = torch.bmm(z, z.transpose(1, 2))  # (g, 2b, 2b)
    itself = torch.eye(2 * b, dtype=torch.bool, device=z.device)
    return similarities.masked_fill(itself, -torch.inf).logsumexp(-1).mean(1) - positives.mean(1)


class _NTXent(torch.autograd.Function):
    """`readable_nt_xent` from blocks of E = exp(z z^T), which is symmetric: the half of them is enough.

    With the row sums r of E, the gradient of mean log r is W z / 2b with W_ij = E_ij (1 / r_i + 1 / r_j).
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        n = z.shape[1]
        rows = z.new_zeros(z.shape[:2])
        for first, second in _blocks(z):
            block = _exponentials(z, first, second)
            rows[:, first] += block.sum(2)
            if first != second:
                rows[:, second] += block.sum(1)
        # A single block is kept, several are computed again.
        ctx.save_for_backward(z, rows, *([block] if block.shape[1] == n else []))
        return rows.log().mean(1) - (z[:, : n // 2] * z[:, n // 2 :]).sum((1, 2)) * (2 / n)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        z, rows, *kept = ctx.saved_tensors
        if torch.is_grad_enabled():  # further derivatives are wanted
            again: Tensor = torch.autograd.grad(readable_nt_xent(z), z, grad, create_graph=True)[0]
            return again
        n, inverse = z.shape[1], 1 / rows
        out: Tensor = z.roll(n // 2, 1).mul_(-2)
        with torch.autocast(z.device.type, enabled=False):
            for first, second in _blocks(z):
                block = kept[0] if kept else _exponentials(z, first, second)
                weights = block * (inverse[:, first, None] + inverse[:, None, second])
                out[:, first] += weights @ z[:, second]
                if first != second:
                    out[:, second] += weights.transpose(1, 2) @ z[:, first]
        return out.mul_(grad[:, None, None] / n)


def _blocks(z: Tensor) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the blocks on and above the diagonal, whose sizes follow from the shape of z."""
    g, n, _ = z.shape
    limit = _ON_CPU if z.device.type == "cpu" else _ELSEWHERE
    size = n if g * n * n <= 4 * limit else max(int((limit / g) ** 0.5), 1)
    for i in range(0, n, size):
        for j in range(i, n, size):
            yield slice(i, i + size), slice(j, j + size)


def _exponentials(z: Tensor, first: slice, second: slice) -> Tensor:
    """Rows `first` and columns `second` of exp(z z^T), (g, k, l), zero where both are the same."""
    with torch.autocast(z.device.type, enabled=False):
        block = torch.bmm(z[:, first], z[:, second].transpose(1, 2)).exp_()
    if first == second:
        block.diagonal(dim1=1, dim2=2).zero_()
    return block
