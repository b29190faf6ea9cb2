"""Encoder of audio: a log-mel front end for waveforms, and a small CNN over spectrograms."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_mmnas.data.mel import mel_filters
from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.errors import ConfigError, DataError

_MIN_SIZE = 8

_FLOOR = 1e-6
"""Added to the power before the logarithm: 60 dB below the power 1."""


class LogMel(nn.Module):
    """Waveforms (b, 1, t) to log-mel spectrograms (b, 1, mels, 1 + t // hop), in float32 whatever the precision.

    Power of a short-time Fourier transform under a Hann window, centred on multiples of the hop with zeros beyond the
    ends; mel filters; natural logarithm of the power plus 1e-6.

    Args:
        rate: Samples per second, in Hz.
        mels: Number of mel filters.
        window: Length of the window in seconds; the transform has the next power of two.
        hop: Distance of two windows in seconds.
    """

    def __init__(self, rate: int, mels: int, window: float, hop: float) -> None:
        super().__init__()
        if min(rate, mels) < 1 or round(rate * min(window, hop)) < 1:
            raise ConfigError(
                f"rate, mels, window and hop must be positive, got rate={rate}, mels={mels}, window={window}, hop={hop}"
            )
        self.hop = round(rate * hop)
        length = round(rate * window)
        self.size = 2 ** math.ceil(math.log2(length))
        # Known from the arguments, and not part of what was learned.
        self.register_buffer("window", torch.hann_window(length), persistent=False)
        self.register_buffer("filters", mel_filters(mels, self.size // 2 + 1, rate), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the spectrograms of waveforms (b, 1, t)."""
        with torch.autocast(x.device.type, enabled=False):
            spectrum = torch.stft(
                x[:, 0].float(),
                self.size,
                self.hop,
                win_length=len(self.get_buffer("window")),
                window=self.get_buffer("window").float(),
                pad_mode="constant",
                return_complex=True,
            )
            power = self.get_buffer("filters").float() @ spectrum.abs().square()
            return (power + _FLOOR).log().unsqueeze(1).to(self.get_buffer("window").dtype)


class AudioEncoder(Encoder):
    """2-D convolutions of stride 2 over a spectrogram, each with batch norm and ReLU; one feature per block.

    Waveforms become log-mel spectrograms first; see `LogMel`. A batch norm of one channel standardises the
    spectrogram, so that its unit does not matter; it may be averaged over squares first, which makes the whole cheaper.

    Args:
        spec: Modality of kind "audio": waveforms of shape (1, t), or spectrograms of shape (1, mel, t).
        channels: Output channels of every block.
        kernel_size: Width of every convolution in both directions, odd.
        pool: Side of the squares that the spectrogram is averaged over before the first block; 1: none.
        rate: Samples per second of a waveform, in Hz; not used for spectrograms, as for the three that follow.
        mels: Mel filters.
        window: Length of a window of the short-time Fourier transform, in seconds.
        hop: Distance of two windows, in seconds.

    Raises:
        ConfigError: An argument is not usable.
        DataError: The modality is not audio, or shorter than 8 windows.

    Examples:
        >>> AudioEncoder(ModalitySpec("audio", (1, 112, 112))).feature_shapes
        [(16, 56, 56), (32, 28, 28), (64, 14, 14)]
        >>> AudioEncoder(ModalitySpec("audio", (1, 8000)), rate=8000).feature_shapes
        [(16, 32, 51), (32, 16, 26), (64, 8, 13)]
    """

    def __init__(
        self,
        spec: ModalitySpec,
        channels: Sequence[int] = (16, 32, 64),
        kernel_size: int = 3,
        pool: int = 1,
        rate: int = 16_000,
        mels: int = 64,
        window: float = 0.025,
        hop: float = 0.01,
    ) -> None:
        super().__init__()
        if spec.kind != "audio" or len(spec.shape) not in (2, 3) or spec.shape[0] != 1:
            raise DataError(
                f"AudioEncoder takes audio of shape (1, t) or (1, mel, t), got kind {spec.kind!r} of shape {spec.shape}"
            )
        if not channels or min(channels) < 1:
            raise ConfigError(f"channels must be positive numbers, got {list(channels)}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd and positive, got {kernel_size}")
        self.shape = tuple(spec.shape)
        self.front: nn.Module = nn.Identity()
        size = self.shape[1:]
        if len(size) == 1:
            front = LogMel(rate, mels, window, hop)
            self.front, size = front, (mels, 1 + size[0] // front.hop)
        if pool < 1:
            raise ConfigError(f"pool must be at least 1, got {pool}")
        size = tuple(s // pool for s in size)
        if min(size) < _MIN_SIZE:
            raise DataError(
                f"AudioEncoder needs at least {_MIN_SIZE} frequencies and points in time, got a spectrogram of "
                f"{size} from audio of shape {spec.shape}"
            )
        self.norm = nn.BatchNorm2d(1)
        self.pool = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        self.blocks = nn.ModuleList()
        self._feature_shapes: list[tuple[int, ...]] = []
        before = 1
        for after in channels:
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(before, after, kernel_size, stride=2, padding=kernel_size // 2, bias=False),
                    nn.BatchNorm2d(after),
                    nn.ReLU(),
                ).to(memory_format=torch.channels_last)
            )
            before, size = after, tuple((s + 1) // 2 for s in size)
            self._feature_shapes.append((after, *size))

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, mel / 2^i, t / 2^i) of every block's output."""
        return list(self._feature_shapes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the output of every block, shapes (b, c, mel / 2^i, t / 2^i).

        Args:
            x: Waveforms of shape (b, 1, t) or spectrograms of shape (b, 1, mel, t), of any float type.

        Raises:
            DataError: The shape does not fit.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise DataError(f"expected audio of shape (b, {', '.join(map(str, self.shape))}), got {tuple(x.shape)}")
        features = []
        x = self.pool(self.norm(self.front(x))).to(memory_format=torch.channels_last)
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features
