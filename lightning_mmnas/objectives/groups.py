"""Groups of networks as one module each: the sum of their losses, each of its own network alone."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.grouped_layers import GroupedLinear, GroupedSequential
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.fusion.network_group import NetworkGroup
from lightning_mmnas.objectives.fused_nt_xent import fused_nt_xent
from lightning_mmnas.objectives.fusion_objective import FusionObjective
from lightning_mmnas.objectives.labelled import Labelled
from lightning_mmnas.objectives.losses import LabelLoss, classification_loss, is_nt_xent


class ContrastiveGroup(nn.Module):
    """Networks with a projection head each, and the sum of their objectives on two views.

    Args:
        networks: Features by name -> (g, b, out_features).
        heads: (g, b, out_features) -> (g, b, d).
        objectives: (z0, z1) -> loss of each network.
    """

    def __init__(self, networks: nn.Module, heads: nn.Module, objectives: Sequence[nn.Module]) -> None:
        super().__init__()
        self.networks = networks
        self.heads = heads
        self.objectives = nn.ModuleList(objectives)
        first: Any = objectives[0]
        plain = is_nt_xent(first) and first.memory_bank.size[0] == 0
        self.temperature: float | None = first.temperature if plain else None  # of plain NT-Xent

    @classmethod
    def of(cls, members: Sequence[FusionObjective]) -> "ContrastiveGroup":
        """The group of some networks of one space.

        Raises:
            GenotypeError: They cannot be trained as a group: a cross-modal term, or what `NetworkGroup` refuses.
        """
        if any(member.cross_modal_weight > 0 for member in members):
            raise GenotypeError("candidates with a cross-modal term cannot be trained as a group")
        networks = NetworkGroup([cast(FusionNetwork, member.fusion) for member in members])
        heads = GroupedSequential([cast(nn.Module, member.projector.layers) for member in members])
        return cls(networks, heads, [member.objective for member in members])

    def forward(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
        """Features of both views -> sum of the losses."""
        joined = {name: torch.cat([first[name], second[name]]) for name in first}
        z = self.heads(self.networks(joined))
        if self.temperature is not None:
            return fused_nt_xent(z, self.temperature).sum()
        z0, z1 = z.float().chunk(2, dim=1)
        losses: list[Tensor] = [f(a, b) for f, a, b in zip(self.objectives, z0, z1, strict=True)]
        return torch.stack(losses).sum()


class LabelledGroup(nn.Module):
    """Networks with a classifier each, and the sum of their losses on the same labels.

    Args:
        networks: Features by name -> (g, b, out_features).
        classifiers: (g, b, out_features) -> logits (g, b, num_classes).
        loss: Of one network's logits and the labels; see `label_loss`.
        dropout: Probability of dropping a value of the vectors, the same for all networks: `train_together` gives each
            of them the same random numbers.
    """

    def __init__(
        self,
        networks: nn.Module,
        classifiers: nn.Module,
        loss: LabelLoss = classification_loss,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.loss = loss
        self.dropout = dropout
        self.networks = networks
        self.classifiers = classifiers

    @classmethod
    def of(cls, members: Sequence[Labelled]) -> "LabelledGroup":
        """The group of some networks of one space.

        Raises:
            GenotypeError: They cannot be trained as a group: their dropouts differ, or what `NetworkGroup` refuses.
        """
        if len({member.dropout.p for member in members}) > 1:
            raise GenotypeError("networks with different dropouts before the classifier cannot be trained as a group")
        networks = NetworkGroup([cast(FusionNetwork, member.network) for member in members])
        classifiers = GroupedLinear([cast(nn.Linear, member.classifier) for member in members])
        return cls(networks, classifiers, members[0].loss, members[0].dropout.p)

    def forward(self, features: Any, label: Tensor) -> Tensor:
        """Features by name and labels -> sum of the losses."""
        vectors: Tensor = self.networks(features)
        if self.training and self.dropout > 0:
            vectors = vectors * F.dropout(torch.ones_like(vectors[0]), self.dropout)
        logits = self.classifiers(vectors)
        if label.ndim == 1:
            target = label.expand(len(logits), -1)
            return F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum") / len(label)
        return torch.stack([self.loss(found, label) for found in logits]).sum()
