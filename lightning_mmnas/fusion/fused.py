"""Autograd functions that pass over memory less often than the readable forms beside them, and the switch for them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor

_fused: ContextVar[bool] = ContextVar("fused", default=True)
_LARGE = 2**16
"""Values of a tensor from which the fused functions of a supernet are faster (`python -m benchmarks.run`)."""


@contextmanager
def readable() -> Iterator[None]:
    """Has the readable forms used instead of the fused ones, which compute the same: for comparing and debugging."""
    token = _fused.set(False)
    try:
        yield
    finally:
        _fused.reset(token)


def is_fused() -> bool:
    """Whether the fused forms are used: not where torch takes a function apart, to compile or to transform it."""
    return _fused.get() and not (torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active())


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
            again: Tensor = gradients_again(readable_mean_and_max, ctx, grad, x)[0]
            return again
        mean, top = grad.chunk(2, dim=2)
        found: Tensor = (x == out.chunk(2, dim=2)[1][:, :, None]).to(grad.dtype)
        return found.mul_((top / found.sum(2))[:, :, None]).add_((mean / x.shape[2])[:, :, None])


def is_large(x: Tensor) -> bool:
    """Whether more and smaller kernels cost less than what they save; measured on CPUs only."""
    return x.device.type == "cpu" and x.numel() >= _LARGE


def weighted_sums(weights: Tensor, tensors: Sequence[Tensor]) -> Tensor:
    """Sums of n tensors of one shape and type, (r, n) weights -> (r, *shape); large ones are not copied into one."""
    if not is_fused() or not is_large(tensors[0]) or torch.is_autocast_enabled("cpu"):
        return readable_weighted_sums(weights, *tensors)
    out: Tensor = _WeightedSums.apply(weights.to(tensors[0].dtype), *tensors)
    return out


def readable_weighted_sums(weights: Tensor, *tensors: Tensor) -> Tensor:
    """(r, n) and n tensors -> (r, *shape)."""
    stacked = torch.stack(tensors)
    return (weights.to(stacked.dtype) @ stacked.flatten(1)).view(-1, *stacked.shape[1:])


def weighted_sum(weights: Tensor | Sequence[Tensor], tensors: Sequence[Tensor]) -> Tensor:
    """Sum of weights[k] * tensors[k], of one shape."""
    out = weights[0] * tensors[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        out = torch.addcmul(out, tensor, weight)
    return out


class _WeightedSums(torch.autograd.Function):
    """`readable_weighted_sums`."""

    @staticmethod
    def forward(ctx: Any, weights: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(weights, *tensors)
        columns = weights.t().reshape(len(tensors), -1, *[1] * tensors[0].ndim)
        out = columns[0] * tensors[0]
        for column, tensor in zip(columns[1:], tensors[1:], strict=True):
            out.addcmul_(column, tensor)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        weights, *tensors = ctx.saved_tensors
        if torch.is_grad_enabled():  # further derivatives are wanted
            return gradients_again(readable_weighted_sums, ctx, grad, weights, *tensors)
        rows = grad.flatten(1)  # (r, size)
        d_weights: Tensor | None = None
        d_tensors: Sequence[Tensor | None] = [None] * len(tensors)
        if ctx.needs_input_grad[0]:
            d_weights = torch.stack([torch.mv(rows, tensor.flatten()) for tensor in tensors], 1)
        if any(ctx.needs_input_grad[1:]):
            d_tensors = torch.mm(weights.t(), rows).view(-1, *grad.shape[1:]).unbind()
        return d_weights, *d_tensors


def gradients_again(readable: Callable[..., Tensor], ctx: Any, grad: Tensor, *inputs: Tensor | None) -> Any:
    """The gradients of a fused function by autograd of its readable form, so that they can be differentiated again.

    Args:
        readable: Of the inputs, the output.
        ctx: Of the fused function, whose last inputs these are.
        grad: Of the output.
        inputs: Saved; None is given as it is.
    """
    wanted = ctx.needs_input_grad[-len(inputs) :]
    # Views: what comes before one of the inputs in the graph may be another of them.
    places = [None if place is None else place.view_as(place) for place in inputs]
    of = [place for place, is_wanted in zip(places, wanted, strict=True) if is_wanted and place is not None]
    found = iter(torch.autograd.grad(readable(*places), of, grad, create_graph=True, allow_unused=True))
    return tuple(next(found) if is_wanted else None for is_wanted in wanted)
