"""The candidates of a search: networks of some genotypes, and the batches that all of them see."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from lightning_mmnas.fusion.compact import compact
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.modules.transfer import BatchTransfer
from lightning_mmnas.objectives.fusion_objective import FusionObjective, projection_head
from lightning_mmnas.objectives.labelled import Labelled
from lightning_mmnas.objectives.losses import local_objective
from lightning_mmnas.space.genotype import Genotype
from lightning_mmnas.views import ModalityDropout, TwoViews

Batch = dict[str, Tensor]


def candidate(module: FusionSearch, genotype: Genotype) -> FusionObjective:
    """Returns the search's objective on a new network of one genotype, on the supernet's device.

    Its type is the supernet's, float32 at the least: it is trained without what half precision needs.

    Args:
        module: The search, whose sizes and objective are taken over.
        genotype: An architecture of its space.
    """
    network, nodes = _network(module, genotype), module.built_with
    head = projection_head(network.out_features, nodes["projection_hidden"], nodes["projection_out"])
    return FusionObjective(network, head, local_objective(module.objective)).to(module.device, _dtype(module))


def labelled_candidate(module: FusionSearch, genotype: Genotype) -> Labelled:
    """Returns a new network of one genotype, with a classifier, for a supervised search."""
    assert module.classifier is not None
    network, classes = _network(module, genotype), module.classifier.out_features
    found = Labelled(network, nn.Linear(network.out_features, classes), loss=module.criterion)
    return found.to(module.device, _dtype(module))


def _dtype(module: FusionSearch) -> torch.dtype:
    return torch.promote_types(next(module.supernet.parameters()).dtype, torch.float32)


def _network(module: FusionSearch, genotype: Genotype) -> FusionNetwork:
    nodes = module.built_with
    return FusionNetwork(
        genotype,
        module.encoders.feature_shapes,
        readout="pool",  # with the branch readout the criteria lose their power: all networks look alike
        dropout=nodes["dropout"],
        pool=nodes["pool"],
        grid=nodes["grid"],
    )


def view_pairs(
    module: FusionSearch, batches: Iterable[Batch], dropout: float
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    """Yields the features of two views of each batch, no larger than the networks need.

    Args:
        module: The search, whose views and encoders are used.
        batches: Raw samples, or their stored features, as `BatchTransfer` hands them to the search.
        dropout: Probability of modality dropout per sample and view, in [0, 1], in place of the search's own.
    """
    views: TwoViews = module.views
    transfer = BatchTransfer(module)
    searched = views.dropout
    try:
        views.dropout = ModalityDropout(dropout)
        for batch in batches:
            with transfer.context():
                first, second = views(batch)
                pair = _features(module, first), _features(module, second)
            yield pair
    finally:
        views.dropout = searched


def labelled_batches(module: FusionSearch, batches: Iterable[Batch]) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Yields the features and the labels of each batch, as a supervised search sees them."""
    transfer = BatchTransfer(module)
    for batch in batches:
        with transfer.context():
            features = _features(module, {name: value for name, value in batch.items() if name != "label"})
        yield features, batch["label"]


def _features(module: FusionSearch, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Features of a view, no larger than the candidates need and of their type."""
    length, pool, grid = module.space.length, module.built_with["pool"], module.built_with["grid"]
    found = compact(module.encoders(batch), length, pool, grid)
    return {name: value.to(_dtype(module)) for name, value in found.items()}


def endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Epoch after epoch, each with an order of its own."""
    while True:
        yield from loader
