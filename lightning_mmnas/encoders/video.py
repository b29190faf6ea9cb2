"""Encoders of video: a small one, those of torchvision, and image encoders frame by frame."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec, to_unit
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.encoders.image import shapes_of, tapped, three_channels, torchvision_model
from lightning_mmnas.encoders.weights import load_weights
from lightning_mmnas.errors import ConfigError, DataError

TAPS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("r3d_18", "mc3_18", "r2plus1d_18"), ("layer1", "layer2", "layer3", "layer4")),
    "s3d": ("features.3", "features.6", "features.12", "features.15"),
    "mvit_v1_b": ("blocks.0", "blocks.2", "blocks.13", "blocks.15"),
    "mvit_v2_s": ("blocks.0", "blocks.2", "blocks.13", "blocks.15"),
    **dict.fromkeys(("swin3d_t", "swin3d_s", "swin3d_b"), ("features.0", "features.2", "features.4", "features.6")),
}
"""Layers that are tapped where none are named: the last one at each of four resolutions."""

_MVIT_CLIP = (16, 224, 224)
"""(t, h, w) that torchvision's MViT is built for."""


class VideoEncoder(Encoder):
    """(2+1)-D convolutions, each pair with batch norms and ReLUs; one feature per block. Made for small clips on CPU.

    A block is a 1x3x3 convolution of stride 2 in space, then a 3x1x1 convolution in time, of stride 2 from the second
    block on, while more than one frame is left (Tran et al., CVPR 2018, with fewer channels).

    Args:
        spec: Modality of kind "video", shape (1 or 3, t, h, w).
        channels: Output channels of every block.
        weights: Local file of pretrained weights; see `load_weights`.

    Raises:
        ConfigError: `channels` is not usable.
        DataError: The modality is no video, or its frames are too small for so many blocks.

    Examples:
        >>> VideoEncoder(ModalitySpec("video", (3, 8, 64, 64), torch.uint8)).feature_shapes
        [(16, 8, 32, 32), (32, 4, 16, 16), (64, 2, 8, 8), (64, 1, 4, 4)]
    """

    def __init__(
        self, spec: ModalitySpec, channels: Sequence[int] = (16, 32, 64, 64), weights: str | None = None
    ) -> None:
        super().__init__()
        check_video(spec, type(self).__name__)
        if not channels or min(channels) < 1:
            raise ConfigError(f"channels must be positive numbers, got {list(channels)}")
        self.in_channels, t, h, w = spec.shape
        self._feature_shapes: list[tuple[int, ...]] = []
        self.blocks = nn.ModuleList()
        before = self.in_channels
        for number, after in enumerate(channels):
            if max(h, w) == 1:
                raise DataError(f"frames of {spec.shape[2]} x {spec.shape[3]} are too small for {len(channels)} blocks")
            stride = 2 if number and t > 1 else 1
            self.blocks.append(
                nn.Sequential(
                    nn.Conv3d(before, after, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False),
                    nn.BatchNorm3d(after),
                    nn.ReLU(),
                    nn.Conv3d(after, after, (3, 1, 1), stride=(stride, 1, 1), padding=(1, 0, 0), bias=False),
                    nn.BatchNorm3d(after),
                    nn.ReLU(),
                )
            )
            before, t, h, w = after, (t + stride - 1) // stride, (h + 1) // 2, (w + 1) // 2
            self._feature_shapes.append((after, t, h, w))
        if weights is not None:
            load_weights(self, weights)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, t', h', w') of every block's output."""
        return list(self._feature_shapes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the output of every block.

        Args:
            x: Pixels (b, channels, t, h, w), uint8 or in [0, 1].

        Raises:
            DataError: The shape does not fit.
        """
        _check_batch(x, (self.in_channels,))
        features = []
        x = to_unit(x)
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return features


class TorchvisionVideoEncoder(Encoder):
    """Any video model of torchvision, tapped at named layers.

    Pixels are normalised as the model's published weights expect it; grey and depth clips are repeated to three
    channels. Features of transformers are turned to (b, c, ...): those of Swin3D keep t, h, w, those of MViT are a row
    of tokens, (b, c, tokens), the class token first.

    Args:
        spec: Modality of kind "video", shape (1 or 3, t, h, w); MViT takes 16 frames of 224 x 224 only.
        name: Name of the model, as `torchvision.models.list_models(torchvision.models.video)` gives it.
        layers: Nodes that are tapped, shallow to deep, as torchvision's `get_graph_node_names` gives them; None: the
            preset in `TAPS`, four depths.
        weights: A local file of the whole model's weights (see `load_weights`; the classifier need not match), a name
            that torchvision downloads, such as "DEFAULT" or "KINETICS400_V1", or None: random weights.

    Raises:
        ConfigError: There is no such model or node.
        CheckpointError: The weights cannot be had, or are of another architecture.
        DataError: The modality is no video, or of a size that the model does not take.

    Examples:
        >>> encoder = TorchvisionVideoEncoder(ModalitySpec("video", (3, 8, 32, 32), torch.uint8), "r3d_18")
        >>> encoder.feature_shapes[-1]
        (512, 1, 2, 2)
    """

    def __init__(
        self,
        spec: ModalitySpec,
        name: str = "r3d_18",
        layers: Sequence[str] | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        check_video(spec, type(self).__name__)
        from torchvision import models

        known = models.list_models(module=models.video)
        if name not in known:
            raise ConfigError(f"torchvision has no video model {name!r}; it has {known}")
        if name.startswith("mvit") and spec.shape[1:] != _MVIT_CLIP:
            raise DataError(
                f"{name} takes clips of shape (1 or 3, 16, 224, 224), got {spec.shape}; check data.init_args"
            )
        self.name = name
        model = torchvision_model(name, weights)
        self.extractor = tapped(model, name, TAPS.get(name) if layers is None else layers)
        published = models.get_model_weights(name)
        normalise = published[weights if weights in published.__members__ else "DEFAULT"].transforms()
        for key, values in (("mean", normalise.mean), ("std", normalise.std)):
            self.register_buffer(key, torch.tensor(values).view(3, 1, 1, 1), persistent=False)
        self._feature_shapes = shapes_of(self, spec)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, ...) of every tapped layer."""
        return list(self._feature_shapes)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the output of every tapped layer, channels first.

        Args:
            x: Pixels (b, 1 or 3, t, h, w), uint8 or in [0, 1].

        Raises:
            DataError: The shape does not fit.
        """
        _check_batch(x, (1, 3))
        pixels = (three_channels(to_unit(x)) - self.get_buffer("mean")) / self.get_buffer("std")
        features = []
        for feature in self.extractor(pixels).values():
            features.append(feature.movedim(-1, 1) if self.name.startswith(("mvit", "swin3d")) else feature)
        return features


class FramewiseEncoder(Encoder):
    """An image encoder applied to every frame; features (b, c, t, h, w), or (b, c, t) where the image's are vectors.

    Args:
        spec: Modality of kind "video", shape (1 or 3, t, h, w).
        encoder: Image encoder, built with the specification of one frame.

    Raises:
        DataError: The modality is no video.

    Examples:
        >>> from lightning_mmnas.encoders.image import ImageEncoder
        >>> FramewiseEncoder(ModalitySpec("video", (3, 8, 32, 32), torch.uint8), ImageEncoder).feature_shapes
        [(16, 8, 16, 16), (32, 8, 8, 8), (64, 8, 4, 4)]
    """

    def __init__(self, spec: ModalitySpec, encoder: Callable[[ModalitySpec], Encoder]) -> None:
        super().__init__()
        check_video(spec, type(self).__name__)
        channels, self.frames, h, w = spec.shape
        self.in_channels = channels
        self.encoder = encoder(ModalitySpec("image", (channels, h, w), spec.dtype))

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c, t, *rest) of every feature of the image encoder."""
        return [(shape[0], self.frames, *shape[1:]) for shape in self.encoder.feature_shapes]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the features of all frames.

        Args:
            x: Pixels (b, channels, t, h, w), uint8 or in [0, 1].

        Raises:
            DataError: The shape does not fit.
        """
        _check_batch(x, (self.in_channels,))
        b, t = x.shape[0], x.shape[2]
        features = self.encoder(x.transpose(1, 2).flatten(0, 1))
        return [feature.reshape(b, t, *feature.shape[1:]).transpose(1, 2) for feature in features]


def check_video(spec: ModalitySpec, encoder: str) -> None:
    """Raises `DataError` for a modality that is no video."""
    if spec.kind != "video" or len(spec.shape) != 4 or spec.shape[0] not in (1, 3):
        raise DataError(
            f"{encoder} takes video of shape (1 or 3, t, h, w), got kind {spec.kind!r} of shape {spec.shape}"
        )


def _check_batch(x: Tensor, channels: Sequence[int]) -> None:
    if x.ndim != 5 or x.shape[1] not in channels:
        wanted = " or ".join(map(str, channels))
        raise DataError(f"expected video of shape (b, {wanted}, t, h, w), got {tuple(x.shape)}")
