"""The mixture of a supernet's step in few and large operations: the same numbers as primitive by primitive, faster.

LinearGLU and ConcatFC read the same inputs: their matrices stand below each other in one product, under one batch
norm. A mixture weight is never multiplied with a tensor of activations: it is >= 0, so that w ReLU(t) = ReLU(w t), and
goes into the scale and shift of the norm before. Attention in both directions shares its scores. All dropout masks are
drawn at once.
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.fusion.dropout import keep_mask
from lightning_mmnas.fusion.primitives import Attention, ConcatFC, LinearGLU, Sum, Zero

_KNOWN = (Zero, Sum, Attention, LinearGLU, ConcatFC)


def can_stack(variants: Sequence[nn.Module]) -> bool:
    """Whether `stacked_mixture` computes what the variants of a step compute one by one, as they now stand."""
    kinds = [type(variant) for variant in variants]
    if kinds.count(LinearGLU) != 1 or kinds.count(ConcatFC) != 1 or not set(kinds) <= set(_KNOWN):
        return False
    drops = [v.dropout for v in variants if isinstance(v, Attention | LinearGLU | ConcatFC)]
    norms = [v.norm for v in variants if isinstance(v, LinearGLU | ConcatFC)]
    return (
        all(type(norm) is nn.BatchNorm1d and norm.training for norm in norms)
        and len({(norm.momentum, norm.eps, norm.track_running_stats) for norm in norms}) == 1
        and norms[0].momentum is not None
        and {(drop.p, drop.training) for drop in drops} == {(drops[0].p, True)}
        and not torch.compiler.is_compiling()
    )


def stacked_mixture(
    variants: Sequence[nn.Module], swapped: Sequence[bool], x: Tensor, y: Tensor, weights: Tensor
) -> Tensor:
    """The weighted sum of all variants of a step in training mode.

    Args:
        variants: For which `can_stack` holds.
        swapped: Per variant, whether it is given (y, x).
        x: First input, (b, l, c).
        y: Second input, (b, l, c); the very same tensor when the pairing is tied.
        weights: Mixture weights, >= 0, (variants,).

    Returns:
        The mixture, (b, l, c).
    """
    shares = weights.to(x.dtype).unbind()
    kinds = [type(variant) for variant in variants]
    i, j = kinds.index(LinearGLU), kinds.index(ConcatFC)
    glu, fc = cast(LinearGLU, variants[i]), cast(ConcatFC, variants[j])
    terms = [*_glu_and_fc(glu, fc, x, y, shares[i], shares[j])]
    scores = x @ y.transpose(1, 2) / math.sqrt(x.shape[-1])  # (b, l, l), x asks and y answers
    attentions = [k for k, kind in enumerate(kinds) if kind is Attention]
    for k in attentions:
        terms.append(scores.transpose(1, 2).softmax(-1) @ x if swapped[k] else scores.softmax(-1) @ y)
    if glu.dropout.p > 0:
        masks = keep_mask((len(terms), *x.shape), glu.dropout.p, x)
        terms = [term * mask for term, mask in zip(terms, masks.unbind(), strict=True)]
    for position, k in enumerate(attentions, start=2):
        norm = cast(Attention, variants[k]).norm
        scale, shift = shares[k] * norm.weight, shares[k] * norm.bias
        terms[position] = F.layer_norm(terms[position], norm.normalized_shape, scale, shift, norm.eps)
    out = sum(terms[1:], terms[0])
    if Sum in kinds:
        share = shares[kinds.index(Sum)]
        out = torch.addcmul(out, share, x, value=2) if x is y else torch.addcmul(out, share, x + y)
    return out


def _glu_and_fc(
    glu: LinearGLU, fc: ConcatFC, x: Tensor, y: Tensor, glu_share: Tensor, fc_share: Tensor
) -> tuple[Tensor, Tensor]:
    """Both before dropout, times their mixture weights, (b, l, c) each."""
    c, layers = x.shape[-1], (glu.linear, fc.linear)
    weight_x, weight_y = (torch.cat([getattr(layer, name) for layer in layers]) for name in ("weight_x", "weight_y"))
    bias = torch.cat([layer.bias for layer in layers])
    if x is y:
        z = F.linear(x.flatten(0, 1), weight_x + weight_y, bias)  # (b l, 3c)
    else:
        z = F.linear(x.flatten(0, 1), weight_x, bias)
        z.addmm_(y.flatten(0, 1).to(z.dtype), weight_y.t().to(z.dtype))  # autocast casts nothing for what is in place
    shares = torch.stack(
        [glu_share, torch.ones_like(glu_share), fc_share]
    )  # none in the gate, whose sigmoid is not linear
    factor = shares[:, None].expand(3, c).reshape(-1)
    values, rectified = torch.split(
        _batch_norm((glu.norm, fc.norm), z, factor).view(*x.shape[:2], 3 * c), [2 * c, c], -1
    )
    return F.glu(values, dim=-1), F.relu(rectified)


def _batch_norm(norms: Sequence[nn.BatchNorm1d], z: Tensor, factor: Tensor) -> Tensor:
    """Batch norms of neighbouring channels in training mode, (n, channels); scales and shifts times a factor."""
    scale = factor * torch.cat([norm.weight for norm in norms])
    shift = factor * torch.cat([norm.bias for norm in norms])
    momentum, eps = cast(float, norms[0].momentum), norms[0].eps
    if not norms[0].track_running_stats:  # the statistics of the batch, which are not kept
        return F.batch_norm(z, None, None, scale, shift, True, momentum, eps)
    means, variances = (
        [cast(Tensor, getattr(norm, name)) for norm in norms] for name in ("running_mean", "running_var")
    )
    mean, variance = torch.cat(means), torch.cat(variances)
    out = F.batch_norm(z, mean, variance, scale, shift, True, momentum, eps)
    with torch.no_grad():
        for own, new in ((means, mean), (variances, variance)):
            for buffer, part in zip(own, torch.split(new, [len(buffer) for buffer in own]), strict=True):
                buffer.copy_(part)
        for norm in norms:
            cast(Tensor, norm.num_batches_tracked).add_(1)
    return out
