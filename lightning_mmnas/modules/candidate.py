"""One candidate architecture of a search: its network trained alone, and the views that it is trained and scored on."""

from collections.abc import Iterable, Iterator

from torch import Tensor

from lightning_mmnas.compact import compact
from lightning_mmnas.genotype import Genotype
from lightning_mmnas.modules.base import FusionObjective, projection_head
from lightning_mmnas.modules.search import FusionSearch
from lightning_mmnas.network import FusionNetwork
from lightning_mmnas.selection import local_objective
from lightning_mmnas.views import ModalityDropout, TwoViews

Batch = dict[str, Tensor]


def candidate(module: FusionSearch, genotype: Genotype) -> FusionObjective:
    """Returns the search's objective on a new network of one genotype, on the device and in the type of the supernet.

    Args:
        module: The search, whose sizes and objective are taken over.
        genotype: An architecture of its space.
    """
    nodes = module.hparams
    network = FusionNetwork(
        genotype,
        module.encoders.feature_shapes,
        readout="pool",  # with the branch readout the criteria lose their power: all networks look alike
        dropout=nodes["dropout"],
        pool=nodes["pool"],
        grid=nodes["grid"],
    )
    head = projection_head(network.out_features, nodes["projection_hidden"], nodes["projection_out"])
    alike = next(module.supernet.parameters())
    return FusionObjective(network, head, local_objective(module.objective)).to(alike.device, alike.dtype)


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


def endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    """Epoch after epoch, each with an order of its own."""
    while True:
        yield from loader
