"""Encoder of skeletons: HCN, which learns which joints move together."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.encoders.weights import load_weights
from lightning_mmnas.errors import ConfigError, DataError

_HALVINGS = 4


def motion(x: Tensor) -> Tensor:
    """Differences of successive frames, stretched linearly to the length of `x`, shape (b, 3, t, joints)."""
    differences = x[:, :, 1:] - x[:, :, :-1]
    size = (x.shape[2], x.shape[3])
    return nn.functional.interpolate(differences, size=size, mode="bilinear", align_corners=False)


class _Branch(nn.Module):
    """Point-level convolutions on each joint, then joints as channels: (b, 3, t, joints) -> conv3 and conv4's outputs.

    The trick of HCN: after the transposition a convolution sees all joints at once, and the channels of the point level
    take the place of a second spatial axis.
    """

    def __init__(self, joints: int, point: int, width: int, third: int, fourth: int, dropout: float) -> None:
        super().__init__()
        self.point = nn.Sequential(
            *_block(3, point, (1, 1)),
            nn.Conv2d(point, width, (3, 1), padding=(1, 0), bias=False),
            nn.BatchNorm2d(width),
        )
        self.third = nn.Sequential(nn.Conv2d(joints, third, 3, padding=1, bias=False), nn.BatchNorm2d(third))
        self.fourth = nn.Sequential(*_block(third, fourth, (3, 3)), nn.Dropout2d(dropout))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        points = self.point(x).transpose(1, 3)  # (b, joints, t, width)
        third = self.pool(self.third(points))  # (b, c3, t / 2, width / 2)
        return third, self.pool(self.fourth(third))  # (b, c4, t / 4, width / 4)


class HCNEncoder(Encoder):
    """HCN, hierarchical co-occurrence network, without its classifier; four features, after conv3 to conv6.

    One branch sees the joints, another their differences from frame to frame; from conv5 on they are joined. Bodies
    pass through the same weights and are merged by the element-wise maximum; the first two features are those of both
    branches, side by side. The paper's sizes are channels=(64, 32, 32, 64, 128, 256) with dropout=0.5; batch norm
    follows every convolution, as in the authors' later code, not in the paper, so that pretraining without labels
    needs no tuning. BM-NAS takes four features as well: conv5, conv6, the latter flattened, and the first layer of the
    classifier, which we do not have.

    Source: C. Li, Q. Zhong, D. Xie, S. Pu, "Co-occurrence Feature Learning from Skeleton Data for Action Recognition
    and Detection with Hierarchical Aggregation", IJCAI 2018, arXiv:1804.06055.

    Args:
        spec: Modality of kind "skeleton", shape (3, t, joints, bodies) with t >= 16.
        channels: Output channels of conv1 to conv6; the second is at least 16.
        dropout: Probability of dropping a channel after conv4 to conv6, in [0, 1).
        weights: Local file of pretrained weights; see `load_weights`.

    Raises:
        ConfigError: `channels` or `dropout` is not usable.
        DataError: The modality is no skeleton, or too short.

    Examples:
        >>> HCNEncoder(ModalitySpec("skeleton", (3, 32, 25, 2))).feature_shapes
        [(32, 16, 8), (64, 8, 4), (64, 4, 2), (128, 2, 1)]
    """

    def __init__(
        self,
        spec: ModalitySpec,
        channels: Sequence[int] = (32, 16, 16, 32, 64, 128),
        dropout: float = 0.0,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        least = 2**_HALVINGS
        if spec.kind != "skeleton" or len(spec.shape) != 4 or spec.shape[0] != 3 or spec.shape[1] < least:
            raise DataError(
                f"HCNEncoder takes skeletons of shape (3, t >= {least}, joints, bodies), "
                f"got kind {spec.kind!r} of shape {spec.shape}"
            )
        if len(channels) != 6 or min(channels) < 1 or channels[1] < least:
            raise ConfigError(
                f"channels must be six positive numbers, the second at least {least}, got {list(channels)}"
            )
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), got {dropout}")
        self.joints = spec.shape[2]
        point, width, third, fourth, fifth, sixth = channels
        self.position = _Branch(self.joints, point, width, third, fourth, dropout)
        self.motion = _Branch(self.joints, point, width, third, fourth, dropout)
        self.fifth = nn.Sequential(*_block(2 * fourth, fifth, (3, 3)), nn.Dropout2d(dropout), nn.MaxPool2d(2))
        self.sixth = nn.Sequential(*_block(fifth, sixth, (3, 3)), nn.Dropout2d(dropout), nn.MaxPool2d(2))
        self._feature_shapes: list[tuple[int, ...]] = [
            (c, spec.shape[1] // 2**i, width // 2**i)
            for i, c in enumerate((2 * third, 2 * fourth, fifth, sixth), start=1)
        ]
        if weights is not None:
            load_weights(self, weights)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, t / 2^i, width / 2^i) of conv3 to conv6."""
        return list(self._feature_shapes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the outputs of conv3 to conv6, merged over bodies.

        Args:
            x: Joints of shape (b, 3, t, joints, bodies), t >= 16, any number of bodies.

        Raises:
            DataError: The shape does not fit.
        """
        if x.ndim != 5 or x.shape[1] != 3 or x.shape[2] < 2**_HALVINGS or x.shape[3] != self.joints:
            raise DataError(
                f"expected skeletons of shape (b, 3, t >= {2**_HALVINGS}, {self.joints}, bodies), got {tuple(x.shape)}"
            )
        b, bodies = x.shape[0], x.shape[4]
        single = x.permute(0, 4, 1, 2, 3).flatten(0, 1)  # (b bodies, 3, t, joints)
        levels = [
            torch.cat(pair, dim=1) for pair in zip(self.position(single), self.motion(motion(single)), strict=True)
        ]
        levels.append(self.fifth(levels[-1]))
        levels.append(self.sixth(levels[-1]))
        return [level.view(b, bodies, *level.shape[1:]).amax(1) for level in levels]


def _block(before: int, after: int, kernel: tuple[int, int]) -> list[nn.Module]:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return [nn.Conv2d(before, after, kernel, padding=padding, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
