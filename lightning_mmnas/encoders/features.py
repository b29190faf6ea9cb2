"""Encoders of vectors: plain numbers, or features that another model has computed."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.encoders.weights import load_weights
from lightning_mmnas.errors import ConfigError, DataError


class FeatureEncoder(Encoder):
    """An MLP over vectors: Linear, batch norm, ReLU; one feature per layer.

    Args:
        spec: Modality of kind "features", shape (d,).
        widths: Size of every layer.
        weights: Local file of pretrained weights; see `load_weights`.

    Raises:
        ConfigError: `widths` is not usable.
        DataError: The modality is not a vector.

    Examples:
        >>> FeatureEncoder(ModalitySpec("features", (10,))).feature_shapes
        [(64,), (64,)]
    """

    def __init__(self, spec: ModalitySpec, widths: Sequence[int] = (64, 64), weights: str | None = None) -> None:
        super().__init__()
        self.in_features = _vector_size(spec, "FeatureEncoder")
        _check_widths(widths)
        self.widths = tuple(widths)
        before = (self.in_features, *widths)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(before[i], width), nn.BatchNorm1d(width), nn.ReLU())
            for i, width in enumerate(widths)
        )
        _load(self, weights)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (width,) of every layer's output."""
        return [(width,) for width in self.widths]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Vectors (b, d) -> the output of every layer, (b, width).

        Raises:
            DataError: The shape does not fit.
        """
        return _through(self.blocks, x, self.in_features)


class MaxoutEncoder(Encoder):
    """Maxout MLP over vectors: every unit is the largest of k linear maps; batch norm and dropout between the layers.

    By default the text network of BM-NAS's MM-IMDB experiments, without its classifier: 300-d mean word2vec to 64 and
    128 maxout units of 5 pieces (`MaxOut_MLP` of the released code). It goes back to that of GMU (Arevalo et al.,
    "Gated Multimodal Units for Information Fusion", ICLR workshop 2017, arXiv 1702.01992), which normalises its input
    too and has 2 pieces. Maxout: Goodfellow et al., "Maxout Networks", ICML 2013. The layers' maxima are the features.

    Args:
        spec: Modality of kind "features", shape (d,).
        widths: Units of every layer.
        pieces: Linear maps that a unit takes the maximum of, k >= 2.
        dropout: Probability of dropping a value, in [0, 1).
        norm_input: Whether batch norm and dropout come before the first layer too.
        weights: Local file of pretrained weights; see `load_weights`.

    Raises:
        ConfigError: `widths`, `pieces` or `dropout` is not usable.
        DataError: The modality is not a vector.

    Examples:
        >>> MaxoutEncoder(ModalitySpec("features", (300,))).feature_shapes
        [(64,), (128,)]
    """

    def __init__(
        self,
        spec: ModalitySpec,
        widths: Sequence[int] = (64, 128),
        pieces: int = 5,
        dropout: float = 0.5,
        norm_input: bool = False,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.in_features = _vector_size(spec, "MaxoutEncoder")
        _check_widths(widths)
        if pieces < 2:
            raise ConfigError(f"pieces must be at least 2, got {pieces}: a maximum of one is no non-linearity")
        if not 0 <= dropout < 1:
            raise ConfigError(f"dropout must be in [0, 1), got {dropout}")
        self.widths = tuple(widths)
        self.blocks = nn.ModuleList()
        before = self.in_features
        for i, width in enumerate(widths):
            norm = [nn.BatchNorm1d(before), nn.Dropout(dropout)] if i > 0 or norm_input else []
            self.blocks.append(nn.Sequential(*norm, nn.Linear(before, width * pieces), Maxout(pieces)))
            before = width
        _load(self, weights)

    @property
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (width,) of every layer's output."""
        return [(width,) for width in self.widths]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Vectors (b, d) -> the output of every layer, (b, width).

        Raises:
            DataError: The shape does not fit.
        """
        return _through(self.blocks, x, self.in_features)


class Maxout(nn.Module):
    """(b, pieces * d) -> (b, d), the maximum over the pieces.

    Args:
        pieces: Number of pieces.
    """

    def __init__(self, pieces: int) -> None:
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """The maximum over the pieces, which lie side by side for each unit."""
        return x.view(x.shape[0], -1, self.pieces).amax(2)


def _vector_size(spec: ModalitySpec, encoder: str) -> int:
    if spec.kind != "features" or len(spec.shape) != 1:
        raise DataError(f"{encoder} takes features of shape (d,), got kind {spec.kind!r} of shape {spec.shape}")
    return spec.shape[0]


def _check_widths(widths: Sequence[int]) -> None:
    if not widths or min(widths) < 1:
        raise ConfigError(f"widths must be positive numbers, got {list(widths)}")


def _through(blocks: nn.ModuleList, x: Tensor, size: int) -> list[Tensor]:
    if x.ndim != 2 or x.shape[1] != size:
        raise DataError(f"expected vectors of shape (b, {size}), got {tuple(x.shape)}")
    features = []
    for block in blocks:
        x = block(x)
        features.append(x)
    return features


def _load(encoder: nn.Module, weights: str | None) -> None:
    if weights is not None:
        load_weights(encoder, weights)
