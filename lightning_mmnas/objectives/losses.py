"""Objectives: what two batches of views are worth. The losses themselves are lightly's.

Any module with ``forward(z0, z1) -> loss`` on projections of shape (b, d) is an objective, so a class path such as
``lightly.loss.VICRegLoss``, ``lightly.loss.BarlowTwinsLoss`` or ``lightly.loss.DCLLoss`` in a config is one too.
"""

import copy
import itertools
from collections.abc import Mapping

import torch
from lightly.loss import NTXentLoss
from torch import Tensor, nn


def nt_xent(temperature: float = 0.2) -> nn.Module:
    """NT-Xent (SimCLR, eq. 1) with the negatives of all ranks.

    Under DDP the mean over ranks, values and gradients, equals one process on the joined batch; batches must be
    equally large on all ranks.

    Args:
        temperature: Softmax temperature, unitless, > 0; tau in eq. 1 of SimCLR.
    """
    loss: nn.Module = NTXentLoss(temperature=temperature, gather_distributed=True)
    return loss


class CrossModalInfoNCE(nn.Module):
    """Symmetric InfoNCE between modalities, averaged over their pairs (CLIP, section 2.3, with NT-Xent's negatives).

    Each projection comes from the network fed one modality only, the others' features at their batch means.

    Args:
        temperature: Softmax temperature, unitless, > 0.
    """

    def __init__(self, temperature: float = 0.2) -> None:
        super().__init__()
        self.loss = nt_xent(temperature)

    def forward(self, projections: Mapping[str, Tensor]) -> Tensor:
        """Projections by modality, each (b, d) -> scalar; zero for a single modality."""
        pairs = list(itertools.combinations(projections.values(), 2))
        if not pairs:
            return torch.zeros((), device=next(iter(projections.values())).device)
        return torch.stack([self.loss(first, second) for first, second in pairs]).mean()


def classification_loss(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy for class indices (b,), binary cross-entropy for multi-label targets (b, num_classes)."""
    if label.ndim == 1:
        return nn.functional.cross_entropy(logits, label)
    return nn.functional.binary_cross_entropy_with_logits(logits, label.to(logits.dtype))


def local_objective(objective: nn.Module) -> nn.Module:
    """A copy of an objective that never talks to other ranks."""
    local = copy.deepcopy(objective)
    for module in local.modules():
        if hasattr(module, "gather_distributed"):
            setattr(module, "gather_distributed", False)  # noqa: B010  (no field of nn.Module)
    return local
