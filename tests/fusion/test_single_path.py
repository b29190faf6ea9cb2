"""One architecture inside a supernet: the same numbers as everywhere else, and nothing else is run."""

import pytest
import torch
from torch import Tensor, nn

from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet, Genotype
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.batch_norm import batch_statistics
from lightning_mmnas.fusion.pairing import Pairing
from lightning_mmnas.fusion.single_path import SinglePath

SHAPES = {"image/0": (3, 8, 8), "image/1": (5, 4, 4), "audio.v2/0": (4, 9), "text/0": (6,)}
SPACES = [
    FusionSpace(inputs=tuple(SHAPES), cells=2, steps=1, channels=8, length=4),
    FusionSpace(inputs=tuple(SHAPES), cells=3, cell_outputs=1, steps=3, step_outputs=2, channels=8, length=4),
    FusionSpace(inputs=("text/0",), cells=2, channels=8, length=4, primitives=("zero", "attention")),
]


def features_of(batch: int = 5) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.randn(batch, *shape, generator=generator).double() for name, shape in SHAPES.items()}


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("readout", ["flatten", "pool", "branch", "neck"])
def test_path_equals_network_and_one_hot_supernet(space: FusionSpace, readout: str) -> None:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(3)
    supernet = FusionSupernet(space, SHAPES, readout=readout).double()  # type: ignore[arg-type]
    path = SinglePath(supernet)
    for buffer in supernet.buffers():  # running statistics that are not the initial ones
        if buffer.is_floating_point():
            buffer.add_(torch.rand_like(buffer))
    for _ in range(4):
        genotype = path.genotype = space.sample(generator)
        network = FusionNetwork(genotype, SHAPES, readout=readout).double()  # type: ignore[arg-type]
        supernet.inherit(network)
        supernet.set_architecture(genotype)
        for mode in (False, True):
            path.train(mode)
            network.train(mode)
            torch.testing.assert_close(path(features_of()), network(features_of()), rtol=0, atol=1e-11)
            torch.testing.assert_close(path(features_of()), supernet(features_of()), rtol=0, atol=1e-11)
    assert path.out_features == supernet.out_features


def test_tied_supernets_have_paths_of_two_inputs() -> None:
    space = SPACES[1]
    supernet = FusionSupernet(space, SHAPES, pairing="tied").double().eval()
    path, generator = SinglePath(supernet), torch.Generator().manual_seed(0)
    for _ in range(5):
        genotype = path.genotype = space.sample(generator)
        network = FusionNetwork(genotype, SHAPES, readout="pool").double().eval()
        supernet.inherit(network)
        torch.testing.assert_close(path(features_of()), network(features_of()), rtol=0, atol=1e-11)


def test_features_that_are_states_already() -> None:
    space = FusionSpace(inputs=("a", "b"), channels=8, length=4)
    path = SinglePath(FusionSupernet(space).eval())
    genotype = path.genotype = space.sample(torch.Generator().manual_seed(0))
    network = FusionNetwork(genotype, readout="pool").eval()
    path.supernet.inherit(network)
    features = {name: torch.randn(3, 4, 8) for name in space.inputs}
    torch.testing.assert_close(path(features), network(features))


def test_gradients_reach_the_chosen_weights_alone() -> None:
    space = SPACES[0]
    supernet = FusionSupernet(space, SHAPES).double()
    path = SinglePath(supernet)
    genotype = path.genotype = space.sample(torch.Generator().manual_seed(1))
    ran: list[nn.Module] = []
    for module in supernet.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, *_: ran.append(module))
    path(features_of()).square().mean().backward()
    network = FusionNetwork(genotype, SHAPES, readout="pool")
    reached = [parameter for parameter in supernet.parameters() if parameter.grad is not None]
    assert sum(p.numel() for p in reached) == sum(p.numel() for p in network.parameters())
    with_weights = [m for m in ran if list(m.parameters(recurse=False))]
    expected = [m for m in network.modules() if list(m.parameters(recurse=False)) and not list(m.children())]
    assert len(with_weights) <= len(expected)


def test_architectures_of_other_spaces_are_refused() -> None:
    with pytest.raises(GenotypeError, match=r"partial_channels=2 .* use partial_channels=1"):
        SinglePath(FusionSupernet(SPACES[0], SHAPES, partial_channels=2))
    path = SinglePath(FusionSupernet(SPACES[0], SHAPES))
    with pytest.raises(ValueError, match="no architecture yet"):
        path(features_of())
    with pytest.raises(GenotypeError, match="another space: inputs differ"):
        path.genotype = SPACES[2].sample(torch.Generator().manual_seed(0))


def test_batch_statistics_are_those_of_the_batch_and_leave_no_trace() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.BatchNorm1d(3, track_running_stats=False))
    module[1].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = 5 + 3 * torch.randn(50, 3)
    normalised = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
    expected = normalised / (normalised.var(0, unbiased=False) + 1e-5).sqrt()
    with batch_statistics(module):
        torch.testing.assert_close(module[0](x), normalised)
        torch.testing.assert_close(module(x), expected)  # and no dropout
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module] == [True, False, True]
    assert module[0].track_running_stats
    module.eval()
    with batch_statistics(module):
        pass
    torch.testing.assert_close(module[0](x), x / (1 + 1e-5) ** 0.5)


@pytest.mark.parametrize("pairing", ["independent", "tied"])
@pytest.mark.parametrize("primitive", ["linear_glu", "concat_fc", "sum"])
def test_the_order_in_which_inputs_are_written_changes_nothing(pairing: Pairing, primitive: str) -> None:
    space = FusionSpace(inputs=("image/0", "text/0"), cells=1, steps=2, step_outputs=1, channels=8, length=4)
    torch.manual_seed(0)
    supernet = FusionSupernet(space, SHAPES, pairing=pairing).double().eval()
    path, found = SinglePath(supernet), []
    for pairs in ([("x", "y"), ("y", "step0")], [("y", "x"), ("step0", "y")]):
        steps = [{"inputs": pair, "primitive": primitive} for pair in pairs]
        genotype = path.genotype = Genotype.model_validate(
            {"space": space, "cells": [{"inputs": space.inputs, "steps": steps}]}
        )
        network = FusionNetwork(genotype, SHAPES, readout="pool").double().eval()
        supernet.inherit(network)
        found += [network(features_of()), path(features_of())]
        if pairing == "independent":
            supernet.set_architecture(genotype)
            found.append(supernet(features_of()))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=1e-11)
