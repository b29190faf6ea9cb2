"""Autograd functions that pass over memory less often than the readable forms beside them, and the switch for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_fused: ContextVar[bool] = ContextVar("fused", default=True)


@contextmanager
def readable() -> Iterator[None]:
    """Has the readable forms used instead of the fused ones, which compute the same: for comparing and debugging."""
    token = _fused.set(False)
    try:
        yield
    finally:
        _fused.reset(token)


def is_fused() -> bool:
    """Whether the fused forms are used."""
    return _fused.get()


def mean_and_max(x: Tensor) -> Tensor:
    """(g, b, l, c) -> mean and maximum over the positions, (g, b, 2c)."""
    if not is_fused():
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
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, out = ctx.saved_tensors
        if torch.is_grad_enabled():  # further derivatives are wanted
            again: Tensor = torch.autograd.grad(readable_mean_and_max(x), x, grad, create_graph=True)[0]
            return again
        mean, top = grad.chunk(2, dim=2)
        found: Tensor = (x == out.chunk(2, dim=2)[1][:, :, None]).to(grad.dtype)
        return found.mul_((top / found.sum(2))[:, :, None]).add_((mean / x.shape[2])[:, :, None])
