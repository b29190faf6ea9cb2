"""The layers of many networks side by side: the same layer of g networks becomes one batched layer.

States are (g, b, l, c): network, batch, positions, channels. What is not network by network but shared by all of them,
such as features, has no first axis. Every grouped layer holds copies of its members' parameters, and writes them back.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.normed_linear import at_rest
from lightning_mmnas.fusion.primitives import Attention, ConcatFC, LinearGLU, PairLinear, Sum, Zero


class Grouped(nn.Module):
    """Base class: parameters and buffers of the members, stacked along a new first axis.

    Args:
        members: The same layer of each network.
        names: Names of the parameters and buffers to stack; dots reach into submodules.
    """

    def __init__(self, members: Sequence[nn.Module], names: Iterable[str]) -> None:
        super().__init__()
        self._sources: dict[str, list[Tensor]] = {}
        for name in names:
            own = name.replace(".", "_")
            tensors = [_tensor(member, name) for member in members]
            self._sources[own] = tensors
            stacked = torch.stack([tensor.detach() for tensor in tensors])
            if isinstance(tensors[0], nn.Parameter):
                self.register_parameter(own, nn.Parameter(stacked))
            else:
                self.register_buffer(own, stacked)

    @torch.no_grad()
    def write_back(self) -> None:
        """Copies the stacked values into the members they came from."""
        for own, tensors in self._sources.items():
            for tensor, value in zip(tensors, cast(Tensor, getattr(self, own)), strict=True):
                tensor.copy_(value)


class GroupedLinear(Grouped):
    """``nn.Linear`` of g networks, (n, in) or (g, n, in) -> (g, n, out)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        self.with_bias = cast(nn.Linear, members[0]).bias is not None
        super().__init__(members, ("weight", "bias") if self.with_bias else ("weight",))

    def forward(self, x: Tensor, normed: bool = False) -> Tensor:
        """(n, in), the same for all networks, or (g, n, in) -> (g, n, out); normed: see `NormedLinear`."""
        bias = self.bias if self.with_bias else None
        return linear(x, self.weight, bias if bias is None or not normed else at_rest(bias))


class GroupedBatchNorm(Grouped):
    """``nn.BatchNorm1d`` of g networks over (g, n, c), each with statistics of its own."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__(members, ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"))
        first = cast(nn.BatchNorm1d, members[0])
        self.eps, self.momentum = first.eps, cast(float, first.momentum)

    def forward(self, x: Tensor) -> Tensor:
        """(g, n, c) -> (g, n, c)."""
        if not self.training:
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            return torch.addcmul((self.bias - self.running_mean * scale)[:, None], x, scale[:, None])
        out, mean, var = _BatchNorm.apply(x, self.weight, self.bias, self.eps)
        n = x.shape[1]
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (n / (n - 1)), self.momentum)
            self.num_batches_tracked += 1
        return cast(Tensor, out)


class _BatchNorm(torch.autograd.Function):
    """Batch norm of (g, n, c) over n; autograd through the plain formula would keep and pass over twice as much."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        mean = x.mean(1, keepdim=True)
        normalised = x - mean
        var = (normalised * normalised).mean(1, keepdim=True)
        inverse = torch.rsqrt(var + eps)
        normalised.mul_(inverse)
        ctx.save_for_backward(normalised, weight, inverse)
        mean, var = mean.squeeze(1), var.squeeze(1)
        ctx.mark_non_differentiable(mean, var)
        return torch.addcmul(bias[:, None], normalised, weight[:, None]), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        normalised, weight, inverse = ctx.saved_tensors
        n = grad.shape[1]
        bias_grad = grad.sum(1)
        weight_grad = (grad * normalised).sum(1)
        centred = torch.addcmul(grad, normalised, weight_grad[:, None], value=-1.0 / n)
        centred.sub_(bias_grad[:, None] / n).mul_(weight[:, None] * inverse)
        return centred, weight_grad, bias_grad, None


class GroupedLayerNorm(Grouped):
    """``nn.LayerNorm`` over (l, c) of g networks, (g, b, l, c) -> (g, b, l, c)."""

    weight: Tensor
    bias: Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__(members, ("weight", "bias"))
        first = cast(nn.LayerNorm, members[0])
        self.shape, self.eps = tuple(first.normalized_shape), first.eps

    def forward(self, x: Tensor) -> Tensor:
        """(g, b, l, c) -> (g, b, l, c)."""
        return torch.addcmul(self.bias[:, None], F.layer_norm(x, self.shape, eps=self.eps), self.weight[:, None])


class GroupedPairLinear(Grouped):
    """`PairLinear` of g networks: (g, b, l, c), (g, b, l, c) -> (g, b l, out)."""

    weight_x: Tensor
    weight_y: Tensor
    bias: Tensor

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__([cast(PairLinear, member) for member in members], ("weight_x", "weight_y", "bias"))

    def forward(self, x: Tensor, y: Tensor, normed: bool = False) -> Tensor:
        """(g, b, l, c), (g, b, l, c) -> (g, b l, out); normed: see `NormedLinear`."""
        out = linear(x.flatten(1, 2), self.weight_x, at_rest(self.bias) if normed else self.bias)
        return torch.baddbmm(out, y.flatten(1, 2), self.weight_y.transpose(1, 2))


class _GroupedZero(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(x)


class _GroupedSum(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


class _GroupedAttention(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.norm = GroupedLayerNorm([_module(member, "norm") for member in members])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        x, y, shape = x.flatten(0, 1), y.flatten(0, 1), x.shape
        scores = torch.bmm(x, y.transpose(1, 2)) * shape[-1] ** -0.5  # (g b, l, l)
        out: Tensor = self.norm(torch.bmm(scores.softmax(-1), y).view(shape))
        return out


class _GroupedLinearGLU(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.linear = GroupedPairLinear([_module(member, "linear") for member in members])
        self.norm = GroupedBatchNorm([_module(member, "norm") for member in members])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.glu(self.norm(self.linear(x, y, self.norm.training)), dim=-1).view_as(x)


class _GroupedConcatFC(nn.Module):
    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.linear = GroupedPairLinear([_module(member, "linear") for member in members])
        self.norm = GroupedBatchNorm([_module(member, "norm") for member in members])

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return F.relu(self.norm(self.linear(x, y, self.norm.training))).view_as(x)


_PRIMITIVES: dict[type[nn.Module], Callable[[Sequence[nn.Module]], nn.Module]] = {
    Zero: _GroupedZero,
    Sum: _GroupedSum,
    Attention: _GroupedAttention,
    LinearGLU: _GroupedLinearGLU,
    ConcatFC: _GroupedConcatFC,
}


def grouped_primitive(members: Sequence[nn.Module]) -> nn.Module:
    """One primitive of several networks, (g, b, l, c), (g, b, l, c) -> (g, b, l, c).

    Raises:
        GenotypeError: A primitive of the user's own.
    """
    kind = type(members[0])
    if kind not in _PRIMITIVES:
        raise GenotypeError(
            f"primitive {kind.__name__} cannot be trained in a group of networks, only "
            f"{[known.__name__ for known in _PRIMITIVES]}; train its networks one by one"
        )
    return _PRIMITIVES[kind](members)


class GroupedSequential(nn.Sequential):
    """``nn.Sequential`` of linear layers, batch norms and ReLUs of g networks, (n, in) or (g, n, in) -> (g, n, out).

    Args:
        members: The same sequence of each network.

    Raises:
        TypeError: It has layers of another kind.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        layers: list[nn.Module] = []
        for parts in zip(*(list(cast(nn.Sequential, member)) for member in members), strict=True):
            if isinstance(parts[0], nn.Linear):
                layers.append(GroupedLinear(parts))
            elif isinstance(parts[0], nn.BatchNorm1d):
                layers.append(GroupedBatchNorm(parts))
            elif isinstance(parts[0], nn.ReLU):
                layers.append(nn.ReLU())
            else:
                raise TypeError(f"{type(parts[0]).__name__} has no grouped form")
        super().__init__(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(n, in) or (g, n, in) -> (g, n, out)."""
        layers = list(self)
        for layer, following in zip(layers, [*layers[1:], None], strict=True):
            if isinstance(layer, GroupedLinear):
                x = layer(x, isinstance(following, GroupedBatchNorm) and following.training)
            else:
                x = layer(x)
        return x


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(n, in) or (g, n, in), weight (g, out, in), bias (g, out) -> (g, n, out)."""
    x = x.expand(len(weight), *x.shape) if x.ndim == 2 else x
    if bias is None:
        return torch.bmm(x, weight.transpose(1, 2))
    return torch.baddbmm(bias[:, None], x, weight.transpose(1, 2))


def write_back(module: nn.Module) -> None:
    """Copies the values of all grouped layers into the members they came from."""
    for part in module.modules():
        if isinstance(part, Grouped):
            part.write_back()


def _tensor(module: nn.Module, name: str) -> Tensor:
    return cast(Tensor, getattr(module, name))


def _module(module: nn.Module, name: str) -> nn.Module:
    return cast(nn.Module, getattr(module, name))
