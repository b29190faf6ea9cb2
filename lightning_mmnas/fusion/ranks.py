"""Sums and gathers over ranks that are differentiable any number of times, as the second order needs them.

With a loss per rank, ``backward`` gives the gradient of the sum of all ranks' losses for the tensors of this rank.
"""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


def world_size() -> int:
    """Number of ranks; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def sum_over_ranks(tensor: Tensor) -> Tensor:
    """The sum of a tensor over ranks, of the same shape on all of them; differentiable any number of times."""
    return tensor if world_size() == 1 else cast(Tensor, _Sum.apply(tensor))


def gather_sizes(count: int, device: torch.device) -> list[int]:
    """The numbers that the ranks give, in the order of the ranks."""
    given = torch.tensor([count], device=device)
    found = [torch.empty_like(given) for _ in range(world_size())]
    dist.all_gather(found, given)
    return [int(size) for size in torch.cat(found).tolist()]


def gather_rows(tensor: Tensor, sizes: Sequence[int]) -> Tensor:
    """The rows of all ranks, (sizes[rank], …) -> (sum of the sizes, …); differentiable any number of times."""
    return cast(Tensor, _Gather.apply(tensor, list(sizes)))


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return sum_over_ranks(gradient)


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: list[int]) -> Tensor:
        ctx.sizes = sizes
        most = max(sizes)  # collectives want the same shape of every rank
        padding = [0, 0] * (tensor.ndim - 1) + [0, most - len(tensor)]
        padded = F.pad(tensor, padding).contiguous()
        found = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(found, padded)
        return torch.cat([rows[:size] for rows, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return torch.split(sum_over_ranks(gradient), ctx.sizes)[dist.get_rank()], None
