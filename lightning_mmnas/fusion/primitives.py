"""Fusion primitives: what one inner step of a cell can do with its two inputs, (x, y) -> out.

All tensors are (b, l, c): batch, positions, channels. A user adds a primitive by giving its class path in
``FusionSpace.primitives``; the class is built as ``Class(channels, length, dropout)``.
"""

import importlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.batch_norm import over_positions
from lightning_mmnas.fusion.dropout import Dropout
from lightning_mmnas.fusion.normed_linear import at_rest


class Primitive(nn.Module):
    """Base class of the fusion primitives.

    Args:
        channels: c, size of the last axis.
        length: l, number of positions.
        dropout: Probability of dropping a value, in [0, 1).
    """

    def __init__(self, channels: int, length: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.channels = channels
        self.length = length

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Fuses two tensors of shape (b, l, c) into one of the same shape."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x, y)")


class Zero(Primitive):
    """Returns zeros: the step reads nothing."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Zeros, shape (b, l, c)."""
        return torch.zeros_like(x)


class Sum(Primitive):
    """x + y (BM-NAS, section 3.3)."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """X + y, shape (b, l, c)."""
        return x + y


class Attention(Primitive):
    """LayerNorm(dropout(softmax(x y^T / sqrt(c)) y)): x asks, y answers, no learned projections.

    LayerNorm is over (l, c). BM-NAS hard-codes a dropout of 0.1 here; ours follows ``dropout``.
    """

    def __init__(self, channels: int, length: int, dropout: float = 0.0) -> None:
        super().__init__(channels, length, dropout)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm((length, channels))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Positions of x attend to the positions of y; (b, l, c)."""
        # Written out: SDPA brings nothing at l <= 16 and has no double backward on CPU (order 2 needs it).
        scores = x @ y.transpose(1, 2) / math.sqrt(self.channels)  # (b, l, l)
        out: Tensor = self.norm(self.dropout(scores.softmax(-1) @ y))
        return out


class PairLinear(nn.Module):
    """A 1x1 convolution on the channel concatenation [x; y], as two matrices that are never concatenated.

    Args:
        channels: c of x and of y.
        out_channels: Channels of the result.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(2 * channels)  # nn.Linear's own initialisation with fan-in 2c
        self.weight_x = nn.Parameter(torch.empty(out_channels, channels).uniform_(-bound, bound))
        self.weight_y = nn.Parameter(torch.empty(out_channels, channels).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))

    def forward(self, x: Tensor, y: Tensor, normed: bool = False) -> Tensor:
        """(b, l, c), (b, l, c) -> (b, l, out_channels); normed: see `NormedLinear`."""
        bias = at_rest(self.bias) if normed else self.bias
        if x is y:  # tied pairing: W [u; u] = (W_x + W_y) u, one product instead of two
            return F.linear(x, self.weight_x + self.weight_y, bias)
        return F.linear(x, self.weight_x, bias) + F.linear(y, self.weight_y)


class LinearGLU(Primitive):
    """GLU(BN(W [x; y])): half of the channels gates the other half (BM-NAS, section 3.3)."""

    def __init__(self, channels: int, length: int, dropout: float = 0.0) -> None:
        super().__init__(channels, length, dropout)
        self.linear = PairLinear(channels, 2 * channels)
        self.norm = nn.BatchNorm1d(2 * channels)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(b, l, c), (b, l, c) -> (b, l, c)."""
        out: Tensor = self.dropout(F.glu(over_positions(self.norm, self.linear(x, y, self.norm.training)), dim=-1))
        return out


class ConcatFC(Primitive):
    """ReLU(BN(W [x; y])) (BM-NAS, section 3.3)."""

    def __init__(self, channels: int, length: int, dropout: float = 0.0) -> None:
        super().__init__(channels, length, dropout)
        self.linear = PairLinear(channels, channels)
        self.norm = nn.BatchNorm1d(channels)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """(b, l, c), (b, l, c) -> (b, l, c)."""
        out: Tensor = self.dropout(F.relu(over_positions(self.norm, self.linear(x, y, self.norm.training))))
        return out


@torch.no_grad()
def turn(primitive: nn.Module) -> None:
    """Exchanges what a symmetric primitive does to x and to y."""
    for part in primitive.modules():
        if isinstance(part, PairLinear):
            x = part.weight_x.clone()
            part.weight_x.copy_(part.weight_y)
            part.weight_y.copy_(x)


PRIMITIVES: dict[str, type[Primitive]] = {
    "zero": Zero,
    "sum": Sum,
    "attention": Attention,
    "linear_glu": LinearGLU,
    "concat_fc": ConcatFC,
}


def primitive_class(name: str) -> type[nn.Module]:
    """Returns the class of a primitive, given its short name or its dotted class path.

    Raises:
        GenotypeError: Unknown name, or a path that cannot be imported or is not an ``nn.Module``.
    """
    if name in PRIMITIVES:
        return PRIMITIVES[name]
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise GenotypeError(
            f"primitive {name!r} is neither one of {sorted(PRIMITIVES)} nor an importable class path ({error})"
        ) from error
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise GenotypeError(f"primitive {name!r} is not an nn.Module class")
    return found


def build_primitive(name: str, channels: int, length: int, dropout: float) -> nn.Module:
    """Builds a primitive by name or class path for tensors of shape (b, length, channels)."""
    return primitive_class(name)(channels, length, dropout)
