"""The self-supervised objective of a fusion network: what the projections of two views are worth."""

from collections.abc import Mapping

import torch
from lightly.models.modules import SimCLRProjectionHead
from torch import Tensor, nn

from lightning_mmnas.fusion.batch_norm import statistics_kept
from lightning_mmnas.objectives.losses import CrossModalInfoNCE, loss_of


def projection_head(in_features: int, hidden: int, out: int) -> nn.Module:
    """SimCLR's projection head, (b, in_features) -> (b, out): Linear, BN, ReLU, Linear."""
    head: nn.Module = SimCLRProjectionHead(in_features, hidden, out)
    return head


class FusionObjective(nn.Module):
    """The objective of a fusion network: projections of two views, and optionally of single modalities.

    Args:
        fusion: Features by name -> (b, out_features).
        projector: (b, out_features) -> (b, d).
        objective: (z0, z1) -> loss.
        cross_modal_weight: Weight of the cross-modal InfoNCE term, >= 0; 0 leaves it out.
        temperature: Softmax temperature of the cross-modal term, unitless, > 0.
    """

    def __init__(
        self,
        fusion: nn.Module,
        projector: nn.Module,
        objective: nn.Module,
        cross_modal_weight: float = 0.0,
        temperature: float = 0.2,
    ) -> None:
        super().__init__()
        self.fusion = fusion
        self.projector = projector
        self.objective = objective
        self.cross_modal_weight = cross_modal_weight
        self.cross_modal = CrossModalInfoNCE(temperature)

    def project(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by name -> projection (b, d)."""
        projection: Tensor = self.projector(self.fusion(features))
        return projection

    def forward(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
        """Features of both views -> loss; both views pass through the network as one batch of 2b."""
        joined = {name: torch.cat([first[name], second[name]]) for name in first}
        z0, z1 = self.project(joined).chunk(2)
        loss = loss_of(self.objective, z0, z1)
        if self.cross_modal_weight > 0:
            with statistics_kept(self):
                projections = self._single_modality_projections(first)
            loss = loss + self.cross_modal_weight * self.cross_modal(projections)
        return loss

    def _single_modality_projections(self, features: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Projections of the network fed one modality, the others' features at their batch mean."""
        modalities = list(dict.fromkeys(name.rpartition("/")[0] or name for name in features))
        means = {name: feature.mean(0, keepdim=True).expand_as(feature) for name, feature in features.items()}
        return {
            m: self.project({n: f if (n.rpartition("/")[0] or n) == m else means[n] for n, f in features.items()})
            for m in modalities
        }
