"""Batch norm: over positions, over ranks, and without effect on running statistics.

Only one kind of pass may change running statistics: a weight step's pass of plain views in training. Architecture
steps, passes with modalities at their batch mean, scoring and measuring leave them as they are (`statistics_kept`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from typing_extensions import override

from lightning_mmnas.fusion.ranks import sum_over_ranks


def over_positions(norm: nn.Module, x: Tensor) -> Tensor:
    """Batch norm over batch and positions, (b, l, c) -> (b, l, c).

    Args:
        norm: For (n, c), such as ``nn.BatchNorm1d``, and what Lightning and torch make of it to synchronise ranks.
        x: Shape (b, l, c).
    """
    return cast(Tensor, norm(x.flatten(0, 1))).view_as(x)


class SynchronisedBatchNorm(_NormBase):
    """Batch norm with the statistics of all ranks, on every device and differentiable any number of times.

    torch's own, ``nn.SyncBatchNorm``, is for GPUs only and has no second derivative.
    """

    @override
    def forward(self, input: Tensor) -> Tensor:
        """(n, c, *rest) -> (n, c, *rest); ranks may have different n."""
        if not self.training:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        axes = [axis for axis in range(x.ndim) if axis != 1]
        shape = (1, -1, *[1] * (x.ndim - 2))
        own = x.new_tensor([x.numel() // x.shape[1]])
        total, count = torch.split(sum_over_ranks(torch.cat([x.sum(axes), own])), [x.shape[1], 1])
        mean = total / count
        centred = x - mean.view(shape)
        var = sum_over_ranks(centred.square().sum(axes)) / count
        self._track(mean.detach(), var.detach() * count / (count - 1))
        out: Tensor = centred * torch.rsqrt(var + self.eps).view(shape)
        if self.affine:
            out = out * self.weight.view(shape) + self.bias.view(shape)
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Updates the running statistics by those of a batch, the variance unbiased."""
        if not self.track_running_stats or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(var.to(self.running_var.dtype), share)


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Has batch norm in training mode use the statistics of each batch, and keep none of them."""
    norms = [
        part
        for part in module.modules()
        if isinstance(part, (_BatchNorm, SynchronisedBatchNorm)) and part.training and part.track_running_stats
    ]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Puts a module into eval mode, but has batch norm use the statistics of each batch and keep none of them.

    Running statistics of shared weights are averages over all the architectures that shared them, and fit none.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    for part in module.modules():
        if isinstance(part, (_BatchNorm, SynchronisedBatchNorm)) and part.track_running_stats:
            part.training = True
    try:
        with statistics_kept(module):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
