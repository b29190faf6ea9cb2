"""Objectives: what two batches of views are worth. The losses themselves are lightly's.

Any module with ``forward(z0, z1) -> loss`` on projections of shape (b, d) is an objective, so a class path such as
``lightly.loss.VICRegLoss``, ``lightly.loss.BarlowTwinsLoss`` or ``lightly.loss.DCLLoss`` in a config is one too.
"""

import copy
import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from torch import Tensor, nn

from lightning_mmnas.data.spec import Task
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.fusion.fused import is_fused
from lightning_mmnas.fusion.ranks import gather_rows, gather_sizes, world_size
from lightning_mmnas.objectives.fused_nt_xent import fused_nt_xent


def nt_xent(temperature: float = 0.2) -> nn.Module:
    """NT-Xent (SimCLR, eq. 1) with the negatives of all ranks.

    Args:
        temperature: Softmax temperature, unitless, > 0; tau in eq. 1 of SimCLR.

    Raises:
        ConfigError: The temperature is not positive.
    """
    if not temperature > 0:
        raise ConfigError(f"temperature must be > 0, got {temperature}; check model.init_args.temperature")
    return GatheredNTXent(temperature=temperature, gather_distributed=True)


def loss_of(objective: nn.Module, z0: Tensor, z1: Tensor) -> Tensor:
    """What an objective, perhaps a user's own, makes of two batches of projections, in float32.

    Raises:
        ConfigError: It is not one number.
    """
    loss = objective(z0.float(), z1.float())
    if isinstance(loss, Tensor) and loss.numel() == 1:
        return loss
    found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
    raise ConfigError(
        f"objective {type(objective).__name__} returned {found}: let its forward(z0, z1) return the loss, one number "
        "in a tensor"
    )


_LARGE = 512
"""Samples of a batch from which on lightly's own NT-Xent, some matrices of all pairs of views, is the slower one."""


class GatheredNTXent(NTXentLoss):  # type: ignore[misc]  # lightly is not typed
    """lightly's NT-Xent, with a gather over ranks that is differentiable any number of times.

    Under DDP the mean over ranks of values, gradients and second derivatives equals one process on the joined batch,
    whose parts need not be equally large. On one process large batches are computed by `fused_nt_xent`.
    """

    def forward(self, out0: Tensor, out1: Tensor) -> Tensor:
        """Projections of two views, (b, d) each -> scalar."""
        alone = not self.gather_distributed or world_size() == 1
        if alone and self.memory_bank.size[0] == 0 and len(out0) >= _LARGE and is_fused():
            return fused_nt_xent(torch.cat([out0, out1])[None], self.temperature)[0]
        if alone or self.memory_bank.size[0] > 0:
            loss: Tensor = super().forward(out0, out1)
            return loss
        b, sizes = len(out0), gather_sizes(len(out0), out0.device)
        z = F.normalize(torch.stack([out0, out1], dim=1), dim=2)  # (b, 2, d)
        everything = gather_rows(z, sizes).flatten(0, 1)  # (2 n, d): both views of a sample after one another
        similarities = z.flatten(0, 1) @ everything.T / self.temperature  # (2 b, 2 n)
        itself = 2 * sum(sizes[: dist.get_rank()]) + torch.arange(2 * b, device=z.device)
        similarities = similarities.scatter(1, itself[:, None], -torch.inf)
        losses = F.cross_entropy(similarities, itself ^ 1, reduction="sum")
        return losses * (world_size() / (2 * sum(sizes)))


def is_nt_xent(objective: nn.Module) -> bool:
    """Whether an objective is NT-Xent itself, lightly's own or ours, and not something made from it."""
    return type(objective) in (NTXentLoss, GatheredNTXent)


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
        return F.cross_entropy(logits, label if label.is_floating_point() else label.long())
    return F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype))


RegressionLoss = Literal["mse", "huber"]
LabelLoss = Callable[[Tensor, Tensor], Tensor]
"""What a model says of a batch, (b, outputs), and its labels -> scalar."""


def label_loss(task: Task | None, loss: RegressionLoss = "mse") -> LabelLoss:
    """The loss of a task: `classification_loss`, or of a regression `regression_loss`.

    Args:
        task: The task.
        loss: Of a regression.
    """
    return partial(regression_loss, loss=loss) if task == "regression" else classification_loss


def regression_loss(predicted: Tensor, target: Tensor, loss: RegressionLoss = "mse") -> Tensor:
    """Mean squared error, or Huber's loss, which grows linearly where a standardised error is larger than 1.

    Args:
        predicted: Standardised targets as predicted, (b, 1), of any precision.
        target: Standardised targets, of the same shape.
        loss: Which.
    """
    function = F.huber_loss if loss == "huber" else F.mse_loss
    dtype = torch.promote_types(predicted.dtype, torch.float32)
    return function(predicted.to(dtype), target.to(dtype))


def local_objective(objective: nn.Module) -> nn.Module:
    """A copy of an objective that never talks to other ranks."""
    modules = list(objective.modules())
    kinds = ("_forward_pre_hooks", "_forward_hooks")
    hooks = [hook for module in modules for kind in kinds for hook in vars(module)[kind].values()]
    # A profiler's are bound to what cannot be copied.
    local = copy.deepcopy(objective, {id(hook): hook for hook in hooks if isinstance(hook, partial)})
    for module in local.modules():
        if hasattr(module, "gather_distributed"):
            setattr(module, "gather_distributed", False)  # noqa: B010  (no field of nn.Module)
    return local
