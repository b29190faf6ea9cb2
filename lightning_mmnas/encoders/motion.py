"""Encoder of motion signals: inertial sensors and skeletons."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.errors import ConfigError, DataError

_MIN_LENGTH = 8


class MotionEncoder(Encoder):
    """1-D convolutions of stride 2, each with batch norm and ReLU; one feature per block.

    Args:
        spec: Modality of kind "motion", shape (channels, t) with t >= 8.
        channels: Output channels of every block.
        kernel_size: Width of every convolution in time steps, odd.

    Raises:
        ConfigError: `channels` or `kernel_size` is not usable.
        DataError: The modality is not one of motion.

    Examples:
        >>> encoder = MotionEncoder(ModalitySpec("motion", (3, 128)))
        >>> encoder.feature_shapes
        [(32, 64), (64, 32), (64, 16)]
    """

    def __init__(self, spec: ModalitySpec, channels: Sequence[int] = (32, 64, 64), kernel_size: int = 5) -> None:
        super().__init__()
        if spec.kind != "motion" or len(spec.shape) != 2 or spec.shape[1] < _MIN_LENGTH:
            raise DataError(
                f"MotionEncoder takes motion of shape (channels, t) with t >= {_MIN_LENGTH}, "
                f"got kind {spec.kind!r} of shape {spec.shape}"
            )
        if not channels or min(channels) < 1:
            raise ConfigError(f"channels must be positive numbers, got {list(channels)}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd and positive, got {kernel_size}")
        self.in_channels, length = spec.shape
        self.blocks = nn.ModuleList()
        self._feature_shapes: list[tuple[int, ...]] = []
        before = self.in_channels
        for after in channels:
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(
                        before,
                        after,
                        (1, kernel_size),
                        stride=(1, 2),
                        padding=(0, kernel_size // 2),
                        bias=False,
                    ),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                ).to(memory_format=torch.channels_last)
            )
            before, length = after, (length + 1) // 2
            self._feature_shapes.append((after, length))

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, t / 2^i) of every block's output."""
        return list(self._feature_shapes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the output of every block.

        Args:
            x: Signals of shape (b, channels, t), t >= 8.

        Raises:
            DataError: The shape does not fit.
        """
        if x.ndim != 3 or x.shape[1] != self.in_channels or x.shape[2] < _MIN_LENGTH:
            raise DataError(
                f"expected signals of shape (b, {self.in_channels}, t >= {_MIN_LENGTH}), got {tuple(x.shape)}"
            )
        features = []
        # The same as 1-D convolutions, but channels last: twice as fast on CPU.
        x = x.unsqueeze(2).to(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
            features.append(x.squeeze(2))
        return features
