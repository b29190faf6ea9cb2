"""Readouts: from the cells' outputs to the one vector that projection head and classifier sit on."""

from collections.abc import Mapping, Sequence
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.data.choices import check_choices
from lightning_mmnas.fusion.normed_linear import NormedLinear

SUMMARY = "#summary"
"""Ending of the name under which a feature's mean and maximum stand beside it, where they were computed before."""

ReadoutName = Literal["flatten", "pool", "branch", "neck"]


class FlattenReadout(nn.Module):
    """flatten(ReLU(LayerNorm(cells))) as published by BM-NAS; out_features = m l c.

    Args:
        channels: Channels of all output cells together, m c.
        length: l.
    """

    def __init__(self, channels: int, length: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm((length, channels))
        self.out_features = channels * length

    def forward(self, cells: Tensor, late: Tensor | None = None) -> Tensor:
        """Cells (b, l, m c) -> (b, m c l), channel by channel."""
        # ReLU last: its gradient is slow where memory is not in order.
        return F.relu_(self.norm(cells).transpose(1, 2).flatten(1))


class PoolReadout(nn.Module):
    """BatchNorm of mean and max over the positions; out_features = 2 m c.

    Args:
        channels: Channels of all output cells together, m c.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2 * channels)
        self.out_features = 2 * channels

    def forward(self, cells: Tensor, late: Tensor | None = None) -> Tensor:
        """Cells (b, l, m c) -> (b, 2 m c)."""
        out: Tensor = self.norm(torch.cat([cells.mean(1), cells.amax(1)], dim=1))
        return out


class LateBranch(nn.Sequential):
    """ReLU(BN(Linear(late))): the non-linear neck of plain late fusion.

    Args:
        late_features: Size of the concatenated pooled deepest features.
        width: Size of the neck.
    """

    def __init__(self, late_features: int, width: int = 128) -> None:
        super().__init__(NormedLinear(late_features, width), nn.BatchNorm1d(width), nn.ReLU())
        self.out_features = width

    def forward(self, late: Tensor) -> Tensor:
        """(b, late_features) -> (b, width)."""
        linear, norm, relu = self
        out: Tensor = relu(norm(linear(late, norm.training)))
        return out


class BranchReadout(nn.Module):
    """Pooled cells beside a late-fusion neck: plain late fusion is literally inside; out_features = 2 m c + width.

    Args:
        channels: Channels of all output cells together, m c.
        late_features: Size of the concatenated pooled deepest features of every modality.
        width: Size of the neck.
    """

    def __init__(self, channels: int, late_features: int, width: int = 128) -> None:
        super().__init__()
        self.cells = PoolReadout(channels)
        self.late = LateBranch(late_features, width)
        self.out_features = self.cells.out_features + width

    def forward(self, cells: Tensor, late: Tensor) -> Tensor:
        """Cells (b, l, m c), late (b, late_features) -> (b, 2 m c + width)."""
        return torch.cat([self.cells(cells), self.late(late)], dim=1)


class NeckReadout(nn.Module):
    """One non-linear neck on the normalised pooled cells and the late features together; out_features = width.

    As `BranchReadout` it can be plain late fusion (the neck then ignores the cells), but what the classifier sees is
    no wider than late fusion's own hidden layer, which is kinder to small label budgets.

    Args:
        channels: Channels of all output cells together, m c.
        late_features: Size of the concatenated pooled deepest features of every modality.
        width: Size of the neck.
    """

    def __init__(self, channels: int, late_features: int, width: int = 128) -> None:
        super().__init__()
        self.cells = PoolReadout(channels)
        self.neck = LateBranch(self.cells.out_features + late_features, width)
        self.out_features = width

    def forward(self, cells: Tensor, late: Tensor) -> Tensor:
        """Cells (b, l, m c), late (b, late_features) -> (b, width)."""
        out: Tensor = self.neck(torch.cat([self.cells(cells), late], dim=1))
        return out


class LateFeatures(nn.Module):
    """Concatenates the pooled features of the given names; out_features = 2 x their channels.

    Args:
        names: Which features.
        feature_shapes: Shape of each feature without the batch axis, (c_in, *rest); None: features are (b, l, c).
        channels: c, used where ``feature_shapes`` is None.
    """

    def __init__(
        self, names: Sequence[str], feature_shapes: Mapping[str, Sequence[int]] | None, channels: int = 0
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.channels_last = feature_shapes is None
        self.out_features = sum(2 * (feature_shapes[n][0] if feature_shapes else channels) for n in names)

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name -> (b, out_features): mean and maximum over space and time of each."""
        return torch.cat([self._summary(features, name) for name in self.names], dim=1)

    def _summary(self, features: Mapping[str, Tensor], name: str) -> Tensor:
        if name + SUMMARY in features:
            return features[name + SUMMARY]
        return mean_max_pool(features[name].transpose(1, 2) if self.channels_last else features[name])


def out_features(module: nn.Module) -> int:
    """Size of the vector that a fusion module or readout gives."""
    return cast(int, module.out_features)


def mean_max_pool(feature: Tensor) -> Tensor:
    """(b, c, *rest) -> (b, 2 c), mean and maximum over everything spatial or temporal; a vector is given twice."""
    flat = feature.flatten(2) if feature.ndim > 2 else feature.unsqueeze(2)
    return torch.cat([flat.mean(2), flat.amax(2)], dim=1)


def build_readout(readout: ReadoutName, channels: int, length: int, late_features: int) -> nn.Module:
    """Builds a readout for cells of shape (b, length, channels), channels of all output cells together."""
    check_choices(build_readout, {"readout": readout})
    if readout == "flatten":
        return FlattenReadout(channels, length)
    if readout == "pool":
        return PoolReadout(channels)
    if readout == "neck":
        return NeckReadout(channels, late_features)
    return BranchReadout(channels, late_features)
