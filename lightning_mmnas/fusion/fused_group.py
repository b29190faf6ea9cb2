"""Where groups of networks would pass over memory most often: autograd functions that do so seldom.

Each stands beside its readable form, which is what it computes. `readable()` has the readable forms used.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

_HIGHEST = 50.0
"""1 / temperature up to which sums of exponentials are finite in float32 without their largest term taken out."""

_readable = False


@contextmanager
def readable() -> Iterator[None]:
    """Has the readable forms used, which are slower; for comparing, and for second derivatives."""
    global _readable
    before, _readable = _readable, True
    try:
        yield
    finally:
        _readable = before


def grouped_nt_xent(z: Tensor, temperature: float) -> Tensor:
    """NT-Xent (SimCLR, eq. 1) of every network; projections (g, 2b, d), the first views before the second -> (g,).

    Args:
        z: Not normalised; in float32 or float64.
        temperature: Softmax temperature, unitless, > 0.
    """
    z = F.normalize(z, dim=-1) * temperature**-0.5
    if _readable or temperature * _HIGHEST < 1:
        return readable_nt_xent(z)
    out: Tensor = _NTXent.apply(z)
    return out


def readable_nt_xent(z: Tensor) -> Tensor:
    """Scaled projections (g, 2b, d), whose products are similarities over the temperature -> loss (g,)."""
    b = z.shape[1] // 2
    positives = (z[:, :b] * z[:, b:]).sum(-1)  # (g, b)
    similarities = torch.bmm(z, z.transpose(1, 2))  # (g, 2b, 2b)
    similarities.diagonal(dim1=1, dim2=2).fill_(float("-inf"))
    return similarities.logsumexp(-1).mean(1) - positives.mean(1)


class _NTXent(torch.autograd.Function):
    """`readable_nt_xent` with one matrix E of exponentials, symmetric, in place of five.

    The gradient of mean log sum_j E_ij is (E / r_i + E / r_j) z / 2b with the row sums r: one product of E with both
    z and z / r.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        b = z.shape[1] // 2
        with torch.autocast(z.device.type, enabled=False):
            exponentials = torch.bmm(z, z.transpose(1, 2)).exp_()
        exponentials.diagonal(dim1=1, dim2=2).zero_()
        rows = exponentials.sum(-1)  # (g, 2b)
        ctx.save_for_backward(z, exponentials, rows)
        return rows.log().mean(1) - (z[:, :b] * z[:, b:]).sum((1, 2)) / b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        z, exponentials, rows = ctx.saved_tensors
        n = z.shape[1]
        with torch.autocast(z.device.type, enabled=False):
            left, right = torch.bmm(exponentials, torch.cat([z, z / rows[..., None]], dim=2)).chunk(2, dim=2)
        out = torch.addcdiv(right, left, rows[..., None]).sub_(z.roll(n // 2, 1), alpha=2)
        return out.mul_(grad[:, None, None] / n)


def mean_and_max(x: Tensor) -> Tensor:
    """(g, b, l, c) -> mean and maximum over the positions, (g, b, 2c)."""
    if _readable:
        return readable_mean_and_max(x)
    out: Tensor = _MeanAndMax.apply(x)
    return out


def readable_mean_and_max(x: Tensor) -> Tensor:
    """(g, b, l, c) -> (g, b, 2c)."""
    return torch.cat([x.mean(2), x.amax(2)], dim=2)


class _MeanAndMax(torch.autograd.Function):
    """`readable_mean_and_max`; as there, equal maxima share the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        out = readable_mean_and_max(x)
        ctx.save_for_backward(x, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        mean, top = grad.chunk(2, dim=2)
        found: Tensor = (x == out.chunk(2, dim=2)[1][:, :, None]).to(grad.dtype)
        return found.mul_((top / found.sum(2))[:, :, None]).add_((mean / x.shape[2])[:, :, None])
