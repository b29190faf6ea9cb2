"""The exact gradient of the architecture loss through one step of the weights (DARTS, eq. 7)."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_mmnas.fusion.compiling import uncompiled
from lightning_mmnas.fusion.fused import readable

Loss = Callable[[], Tensor]
MeanOverRanks = Callable[[Tensor], Tensor]


class _Apply(nn.Module):
    """Makes any loss of a module a ``forward``, which is what ``functional_call`` calls."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, loss: Loss) -> Tensor:
        return loss()


def _loss_at(module: nn.Module, values: Mapping[str, Tensor], loss: Loss) -> Tensor:
    """The loss with some parameters replaced; buffers are copies, so that none is changed."""
    parameters = dict(module.named_parameters())
    new = {id(parameters[name]): value for name, value in values.items()}
    new |= {id(buffer): buffer.clone() for buffer in module.buffers()}
    # Every place once: a submodule with two names is replaced by one of them, for torch's own tie_weights would put
    # back the replacement; a tensor that two submodules share is replaced in both.
    replaced = {}
    for prefix, part in _Apply(module).named_modules():
        for name, tensor in (*part.named_parameters(recurse=False), *part.named_buffers(recurse=False)):
            if id(tensor) in new:
                replaced[f"{prefix}.{name}"] = new[id(tensor)]
    result: Tensor = functional_call(_Apply(module), replaced, (loss,), tie_weights=False)
    return result


def or_zeros(gradients: Sequence[Tensor | None], like: Sequence[Tensor]) -> list[Tensor]:
    """Replaces missing gradients by zeros."""
    return [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, like, strict=True)]


def flat_mean(tensors: Sequence[Tensor], mean: MeanOverRanks | None) -> list[Tensor]:
    """Averages tensors over ranks by one reduction of their concatenation.

    Args:
        tensors: any shapes and floating types, the same on every rank.
        mean: averages one tensor over ranks; ``None`` for one process.
    """
    if mean is None or not tensors:
        return list(tensors)
    flat = mean(torch.cat([tensor.reshape(-1) for tensor in tensors]))
    pieces = torch.split(flat, [tensor.numel() for tensor in tensors])
    return [p.view_as(t).to(t.dtype) for p, t in zip(pieces, tensors, strict=True)]


def mean_over_ranks(trainer: Trainer) -> MeanOverRanks | None:
    """Averages a tensor over the ranks of a trainer; ``None`` for one process."""
    return None if trainer.world_size == 1 else partial(trainer.strategy.reduce, reduce_op="mean")


def sum_of(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Sum of two gradients, of which any may be missing."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def unrolled_gradient(
    module: nn.Module,
    logits: Sequence[Tensor],
    rates: Mapping[str, float],
    weight_loss: Loss,
    architecture_loss: Loss,
    mean: MeanOverRanks | None = None,
) -> list[Tensor | None]:
    """Returns d/da L_arch(w', a) with w' = w - xi * d/dw L_weight(w, a), exactly.

    By the chain rule this is

        d/da L_arch(w', a)  -  xi * [d/da d/dw L_weight(w, a)] v,    v = d/dw' L_arch(w', a),

    and the product in the second term is the gradient of ``<d/dw L_weight(w, a), xi v>``, a second
    pass through the graph of the first, instead of DARTS's finite difference. With several ranks
    the weight gradient and v are averaged over them, so that the mean over ranks of what is
    returned is the gradient of the averaged losses.

    Attention runs with PyTorch's plain kernel in the weight loss: the fused ones have no second
    derivative. So do our own fused functions, which would compute it from their readable form. Nothing of it is
    compiled: what ``torch.compile`` makes has no second derivative either.

    Args:
        module: holds weights and logits. Its parameters, their ``.grad`` and its buffers are left
            as they are: both losses see copies of the buffers.
        logits: the architecture logits a, with ``requires_grad``.
        rates: xi of every weight that takes part in the virtual step, by the weight's name.
        weight_loss: computes L_weight with the module as it then is; called once.
        architecture_loss: L_arch, likewise.
        mean: averages a tensor over ranks; ``None`` for one process.

    Returns:
        One gradient per logit tensor; ``None`` where neither loss depends on it.
    """
    parameters = dict(module.named_parameters())
    weights = [parameters[name] for name in rates]
    with torch.enable_grad(), uncompiled(module):
        with sdpa_kernel(SDPBackend.MATH), readable():
            loss = _loss_at(module, {}, weight_loss)
            slopes = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        step = flat_mean([slope.detach() for slope in or_zeros(slopes, weights)], mean)
        moved = {
            name: (weight.detach() - rate * slope).requires_grad_()
            for (name, rate), weight, slope in zip(rates.items(), weights, step, strict=True)
        }
        loss = _loss_at(module, moved, architecture_loss)
        places = [*moved.values(), *logits]
        gradients = torch.autograd.grad(loss, places, allow_unused=True)
        direct: list[Tensor | None] = list(gradients[len(moved) :])
        v = flat_mean(or_zeros(gradients[: len(moved)], weights), mean)
        products = [
            rate * (slope * direction).sum()
            for rate, slope, direction in zip(rates.values(), slopes, v, strict=True)
            if slope is not None and slope.requires_grad
        ]
        if not products:
            return direct
        product = torch.stack(products).sum()
        if not product.requires_grad:
            return direct
        second = torch.autograd.grad(product, list(logits), allow_unused=True)
    return [_difference(a, b) for a, b in zip(direct, second, strict=True)]


def _difference(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if b is None:
        return a
    return -b if a is None else a - b
