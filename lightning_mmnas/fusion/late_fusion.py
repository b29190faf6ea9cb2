"""The simple fusion modules that a search has to beat: features by name -> (b, out_features)."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.fusion.readout import LateBranch, LateFeatures


class LateFusion(nn.Module):
    """Late fusion: concatenates pooled features and, unless linear, puts an MLP's hidden layer on them.

    Args:
        feature_shapes: Shape of each feature without the batch axis, (c_in, *rest), by name ``<modality>/<level>`` or
            ``<modality>``.
        modalities: Which modalities are read; None: all.
        all_levels: Whether every level is read, or the deepest of each modality only.
        hidden: Size of the hidden layer; None: none, the classifier on top then is a linear one.

    Raises:
        ConfigError: A modality that has no features.
    """

    def __init__(
        self,
        feature_shapes: Mapping[str, Sequence[int]],
        modalities: Sequence[str] | None = None,
        all_levels: bool = False,
        hidden: int | None = 128,
    ) -> None:
        super().__init__()
        modality_of = {name: name.rpartition("/")[0] or name for name in feature_shapes}
        known = sorted(set(modality_of.values()))
        if unknown := sorted(set(modalities or ()) - set(known)):
            raise ConfigError(f"late fusion: modalities {unknown} are not in {known}")
        names = [name for name in feature_shapes if modalities is None or modality_of[name] in modalities]
        if not all_levels:
            names = list({modality_of[name]: name for name in names}.values())
        self.pooled = LateFeatures(names, feature_shapes)
        width = self.pooled.out_features
        # Features differ in scale by orders of magnitude: without a norm the linear one would not train.
        self.neck: nn.Module = nn.BatchNorm1d(width) if hidden is None else LateBranch(width, hidden)
        self.out_features = width if hidden is None else hidden

    def forward(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name, each (b, c_in, *rest) -> (b, out_features)."""
        out: Tensor = self.neck(self.pooled(features))
        return out
