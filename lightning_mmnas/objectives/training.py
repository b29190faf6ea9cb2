"""Candidate architectures of a search: their networks, each trained alone, and the views that all of them see."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from lightly.loss import NTXentLoss
from torch import Tensor, nn

from lightning_mmnas.compact import compact
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.genotype import Genotype
from lightning_mmnas.grouped_layers import GroupedLinear, GroupedSequential, write_back
from lightning_mmnas.modules.base import FusionObjective, projection_head
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.network import FusionNetwork
from lightning_mmnas.network_group import NetworkGroup, grouped_nt_xent
from lightning_mmnas.objectives import classification_loss
from lightning_mmnas.selection import local_objective, train_together
from lightning_mmnas.views import ModalityDropout, TwoViews

Batch = dict[str, Tensor]
Optimizer = Callable[[nn.Module], tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]]

_GROUP = 16
"""Networks that are trained as one group: more would only need more memory."""


def candidate(module: FusionSearch, genotype: Genotype) -> FusionObjective:
    """Returns the search's objective on a new network of one genotype, on the device and in the type of the supernet.

    Args:
        module: The search, whose sizes and objective are taken over.
        genotype: An architecture of its space.
    """
    network, nodes = _network(module, genotype), module.hparams
    head = projection_head(network.out_features, nodes["projection_hidden"], nodes["projection_out"])
    alike = next(module.supernet.parameters())
    return FusionObjective(network, head, local_objective(module.objective)).to(alike.device, alike.dtype)


class LabelledCandidate(nn.Module):
    """A network and its classifier: what a candidate is in a supervised search.

    Args:
        network: Features by name -> (b, out_features).
        num_classes: Number of classes.
    """

    def __init__(self, network: FusionNetwork, num_classes: int) -> None:
        super().__init__()
        self.network = network
        self.classifier = nn.Linear(network.out_features, num_classes)

    def forward(self, features: Mapping[str, Tensor], label: Tensor) -> Tensor:
        """Features by name and labels -> loss."""
        return classification_loss(self.classifier(self.network(features)), label)


def labelled_candidate(module: FusionSearch, genotype: Genotype) -> LabelledCandidate:
    """Returns a new network of one genotype, with a classifier, for a supervised search."""
    assert module.classifier is not None
    found = LabelledCandidate(_network(module, genotype), cast(int, module.classifier.out_features))
    alike = next(module.supernet.parameters())
    return found.to(alike.device, alike.dtype)


def _network(module: FusionSearch, genotype: Genotype) -> FusionNetwork:
    nodes = module.hparams
    return FusionNetwork(
        genotype,
        module.encoders.feature_shapes,
        readout="pool",  # with the branch readout the criteria lose their power: all networks look alike
        dropout=nodes["dropout"],
        pool=nodes["pool"],
        grid=nodes["grid"],
    )


class CandidateGroup(nn.Module):
    """Several candidates as one module: the sum of their objectives, each of its own network alone.

    Args:
        members: The candidates, of one space; without cross-modal term.

    Raises:
        GenotypeError: They cannot be trained as a group; see `NetworkGroup`.
    """

    def __init__(self, members: Sequence[FusionObjective]) -> None:
        super().__init__()
        if any(member.cross_modal_weight > 0 for member in members):
            raise GenotypeError("candidates with a cross-modal term cannot be trained as a group")
        self.networks = NetworkGroup([cast(FusionNetwork, member.fusion) for member in members])
        self.heads = GroupedSequential([cast(nn.Module, member.projector.layers) for member in members])
        self.objectives = nn.ModuleList(member.objective for member in members)
        first: Any = members[0].objective
        plain = type(first) is NTXentLoss and first.memory_bank.size[0] == 0
        self.temperature: float | None = first.temperature if plain else None  # of plain NT-Xent

    def forward(self, first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> Tensor:
        """Features of both views -> sum of the losses."""
        joined = {name: torch.cat([first[name], second[name]]) for name in first}
        z0, z1 = (z.float() for z in self.heads(self.networks(joined)).chunk(2, dim=1))
        if self.temperature is not None:
            return grouped_nt_xent(z0, z1, self.temperature).sum()
        losses: list[Tensor] = [f(a, b) for f, a, b in zip(self.objectives, z0, z1, strict=True)]
        return torch.stack(losses).sum()


class LabelledGroup(nn.Module):
    """Several labelled candidates as one module: the sum of their losses, each of its own network alone.

    Args:
        members: The candidates, of one space.

    Raises:
        GenotypeError: They cannot be trained as a group; see `NetworkGroup`.
    """

    def __init__(self, members: Sequence[LabelledCandidate]) -> None:
        super().__init__()
        self.networks = NetworkGroup([member.network for member in members])
        self.classifiers = GroupedLinear([member.classifier for member in members])

    def forward(self, features: Mapping[str, Tensor], label: Tensor) -> Tensor:
        """Features by name and labels -> sum of the losses."""
        logits = self.classifiers(self.networks(features))
        return torch.stack([classification_loss(found, label) for found in logits]).sum()


def train_candidates(
    members: Sequence[FusionObjective] | Sequence[LabelledCandidate],
    batches: Iterable[tuple[Any, Any]],
    optimizer: Optimizer,
) -> None:
    """Trains candidates side by side, each alone, all on the very same batches: as groups where that is possible.

    Args:
        members: The candidates, all of one kind.
        batches: Features of two views, or features and labels, one pair per step.
        optimizer: Builds the optimiser and schedule of a module, elementwise such as AdamW.
    """
    kind: Any = LabelledGroup if isinstance(members[0], LabelledCandidate) else CandidateGroup
    try:
        groups: list[nn.Module] = [kind(members[i : i + _GROUP]) for i in range(0, len(members), _GROUP)]
    except GenotypeError:  # dropout, or primitives of the user's own: slower, but they can be trained one by one
        groups = list(members)
    train_together({str(i): group for i, group in enumerate(groups)}, batches, optimizer)
    for group in groups:
        write_back(group)


def view_pairs(
    module: FusionSearch, batches: Iterable[Batch], dropout: float
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Yields the features of two views of each batch, no larger than the networks need.

    Args:
        module: The search, whose views and encoders are used.
        batches: Raw samples, or their stored features.
        dropout: Probability of modality dropout per sample and view, in [0, 1], in place of the search's own.
    """
    length, pool, grid = module.space.length, module.hparams["pool"], module.hparams["grid"]
    views: TwoViews = module.views
    searched = views.dropout
    try:
        views.dropout = ModalityDropout(dropout)
        for batch in batches:
            first, second = views({name: value.to(module.device) for name, value in batch.items()})
            yield (
                compact(module.encoders(first), length, pool, grid),
                compact(module.encoders(second), length, pool, grid),
            )
    finally:
        views.dropout = searched


def labelled_batches(module: FusionSearch, batches: Iterable[Batch]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yields the features and the labels of each batch, as a supervised search sees them."""
    length, pool, grid = module.space.length, module.hparams["pool"], module.hparams["grid"]
    for batch in batches:
        inputs = {name: value.to(module.device) for name, value in batch.items()}
        label = inputs.pop("label")
        yield compact(module.encoders(inputs), length, pool, grid), label


def endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Epoch after epoch, each with an order of its own."""
    while True:
        yield from loader
