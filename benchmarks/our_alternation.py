"""Our alternation as a bare loop: what `ArchitectureAlternation` and Lightning's own optimisation do, without them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Loss = Callable[[Any], Tensor]
"""The loss of a batch."""


class Alternation:
    """One architecture step with a gradient of the logits alone, and one weight step with one of the weights alone.

    Args:
        parameters: All parameters of the model; the logits among them are left out of the weights.
        logits: The architecture logits, with ``requires_grad=False``.
        loss: The loss of a batch.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], logits: Sequence[nn.Parameter], loss: Loss) -> None:
        ours = {id(logit) for logit in logits}
        self.weights = [parameter for parameter in parameters if id(parameter) not in ours]
        self.logits = logits
        self.loss = loss
        self.weight_optimizer = torch.optim.Adam(self.weights, lr=1e-3, fused=True)
        self.arch_optimizer = torch.optim.Adam(logits, lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3, fused=True)

    def __call__(self, weights_batch: Any, architecture_batch: Any) -> None:
        self._require_grad(weights=False)
        gradients = torch.autograd.grad(self.loss(architecture_batch), self.logits)
        self._require_grad(weights=True)
        for logit, gradient in zip(self.logits, gradients, strict=True):
            logit.grad = gradient
        self.arch_optimizer.step()
        self.weight_optimizer.zero_grad()
        torch.autograd.backward(self.loss(weights_batch))
        self.weight_optimizer.step()

    def _require_grad(self, weights: bool) -> None:
        for parameter in self.weights:
            parameter.requires_grad_(weights)
        for logit in self.logits:
            logit.requires_grad_(not weights)
