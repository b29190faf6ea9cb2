"""The candidates of a search: networks of some genotypes, and the batches that all of them see."""

from collections.abc import Iterable, Iterator
from typing import cast

from torch import Tensor, nn

from lightning_mmnas.fusion.compact import compact
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.objectives.fusion_objective import FusionObjective, projection_head
from lightning_mmnas.objectives.labelled import Labelled
from lightning_mmnas.objectives.losses import local_objective
from lightning_mmnas.space.genotype import Genotype
from lightning_mmnas.views import ModalityDropout, TwoViews

Batch = dict[str, Tensor]


def candidate(module: FusionSearch, genotype: Genotype) -> FusionObjective:
    """Returns the search's objective on a new network of one genotype, on the device and in the type of the supernet.

    Args:
        module: The search, whose sizes and objective are taken over.
        genotype: An architecture of its space.
    """
    network, nodes = _network(module, genotype), module.built_with
    head = projection_head(network.out_features, nodes["projection_hidden"], nodes["projection_out"])
    alike = next(module.supernet.parameters())
    return FusionObjective(network, head, local_objective(module.objective)).to(alike.device, alike.dtype)


def labelled_candidate(module: FusionSearch, genotype: Genotype) -> Labelled:
    """Returns a new network of one genotype, with a classifier, for a supervised search."""
    assert module.classifier is not None
    network, classes = _network(module, genotype), cast(int, module.classifier.out_features)
    found = Labelled(network, nn.Linear(network.out_features, classes))
    alike = next(module.supernet.parameters())
    return found.to(alike.device, alike.dtype)


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
        batches: Raw samples, or their stored features.
        dropout: Probability of modality dropout per sample and view, in [0, 1], in place of the search's own.
    """
    length, pool, grid = module.space.length, module.built_with["pool"], module.built_with["grid"]
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
    length, pool, grid = module.space.length, module.built_with["pool"], module.built_with["grid"]
    for batch in batches:
        inputs = {name: value.to(module.device) for name, value in batch.items()}
        label = inputs.pop("label")
        yield compact(module.encoders(inputs), length, pool, grid), label


def endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Epoch after epoch, each with an order of its own."""
    while True:
        yield from loader
