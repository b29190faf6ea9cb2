"""A bias in front of a batch norm: no gradient but zero where the batch's statistics are used, its own elsewhere."""

import copy

import torch
from torch import Tensor, nn

from lightning_mmnas import FusionNetwork, FusionSpace
from lightning_mmnas.objectives.labelled import Labelled
from lightning_mmnas.objectives.training import build_optimizer, train_grouped, train_together
from tests.fusion.test_network_group import SHAPES

SPACE = FusionSpace(inputs=tuple(SHAPES), channels=6, length=4, steps=2, step_outputs=2)


def networks() -> list[FusionNetwork]:
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    return [FusionNetwork(SPACE.sample(generator), SHAPES) for _ in range(3)]


def batch(b: int) -> dict[str, Tensor]:
    return {name: torch.randn(b, *shape) for name, shape in SHAPES.items()}


def biases(network: nn.Module) -> dict[str, Tensor]:
    """Those of linear layers, all of which stand in front of a batch norm."""
    linear = ("linear.bias", "late.0.bias")
    return {name: bias for name, bias in network.named_parameters() if name.endswith(linear)}


def test_gradients_are_zero_in_training_and_true_in_evaluation() -> None:
    for network in networks():
        assert len(biases(network)) >= 4
        network(batch(9)).square().sum().backward()
        assert all(bias.grad is not None and not bias.grad.any() for bias in biases(network).values())
        others = [p for name, p in network.named_parameters() if name not in biases(network)]
        assert any(bool(p.grad.any()) for p in others if p.grad is not None)
        network.eval().zero_grad()
        network(batch(9)).square().sum().backward()
        assert any(bias.grad is not None and bool(bias.grad.any()) for bias in biases(network).values())


def test_groups_train_in_float32_what_each_network_trains_alone() -> None:
    members = {
        str(i): Labelled(network, nn.Linear(network.out_features, 3), 0.0) for i, network in enumerate(networks())
    }
    before = {name: copy.deepcopy(member) for name, member in members.items()}
    data = [(batch(16), torch.randint(0, 3, (16,))) for _ in range(12)]
    test = batch(20)
    alone = copy.deepcopy(members)
    for train, trained in ((train_grouped, members), (train_together, alone)):
        train(trained, data, lambda net: build_optimizer([{"params": list(net.parameters())}], 0.0, "constant", 12))
    for name, member in members.items():
        start = biases(before[name].network)
        for key, bias in biases(member.network).items():
            assert torch.equal(bias, start[key])
        with torch.no_grad():
            found, expected = member.eval().logits(test), alone[name].eval().logits(test)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
