"""A group of networks computes and learns what each of its networks does alone."""

import copy
from typing import Literal

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor, nn

from lightning_mmnas import FusionNetwork, FusionSpace
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.fusion.grouped_layers import GroupedSequential
from lightning_mmnas.fusion.network_group import NetworkGroup
from lightning_mmnas.fusion.primitives import Primitive
from lightning_mmnas.objectives.fused_nt_xent import fused_nt_xent
from lightning_mmnas.objectives.fusion_objective import projection_head
from lightning_mmnas.objectives.training import build_optimizer

SHAPES = {"image/0": (6, 8, 8), "image/1": (10, 4, 4), "text": (7,)}
SPACES = {
    "two cells": FusionSpace(inputs=tuple(SHAPES), channels=6, length=4),
    "inner steps": FusionSpace(
        inputs=tuple(SHAPES), cells=3, steps=2, cell_outputs=2, step_outputs=2, channels=4, length=3,
        primitives=("zero", "sum", "attention", "linear_glu", "concat_fc"),
    ),
    "one output": FusionSpace(inputs=tuple(SHAPES), steps=3, cell_outputs=1, step_outputs=1, channels=4, length=4),
}  # fmt: skip
Readout = Literal["flatten", "pool", "branch", "neck"]


def networks(space: FusionSpace, readout: Readout, count: int = 6) -> list[FusionNetwork]:
    generator = torch.Generator().manual_seed(1)
    torch.manual_seed(2)
    found = [FusionNetwork(space.sample(generator), SHAPES, readout).double() for _ in range(count)]
    for network in found:  # affine parameters that matter
        for name, parameter in network.named_parameters():
            if "norm" in name:
                nn.init.uniform_(parameter, 0.5, 1.5)
    return found


def batch(b: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(b, *shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


@pytest.mark.parametrize("readout", ["flatten", "pool", "branch", "neck"])
@pytest.mark.parametrize("space", SPACES)
def test_same_outputs_and_statistics(space: str, readout: Readout) -> None:
    members = networks(SPACES[space], readout)
    alone = copy.deepcopy(members)
    group = NetworkGroup(members)
    features = batch(9, 3)
    for mode in (True, False):  # the second pass uses the statistics that the first one left
        group.train(mode)
        together = group(features)
        for g, network in enumerate(alone):
            torch.testing.assert_close(together[g], network.train(mode)(features), rtol=1e-10, atol=1e-10)
    group.write_back()
    for member, network in zip(members, alone, strict=True):
        torch.testing.assert_close(member.state_dict(), network.state_dict(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("readout", ["pool", "branch"])
@pytest.mark.parametrize("space", ["two cells", "inner steps"])
def test_training_together_equals_training_alone(space: str, readout: Readout) -> None:
    """Six steps of NT-Xent with AdamW: the same weights in the end, to rounding."""
    members = networks(SPACES[space], readout, count=4)
    torch.manual_seed(5)
    heads = [projection_head(network.out_features, 8, 5).double() for network in members]
    alone = [copy.deepcopy(pair) for pair in zip(members, heads, strict=True)]

    group, head = NetworkGroup(members), GroupedSequential([h.layers for h in heads])  # type: ignore[misc]
    optimizer, schedule = build_optimizer(
        [{"params": [*group.parameters(), *head.parameters()], "lr": 1e-2}], 1e-2, "one_cycle", 6
    )
    for step in range(6):
        z = head(group(batch(16, step)))
        optimizer.zero_grad()
        torch.autograd.backward(fused_nt_xent(z, 0.2).sum())
        optimizer.step()
        schedule.step()
    group.write_back()

    for member, (network, projector) in zip(members, alone, strict=True):
        modules = nn.ModuleList([network, projector])
        optimizer, schedule = build_optimizer(
            [{"params": list(modules.parameters()), "lr": 1e-2}], 1e-2, "one_cycle", 6
        )
        for step in range(6):
            z0, z1 = projector(network(batch(16, step))).chunk(2)
            optimizer.zero_grad()
            torch.autograd.backward(NTXentLoss(temperature=0.2)(z0, z1))
            optimizer.step()
            schedule.step()
        # lightly's loss rounds its normalisation a little differently, and AdamW divides by small gradients
        torch.testing.assert_close(member.state_dict(), network.state_dict(), rtol=1e-6, atol=1e-6)


def test_features_without_input_nodes() -> None:
    space = SPACES["two cells"]
    members = [FusionNetwork(g).double() for g in [*space.enumerate()][:5]]
    features = {name: torch.randn(3, 4, 6, dtype=torch.float64) for name in space.inputs}
    together = NetworkGroup(members).eval()(features)
    for g, network in enumerate(members):
        torch.testing.assert_close(together[g], network.eval()(features))


class Own(Primitive):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x - y


def test_refusals() -> None:
    space = SPACES["two cells"]
    genotypes = [*space.enumerate()][:2]
    with pytest.raises(GenotypeError, match="set dropout to 0"):
        NetworkGroup([FusionNetwork(genotype, SHAPES, dropout=0.1) for genotype in genotypes])
    with pytest.raises(GenotypeError, match="same readout"):
        NetworkGroup([FusionNetwork(genotypes[0], SHAPES, "pool"), FusionNetwork(genotypes[1], SHAPES, "branch")])
    with pytest.raises(GenotypeError, match="same pooling"):
        NetworkGroup([FusionNetwork(genotypes[0], SHAPES), FusionNetwork(genotypes[1], SHAPES, pool="avg")])
    own = space.model_copy(update={"primitives": ("tests.fusion.test_network_group.Own",)})
    with pytest.raises(GenotypeError, match="Own cannot be trained in a group"):
        NetworkGroup([FusionNetwork(genotype, SHAPES) for genotype in [*own.enumerate()][:2]])
    with pytest.raises(GenotypeError, match="another space"):
        NetworkGroup([FusionNetwork(genotypes[0], SHAPES), FusionNetwork(next(own.enumerate()), SHAPES)])
