"""Input nodes: a feature of any shape becomes (b, l, c), the common currency of the fusion space."""

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.data.choices import check_choices
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.batch_norm import over_positions
from lightning_mmnas.fusion.dropout import Dropout
from lightning_mmnas.fusion.normed_linear import NormedLinear

Grid = Literal["auto", "line", "square"]
Pool = Literal["max", "avg"]


class InputNode(nn.Module):
    """Adaptive pooling to l positions, 1x1 convolution to c channels, batch norm, ReLU, dropout.

    Args:
        in_channels: Channels of the feature, its second axis.
        channels: c.
        length: l.
        dropout: Probability of dropping a value, in [0, 1).
        pool: ``"max"`` as in BM-NAS, or ``"avg"``.
        grid: Pooled positions: ``"line"`` is l x 1 (BM-NAS on NTU RGB+D), ``"square"`` is sqrt(l) x sqrt(l)
            (BM-NAS on MM-IMDB, l must be a square number); ``"auto"`` is square for features with two or more
            spatial axes if l is a square number, else line.

    Raises:
        GenotypeError: ``grid="square"`` with an l that is not a square number.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        length: int,
        dropout: float = 0.0,
        pool: Pool = "max",
        grid: Grid = "auto",
    ) -> None:
        super().__init__()
        if grid == "square" and math.isqrt(length) ** 2 != length:
            raise GenotypeError(f"grid='square' needs a square number as length, not {length}; use grid='line'")
        self.length = length
        self.pool = pool
        self.grid = grid
        self.linear = NormedLinear(in_channels, channels)
        self.norm = nn.BatchNorm1d(channels)
        self.dropout = Dropout(dropout)

    def forward(self, feature: Tensor) -> Tensor:
        """(b, c_in, *rest) -> (b, l, c); a vector (b, c_in) becomes l equal copies."""
        pooled = pool_positions(feature, self.length, self.pool, self.grid).flatten(2)
        linear: Tensor = self.linear(pooled.transpose(1, 2), self.norm.training)
        out: Tensor = self.dropout(F.relu(over_positions(self.norm, linear)))
        return out


def is_square(dimensions: int, length: int, grid: Grid) -> bool:
    """Whether a feature with that many dimensions, batch included, is pooled to a square; see `InputNode`."""
    return grid == "square" or (grid == "auto" and dimensions > 3 and math.isqrt(length) ** 2 == length)


def pool_positions(feature: Tensor, length: int, pool: Pool, grid: Grid) -> Tensor:
    """The l positions that an input node reads, (b, c, *rest) -> (b, c, l) or (b, c, sqrt(l), sqrt(l)).

    What was pooled once is not changed by being pooled again.
    """
    planes = feature.reshape(*feature.shape[:2], *(feature.shape[2:3] or (1,)), -1)  # (b, c, d, rest)
    if is_square(feature.ndim, length, grid):
        side = math.isqrt(length)
        return adaptive_pool(planes, (side, side), pool)
    return adaptive_pool(planes, (length, 1), pool).squeeze(3)


def adaptive_pool(planes: Tensor, size: tuple[int, int], pool: Pool) -> Tensor:
    """Adaptive pooling, (b, c, d, rest) -> (b, c, *size).

    Where the windows are regular, reductions over views of them do it ten times faster than torch's adaptive pooling on
    CPU. The maximum's gradient is then shared among equal maxima instead of going to the first one.
    """
    (d, rest), (rows, columns) = planes.shape[2:], size
    if (d, rest) == size:
        return planes
    if d % rows == 0 and rest % columns == 0:
        if _channels_last(planes):  # a reduction over any axis but the innermost one is vectorised
            return _reduce_windows(planes.movedim(1, 3), 1, size, pool).movedim(3, 1)
        return _reduce_windows(planes, 2, size, pool)
    if torch.compiler.is_compiling():  # ONNX knows no adaptive maximum
        return _pool_windows(_pool_windows(planes, rows, 2, pool), columns, 3, pool)
    pooled: Tensor = F.adaptive_max_pool2d(planes, size) if pool == "max" else F.adaptive_avg_pool2d(planes, size)
    return pooled


def _channels_last(planes: Tensor) -> bool:
    """Whether the channels of (b, c, d, rest) vary fastest in memory."""
    return planes.shape[1] > 1 and planes.stride(1) == 1 and not torch.compiler.is_compiling()


def _reduce_windows(planes: Tensor, axis: int, size: tuple[int, int], pool: Pool) -> Tensor:
    """Pools two neighbouring axes, the first one of which is given, to windows of equal size."""
    rows, columns = size
    if columns == 1:  # whole lines
        return _reduce(planes.flatten(axis, axis + 1), axis, rows, pool).unsqueeze(axis + 1)
    return _reduce(_reduce(planes, axis, rows, pool), axis + 1, columns, pool)


def _reduce(values: Tensor, axis: int, size: int, pool: Pool) -> Tensor:
    """Pools one axis to windows of equal size."""
    windows: Tensor = torch.unflatten(values, axis, (size, -1))
    return windows.amax(axis + 1) if pool == "max" else windows.mean(axis + 1)


def _pool_windows(planes: Tensor, size: int, axis: int, pool: Pool) -> Tensor:
    """Adaptive pooling along one axis, window by window: i n / size, rounded down, to (i + 1) n / size, rounded up."""
    n = planes.shape[axis]
    windows = [planes.narrow(axis, i * n // size, -(-(i + 1) * n // size) - i * n // size) for i in range(size)]
    return torch.stack([w.amax(axis) if pool == "max" else w.mean(axis) for w in windows], axis)


class InputNodes(nn.Module):
    """One input node per feature that is read; without shapes the features are taken as (b, l, c) already.

    Args:
        names: Features to be read, in order.
        feature_shapes: Shape of each feature without the batch axis, (c_in, *rest); None: features are (b, l, c).
        channels: c.
        length: l.
        dropout: Probability of dropping a value, in [0, 1).
        pool: See `InputNode`.
        grid: See `InputNode`.

    Raises:
        GenotypeError: A name without a shape.
    """

    def __init__(
        self,
        names: Sequence[str],
        feature_shapes: Mapping[str, Sequence[int]] | None,
        channels: int,
        length: int,
        dropout: float = 0.0,
        pool: Pool = "max",
        grid: Grid = "auto",
    ) -> None:
        super().__init__()
        check_choices(InputNodes.__init__, {"pool": pool, "grid": grid})
        self.names = tuple(names)
        self.nodes: nn.ModuleDict | None = None
        if feature_shapes is not None:
            missing = [name for name in names if name not in feature_shapes]
            if missing:
                raise GenotypeError(
                    f"inputs {missing} of the search space are not among the encoders' features "
                    f"{sorted(feature_shapes)}; check the encoders and the genotype's space"
                )
            self.nodes = nn.ModuleDict(
                {key(name): InputNode(feature_shapes[name][0], channels, length, dropout, pool, grid) for name in names}
            )

    def forward(self, features: Mapping[str, Tensor]) -> list[Tensor]:
        """Features by name -> n tensors (b, l, c), in the order of the names."""
        if missing := [name for name in self.names if name not in features]:
            raise GenotypeError(f"the network reads {missing}, but the features are {list(features)}")
        if self.nodes is None:
            return [features[name] for name in self.names]
        return [self.nodes[key(name)](features[name]) for name in self.names]


def key(name: str) -> str:
    """A feature's name as a key of an ``nn.ModuleDict``, which may not hold a dot; different names, different keys."""
    return name.replace("%", "%25").replace(".", "%2E")
