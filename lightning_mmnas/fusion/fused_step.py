"""A step of a supernet's cell as one autograd function: the mixture of all its primitives, its gradient by hand.

`readable_step` is what it computes. Against one autograd node per operation it makes fewer and smaller tensors: the
mixture is summed in place; the weight of a primitive scales its small gradients, never an activation; the gradient of
that weight follows from those of the norms, as ``<g, w xhat + b> = <dw, w> + <db, b>``; dropout keeps its random bits
and not its mask; both orders of an attention share their scores; a bias in front of a batch norm has no gradient.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmnas.fusion.dropout import Dropout
from lightning_mmnas.fusion.fused import gradients_again, is_fused, is_large
from lightning_mmnas.fusion.fused_parts import PARTS, AttentionPart, Incoming, Part, Side, products
from lightning_mmnas.fusion.primitives import Attention, ConcatFC, LinearGLU, PairLinear, Sum, Zero

Variant = tuple[nn.Module, bool]
"""A primitive, and whether it is given its two inputs the other way round."""


def fused_step(variants: Sequence[Variant], weights: Tensor, x: Tensor, y: Tensor) -> Tensor | None:
    """The mixture of some primitives of two inputs, or None where the primitives have to be called themselves.

    Args:
        variants: The primitives.
        weights: Of each of them, (k,).
        x: Shape (b, l, c).
        y: Shape (b, l, c); the very same tensor where the pairing is tied.

    Returns:
        Shape (b, l, c).
    """
    if not is_fused() or not _can_fuse(variants, weights, x):
        return None
    parts = [PARTS[type(module)](module, swapped, x, x is y) for module, swapped in variants]
    parameters = [parameter for part in parts for parameter in part.parameters]
    out: Tensor = _FusedStep.apply(parts, weights, x, None if x is y else y, *parameters)
    return out


_KNOWN = {Attention, ConcatFC, Dropout, LinearGLU, PairLinear, Sum, Zero, nn.BatchNorm1d, nn.LayerNorm}
_MOST_DROPPED = 0.999
"""Probability above which dropout is left to the primitives: what is kept may be nothing, its scale infinite."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _can_fuse(variants: Sequence[Variant], weights: Tensor, x: Tensor) -> bool:
    """Whether it is worth it, and nothing that a user or a library may have put into the primitives is passed by."""
    if not is_large(x) or torch.is_autocast_enabled("cpu"):
        return False
    if x.dtype not in (torch.float32, torch.float64) or x.dtype != weights.dtype or len(x) * x.shape[1] < 2:
        return False
    for variant, _ in variants:
        for module in (variant, *variant.children()):
            own = vars(module)
            if type(module) not in _KNOWN or "forward" in own or any(own[hooks] for hooks in _HOOKS):
                return False
            if None in own["_parameters"].values():
                return False
            if isinstance(module, nn.BatchNorm1d) and (not module.training or module.momentum is None):
                return False
            if isinstance(module, Dropout) and module.p > _MOST_DROPPED:
                return False
    return True


class _FusedStep(torch.autograd.Function):
    """`readable_step`; y is None where it is x."""

    @staticmethod
    def forward(
        ctx: Any, parts: list[Part], weights: Tensor, x: Tensor, y: Tensor | None, *parameters: Tensor
    ) -> Tensor:
        second = x if y is None else y
        scores = None
        if any(isinstance(part, AttentionPart) for part in parts):
            scores = products(x, second.transpose(1, 2), x.shape[2] ** -0.5)
        scales = weights.new_tensor([part.scale for part in parts])
        factors = weights * scales
        out: Tensor | None = None
        ctx.counts, everything = [], []
        for factor, part in zip(factors, parts, strict=True):
            made, saved = part.forward(*((second, x) if part.swapped else (x, second)), scores)
            out = made * factor if out is None else out.addcmul_(made, factor)
            ctx.counts.append(len(saved))
            everything += saved
        ctx.parts = parts
        ctx.save_for_backward(weights, factors, scales, x, y, *everything, *parameters)
        assert out is not None
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        parts: list[Part] = ctx.parts
        weights, factors, scales, x, y, *rest = ctx.saved_tensors
        everything, parameters = rest[: sum(ctx.counts)], rest[sum(ctx.counts) :]
        if torch.is_grad_enabled():  # further derivatives are wanted
            return None, *gradients_again(partial(readable_step, parts), ctx, grad, weights, x, y, *parameters)
        _, share_wanted, x_wanted, y_wanted, *parameters_wanted = ctx.needs_input_grad
        first = Side(x, x_wanted)
        second = first if y is None else Side(y, y_wanted)
        grad = grad.contiguous()
        scores: Tensor | None = None
        shares: list[Tensor | None] = []
        d_parameters: list[Tensor | None] = []
        for k, part in enumerate(parts):
            saved, everything = everything[: ctx.counts[k]], everything[ctx.counts[k] :]
            incoming = Incoming(grad, factors[k], share_wanted, any(parameters_wanted), scores)
            sides = (second, first) if part.swapped else (first, second)
            share, found = part.backward(*sides, incoming, saved)
            scores = incoming.scores
            shares.append(share)
            d_parameters += found if any(parameters_wanted) else [None] * len(part.parameters)
        if scores is not None:
            factor = x.shape[2] ** -0.5
            if y is None:
                first.add_products(scores + scores.transpose(1, 2), x, factor)
            else:
                first.add_products(scores, y, factor)
                second.add_products(scores.transpose(1, 2), x, factor)
        d_weights = torch.stack([share for share in shares if share is not None]).mul_(scales) if share_wanted else None
        return None, d_weights, first.gradient, None if y is None else second.gradient, *d_parameters


def readable_step(parts: Sequence[Part], weights: Tensor, x: Tensor, y: Tensor | None, *parameters: Tensor) -> Tensor:
    """What a step computes of the random bits that its parts have drawn; x and y (b, l, c) -> (b, l, c).

    Args:
        parts: The primitives.
        weights: Of each of them, (k,).
        x: Shape (b, l, c).
        y: Shape (b, l, c); None: x.
        parameters: Those of all parts, in order.
    """
    y = x if y is None else y
    out, given = torch.zeros_like(x), iter(parameters)
    for weight, part in zip(weights, parts, strict=True):
        own = [next(given) for _ in part.parameters]
        out = out + weight * part.readable(*((y, x) if part.swapped else (x, y)), *own)
    return out
