"""The primitives of a fused step, each with its forward pass, its readable form and its gradient by hand."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import override

from lightning_mmnas.fusion.dropout import Dropout, keep_bits, keep_scale, kept
from lightning_mmnas.fusion.primitives import Attention, ConcatFC, LinearGLU, Sum, Zero


class Side:
    """An input of a step, (b, l, c), and its gradient where it is wanted, summed in place."""

    def __init__(self, value: Tensor, wanted: bool) -> None:
        self.value, self.wanted = value, wanted
        self.rows = value.flatten(0, 1)  # (b l, c)
        self.gradient: Tensor | None = None

    def add(self, tensor: Tensor, factor: Tensor) -> None:
        """Adds a tensor times a number."""
        if self.wanted:
            self.gradient = tensor * factor if self.gradient is None else self.gradient.addcmul_(tensor, factor)

    def add_product(self, a: Tensor, b: Tensor) -> None:
        """Adds (b l, k) times (k, c)."""
        if self.wanted and self.gradient is None:
            self.gradient = torch.mm(a, b).view_as(self.value)
        elif self.gradient is not None:
            self.gradient.view_as(self.rows).addmm_(a, b)

    def add_products(self, a: Tensor, b: Tensor, factor: float = 1.0) -> None:
        """Adds (b, l, l) times (b, l, c) times a number, sample by sample."""
        if self.wanted and self.gradient is None:
            self.gradient = products(a, b, factor)
        elif self.gradient is not None:
            self.gradient.baddbmm_(a, b, alpha=factor)


@dataclass
class Incoming:
    """What comes back to a primitive.

    Attributes:
        grad: Gradient of the mixture, (b, l, c).
        factor: Weight of the primitive times its `Part.scale`, a number.
        share_wanted: Whether the gradient of the weight is wanted.
        parameters_wanted: Whether those of the parameters are.
        scores: Gradient of the scores x y^T / sqrt(c), (b, l, l), summed over the attentions.
    """

    grad: Tensor
    factor: Tensor
    share_wanted: bool
    parameters_wanted: bool
    scores: Tensor | None = None

    def of_norm(
        self, d_weight: Tensor, weight: Tensor, d_bias: Tensor, bias: Tensor, count: int | None = None
    ) -> "Returned":
        """What a norm returns, given gradients that lack `factor`; its first ``count`` values give the output."""
        share = None
        if self.share_wanted:
            share = _dot(d_weight[:count], weight[:count]) + _dot(d_bias[:count], bias[:count])
        if not self.parameters_wanted:
            return share, []
        return share, [d_weight.mul_(self.factor), d_bias.mul_(self.factor)]


Returned = tuple[Tensor | None, list[Tensor]]
"""The gradient of the weight over `Part.scale`, and those of the parameters, none where they are not wanted."""


class Part:
    """One primitive of a step.

    Args:
        module: The primitive.
        swapped: Whether it is given y, x.
        like: x; the random bits of dropout are drawn for it.
        tied: Whether x is y.
    """

    def __init__(self, module: nn.Module, swapped: bool, like: Tensor, tied: bool) -> None:
        self.swapped, self.tied = swapped, tied
        self.parameters: list[Tensor] = []
        dropout = getattr(module, "dropout", None)
        self.p = dropout.p if isinstance(dropout, Dropout) and dropout.training else 0.0
        self.bits = [keep_bits(like.shape, self.p, like)] if self.p else []
        self.keep_scale = keep_scale(self.p, like)
        self.scale = 1.0
        """What the output that `forward` gives has still to be multiplied by."""

    def drop_(self, out: Tensor, bits: Sequence[Tensor]) -> Tensor:
        """Zeroes in place what dropout drops, without scaling the rest."""
        return out.mul_(kept(bits[0], out.shape, self.p, out)) if bits else out

    def dropped(self, out: Tensor) -> Tensor:
        """Dropout of the readable form."""
        return out * kept(self.bits[0], out.shape, self.p, out) * self.keep_scale if self.bits else out

    def readable(self, x: Tensor, y: Tensor, *parameters: Tensor) -> Tensor:
        """The primitive of its two inputs, (b, l, c), with parameters like those in `parameters`."""
        raise NotImplementedError

    def forward(self, x: Tensor, y: Tensor, scores: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The primitive over `scale`, (b, l, c), and what the gradient needs; scores: x y^T / sqrt(c)."""
        raise NotImplementedError

    def backward(self, x: Side, y: Side, incoming: Incoming, saved: Sequence[Tensor]) -> Returned:
        """Adds the gradients of the inputs to them, and returns the others."""
        raise NotImplementedError


class _ZeroPart(Part):
    @override
    def readable(self, x: Tensor, y: Tensor, *parameters: Tensor) -> Tensor:
        return torch.zeros_like(x)

    @override
    def forward(self, x: Tensor, y: Tensor, scores: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        return torch.zeros_like(x), []

    @override
    def backward(self, x: Side, y: Side, incoming: Incoming, saved: Sequence[Tensor]) -> Returned:
        return incoming.grad.new_zeros(()), []


class _SumPart(Part):
    def __init__(self, module: Sum, swapped: bool, like: Tensor, tied: bool) -> None:
        super().__init__(module, swapped, like, tied)
        self.scale = 2.0 if tied else 1.0

    @override
    def readable(self, x: Tensor, y: Tensor, *parameters: Tensor) -> Tensor:
        return x + y

    @override
    def forward(self, x: Tensor, y: Tensor, scores: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        return x if self.tied else x + y, []

    @override
    def backward(self, x: Side, y: Side, incoming: Incoming, saved: Sequence[Tensor]) -> Returned:
        share = _dot(incoming.grad, x.value) if incoming.share_wanted else None
        x.add(incoming.grad, incoming.factor)
        if not self.tied:
            y.add(incoming.grad, incoming.factor)
            share = None if share is None else share + _dot(incoming.grad, y.value)
        return share, []


class AttentionPart(Part):
    """LayerNorm(dropout(softmax(scores) y))."""

    def __init__(self, module: Attention, swapped: bool, like: Tensor, tied: bool) -> None:
        super().__init__(module, swapped, like, tied)
        self.parameters = [module.norm.weight, module.norm.bias]
        self.eps = module.norm.eps

    @override
    def readable(self, x: Tensor, y: Tensor, *parameters: Tensor) -> Tensor:
        weight, bias = parameters
        shares = (x @ y.transpose(1, 2) / math.sqrt(x.shape[2])).softmax(-1)
        return F.layer_norm(self.dropped(shares @ y), weight.shape, weight, bias, self.eps)

    @override
    def forward(self, x: Tensor, y: Tensor, scores: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        assert scores is not None
        shares = (scores.transpose(1, 2) if self.swapped else scores).softmax(-1)
        read = self.drop_(products(shares, y, self.keep_scale), self.bits)
        weight, bias = self.parameters
        out, mean, inverse = torch.native_layer_norm(read, weight.shape, weight, bias, self.eps)
        return out, [weight, bias, shares, read, mean, inverse, *self.bits]

    @override
    def backward(self, x: Side, y: Side, incoming: Incoming, saved: Sequence[Tensor]) -> Returned:
        weight, bias, shares, read, mean, inverse, *bits = saved
        norms = incoming.share_wanted or incoming.parameters_wanted
        factor = weight * incoming.factor  # of the gradient that goes on, and of no other
        factor = factor * self.keep_scale if bits else factor
        grad, d_weight, d_bias = torch.ops.aten.native_layer_norm_backward(
            incoming.grad, read, weight.shape, mean, inverse, factor, bias, [True, norms, norms]
        )
        grad = self.drop_(grad, bits)
        y.add_products(shares.transpose(1, 2), grad)
        d_shares = torch.bmm(grad, y.value.transpose(1, 2))
        d_scores = d_shares.sub_(torch.linalg.vecdot(d_shares, shares).unsqueeze(-1)).mul_(shares)
        if self.swapped:
            d_scores = d_scores.transpose(1, 2)
        incoming.scores = d_scores if incoming.scores is None else incoming.scores + d_scores
        return incoming.of_norm(d_weight, weight, d_bias, bias)


class _LinearPart(Part):
    """What `LinearGLU` and `ConcatFC` share: activation(BN(W_x x + W_y y + bias)), then dropout."""

    def __init__(self, module: LinearGLU | ConcatFC, swapped: bool, like: Tensor, tied: bool) -> None:
        super().__init__(module, swapped, like, tied)
        self.norm, linear = module.norm, module.linear
        self.momentum = self.norm.momentum or 0.0
        self.parameters = [linear.weight_x, linear.weight_y, linear.bias, self.norm.weight, self.norm.bias]
        self.scale = self.keep_scale

    @override
    def readable(self, x: Tensor, y: Tensor, *parameters: Tensor) -> Tensor:
        weight_x, weight_y, bias, scale, shift = parameters
        product = F.linear(x, weight_x, bias) + F.linear(y, weight_y)
        normed = F.batch_norm(product.flatten(0, 1), None, None, scale, shift, True, 0.0, self.norm.eps)
        return self.dropped(self.activation(normed.view_as(product)))

    @override
    def forward(self, x: Tensor, y: Tensor, scores: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        weight_x, weight_y, bias, scale, shift = self.parameters
        if self.tied:
            weight_x = weight_y = self.parameters[0] + self.parameters[1]
        product = torch.addmm(bias, x.flatten(0, 1), weight_x.t())
        if not self.tied:
            product.addmm_(y.flatten(0, 1), weight_y.t())
        normed, mean, inverse = torch.native_batch_norm(
            product, scale, shift, *self._running(), True, self.momentum, self.norm.eps
        )
        out = self.activation(normed)
        return self.drop_(out, self.bits).view_as(x), [
            weight_x,
            weight_y,
            scale,
            shift,
            product,
            mean,
            inverse,
            *self.bits,
        ]

    def _running(self) -> tuple[Tensor | None, Tensor | None]:
        """The running statistics where this pass counts, which is noted."""
        norm = self.norm
        if not norm.track_running_stats or norm.running_mean is None:
            return None, None
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
        return norm.running_mean, norm.running_var

    @override
    def backward(self, x: Side, y: Side, incoming: Incoming, saved: Sequence[Tensor]) -> Returned:
        weight_x, weight_y, scale, shift, product, mean, inverse, *bits = saved
        factor = scale * inverse
        normed = torch.addcmul(torch.addcmul(shift, mean, factor, value=-1), product, factor)
        grad = self.activation_backward(incoming.grad.view_as(x.rows), normed, bits)
        grad, d_scale, d_shift = torch.ops.aten.native_batch_norm_backward(
            grad, product, scale * incoming.factor, None, None, mean, inverse, True, self.norm.eps, [True, True, True]
        )
        x.add_product(grad, weight_x)
        if not self.tied:
            y.add_product(grad, weight_y)
        c = x.rows.shape[1]  # of a GLU's channels, those that are gated give its output linearly
        share, norms = incoming.of_norm(d_scale, scale, d_shift, shift, c)
        if not incoming.parameters_wanted:
            return share, []
        d_weight = torch.mm(grad.t(), x.rows)
        d_weights = [d_weight, d_weight if self.tied else torch.mm(grad.t(), y.rows)]
        return share, [*d_weights, torch.zeros_like(d_shift), *norms]

    def activation(self, normed: Tensor) -> Tensor:
        """Of what batch norm gives, (..., channels) -> (..., c)."""
        raise NotImplementedError

    def activation_backward(self, grad: Tensor, normed: Tensor, bits: Sequence[Tensor]) -> Tensor:
        """Gradient of what batch norm gave, through dropout and activation."""
        raise NotImplementedError


class _LinearGLUPart(_LinearPart):
    @override
    def activation(self, normed: Tensor) -> Tensor:
        return F.glu(normed, dim=-1)

    @override
    def activation_backward(self, grad: Tensor, normed: Tensor, bits: Sequence[Tensor]) -> Tensor:
        if bits:
            grad = kept(bits[0], grad.shape, self.p, grad).mul_(grad)
        out: Tensor = torch.ops.aten.glu_backward(grad, normed, -1)
        return out


class _ConcatFCPart(_LinearPart):
    @override
    def activation(self, normed: Tensor) -> Tensor:
        return normed.relu_()

    @override
    def activation_backward(self, grad: Tensor, normed: Tensor, bits: Sequence[Tensor]) -> Tensor:
        out: Tensor = torch.ops.aten.threshold_backward(grad, normed, 0)
        return self.drop_(out, bits)


def products(a: Tensor, b: Tensor, factor: float) -> Tensor:
    """(b, k, m) times (b, m, n) times a number -> (b, k, n)."""
    return torch.baddbmm(a[:1, :1, :1], a, b, beta=0, alpha=factor)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.dot(a.flatten(), b.flatten())


PARTS: dict[type[nn.Module], Any] = {
    Zero: _ZeroPart,
    Sum: _SumPart,
    Attention: AttentionPart,
    LinearGLU: _LinearGLUPart,
    ConcatFC: _ConcatFCPart,
}
