"""Encoders of vectors: plain numbers, or features that another model has computed."""

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.encoders.base import Encoder
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

    Example:
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
    """Two-layer maxout MLP over vectors: batch norm, dropout, and the largest of k linear maps per unit.

    The text network of GMU (Arevalo et al., "Gated Multimodal Units for Information Fusion", ICLR workshop 2017,
    arXiv 1702.01992) on which BM-NAS's MM-IMDB experiments rest: maxout units (Goodfellow et al., ICML 2013) over
    300-d mean word2vec. Both hidden layers are features.

    Args:
        spec: Modality of kind "features", shape (d,).
        widths: Size of every layer.
        pieces: Linear maps that a unit takes the maximum of, >= 2.
        dropout: Probability of dropping a value, in [0, 1).
        weights: Local file of pretrained weights; see `load_weights`.

    Raises:
        ConfigError: `widths` or `pieces` is not usable.
        DataError: The modality is not a vector.
    """

    def __init__(
        self,
        spec: ModalitySpec,
        widths: Sequence[int] = (512, 512),
        pieces: int = 2,
        dropout: float = 0.5,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        self.in_features = _vector_size(spec, "MaxoutEncoder")
        _check_widths(widths)
        if pieces < 2:
            raise ConfigError(f"pieces must be at least 2, got {pieces}: a maximum of one is no non-linearity")
        self.widths = tuple(widths)
        before = (self.in_features, *widths)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm1d(before[i]), nn.Dropout(dropout), nn.Linear(before[i], pieces * width), Maxout(pieces)
            )
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
        return x.view(len(x), -1, self.pieces).amax(2)


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
    from lightning_mmnas.encoders.weights import load_weights

    if weights is not None:
        load_weights(encoder, weights)
