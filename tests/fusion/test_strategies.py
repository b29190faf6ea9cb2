"""Every relaxation in the supernet: one-hot logits, paths, exact second order, and a search with an obvious answer."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet
from lightning_mmnas.callbacks.second_order import unrolled_gradient
from lightning_mmnas.fusion.pairing import Pairing
from lightning_mmnas.fusion.primitives import Primitive
from lightning_mmnas.fusion.relaxation import Dirichlet, GumbelHard, Relaxation, Softmax

Make = Callable[[], Relaxation]
RELAXATIONS: dict[str, Make] = {
    "softmax": lambda: Softmax(0.7),
    "annealed": lambda: Softmax(5.0, 0.2),
    "gumbel": lambda: GumbelHard(seed=1),  # with seed 0 a tied step reads nothing: that is a kink of ReLU
    "dirichlet": Dirichlet,
}
PAIRINGS: list[Pairing] = ["tied", "independent"]


def space_of(**changes: object) -> FusionSpace:
    settings: dict[str, object] = {"inputs": ("a/0", "b/0", "c/0"), "cells": 2, "steps": 2, "channels": 4, "length": 2}
    return FusionSpace(**{**settings, "primitives": ("sum", "attention", "concat_fc"), **changes})  # type: ignore[arg-type]


def features_of(seed: int = 1, batch: int = 6, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"{m}/0": torch.randn(batch, 2, 4, generator=generator, dtype=torch.float64).to(dtype) for m in "abc"}


@pytest.mark.parametrize("name", RELAXATIONS)
def test_one_hot_supernet_equals_network(name: str) -> None:
    torch.manual_seed(0)
    for seed in range(3):
        genotype = space_of().sample(torch.Generator().manual_seed(seed))
        supernet = FusionSupernet(space_of(), relaxation=RELAXATIONS[name]()).double()
        network = FusionNetwork(genotype, readout="pool").double()
        supernet.set_architecture(genotype)
        supernet.inherit(network)
        # While training, draws of Dirichlet are close to one-hot only.
        for training in (True, False) if name != "dirichlet" else (False,):
            supernet.train(training)
            network.train(training)
            torch.testing.assert_close(supernet(features_of()), network(features_of()), rtol=0, atol=1e-12)
        assert supernet.decode(coverage=False, distinct=False) == genotype


@pytest.mark.parametrize("name", RELAXATIONS)
@pytest.mark.parametrize("pairing", PAIRINGS)
def test_decoding_goes_by_the_weights_without_chance(pairing: Pairing, name: str) -> None:
    supernet = FusionSupernet(space_of(), pairing=pairing, relaxation=RELAXATIONS[name]())
    for logits in supernet.architecture_parameters():
        logits.normal_(generator=torch.Generator().manual_seed(3))
    found = supernet.logits.scores().variants
    for i, weights in ((i, supernet.probabilities()[f"gamma/{i}"]) for i in range(2)):
        torch.testing.assert_close(torch.tensor(found[i]).exp(), weights, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(supernet.logits.primitive_probabilities(i).float(), weights)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2))
    assert supernet.decode().model_dump() == supernet.decode().model_dump()
    if pairing == "tied":
        edges, _, _ = supernet.logits.edge_weights()  # type: ignore[operator]
        assert edges[0] == pytest.approx(supernet.probabilities()["alpha/0"][:, 1].tolist(), rel=1e-5)


def drawn_weights(supernet: FusionSupernet, run: Callable[[], Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """What the relaxation is given and gives in one forward pass; the buffers are as before afterwards."""
    given: list[Tensor] = []
    gives: list[Tensor] = []

    def note(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        given.append(inputs[0])
        gives.append(output)

    before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    hook = supernet.logits.relaxation.register_forward_hook(note)
    run()
    hook.remove()
    for name, buffer in supernet.named_buffers():
        buffer.copy_(before[name])
    return given, gives


class Given(Relaxation):
    """Gives the weights that it was made with, one after the other."""

    def __init__(self, weights: Sequence[Tensor], one_hot: bool) -> None:
        super().__init__()
        self.weights, self.one_hot, self.calls = list(weights), one_hot, 0

    def begin(self) -> None:
        self.calls = 0

    def forward(self, logits: Tensor) -> Tensor:
        self.calls += 1
        return self.weights[self.calls - 1]


class Objective(nn.Module):
    """A supernet and a head, so that there is a loss on weights and logits."""

    def __init__(self, pairing: Pairing, relaxation: Relaxation, partial_channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        space = space_of(primitives=("sum", "concat_fc"))
        self.supernet = FusionSupernet(
            space, pairing=pairing, relaxation=relaxation, partial_channels=partial_channels
        ).double()
        self.head = nn.Linear(self.supernet.out_features, 1).double()
        for parameter in self.supernet.architecture_parameters():
            parameter.normal_()

    def loss(self, seed: int) -> Tensor:
        features = features_of(seed)
        target = features["a/0"].mean((1, 2)) * features["c/0"].mean((1, 2))
        return nn.functional.mse_loss(self.head(self.supernet(features))[:, 0], target)

    def forward(self, seed: int) -> Tensor:
        return self.loss(seed)


@pytest.mark.parametrize(
    ("pairing", "name", "partial_channels"),
    [*((pairing, name, 1) for pairing in PAIRINGS for name in RELAXATIONS), ("independent", "softmax", 2)],
)
def test_second_order_equals_a_finite_difference(pairing: Pairing, name: str, partial_channels: int) -> None:
    """With the draws held: differences over the mixture weights, then back through the relaxation."""
    rate, step = 0.1, 1e-5
    module = Objective(pairing, RELAXATIONS[name](), partial_channels)
    logits = module.supernet.architecture_parameters()
    rates = {n: rate for n, p in module.named_parameters() if p.requires_grad}
    for parameter in logits:
        parameter.requires_grad_(True)
    given, weights = drawn_weights(module.supernet, lambda: module.loss(2))
    assert len(given) == len(weights) > 3
    found = unrolled_gradient(module, logits, rates, lambda: module.loss(1), lambda: module.loss(2))

    relaxation = module.supernet.logits.relaxation
    held = Given([w.detach() for w in weights], relaxation.one_hot)
    module.supernet.logits.relaxation = held

    def value(weights: list[Tensor]) -> float:
        """L_arch after one step of the weights, with the mixture weights given."""
        held.weights = weights
        parameters = dict(module.named_parameters())
        slopes = torch.autograd.grad(module.loss(1), [parameters[n] for n in rates], allow_unused=True)
        moved = {n: parameters[n] - rate * s for n, s in zip(rates, slopes, strict=True) if s is not None}
        with torch.no_grad():
            return float(functional_call(module, moved, (2,)))

    base = [w.detach() for w in weights]
    upstream = []
    for index, weight in enumerate(base):
        difference = torch.zeros_like(weight)
        for place in range(weight.numel()):
            values = []
            for sign in (1, -1):
                changed = weight.clone()
                changed.view(-1)[place] += sign * step
                values.append(value([*base[:index], changed, *base[index + 1 :]]))
            difference.view(-1)[place] = (values[0] - values[1]) / (2 * step)
        upstream.append(difference)
    expected = torch.autograd.grad(weights, logits, upstream)
    for gradient, reference in zip(found, expected, strict=True):
        assert gradient is not None
        torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-9)
    module.supernet.logits.relaxation = relaxation
    first = torch.autograd.grad(module.loss(2), logits)
    changes = [float((a - b).norm() / b.norm()) for a, b in zip(expected, first, strict=True) if b.norm() > 0]
    assert max(changes) > 0.02  # the order matters here


@pytest.mark.parametrize("pairing", PAIRINGS)
def test_gumbel_computes_and_trains_the_sampled_primitives_only(
    pairing: Pairing, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = Objective(pairing, GumbelHard(seed=1))
    supernet = module.supernet
    for parameter in supernet.architecture_parameters():
        parameter.requires_grad_(True)
    ran: list[str] = []
    sampled: dict[int, Tensor] = {}
    mix = supernet.logits.primitive_weights

    def noted(i: int) -> Tensor:
        sampled[i] = mix(i)
        sampled[i].retain_grad()
        return sampled[i]

    monkeypatch.setattr(supernet.logits, "primitive_weights", noted)
    for i, cell in enumerate(supernet.cells):
        for name, primitive in cell.get_submodule("steps").named_modules():
            if name.count(".") == 1:
                primitive.register_forward_hook(lambda *_, path=f"{i}.{name}": ran.append(path))
    torch.autograd.backward(module.loss(2))
    chosen = {i: weights.argmax(-1).tolist() for i, weights in sampled.items()}
    assert ran == [f"{i}.{t}.{k}" for i, row in chosen.items() for t, k in enumerate(row)]
    for i, weights in sampled.items():
        assert weights.grad is not None
        for t in range(2):
            others = [k for k in range(weights.shape[-1]) if k != chosen[i][t]]
            assert weights.grad[t, others].tolist() == [0.0] * len(others)
            assert weights.grad[t, chosen[i][t]] != 0
    for name, parameter in supernet.named_parameters():
        if ".steps." in name:
            _, cell_index, _, step, variant, *_ = name.split(".")
            assert (parameter.grad is not None) == (int(variant) == chosen[int(cell_index)][int(step)])


class Noise(Primitive):
    """Fuses nothing."""

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return 2 * torch.randn_like(x)


SEARCHES = [(pairing, name) for pairing in PAIRINGS for name in RELAXATIONS]


@pytest.mark.parametrize(("pairing", "name"), SEARCHES)
def test_the_obvious_answer_is_found(pairing: Pairing, name: str) -> None:
    """What is wanted of the network is the sum of a and c, without noise."""
    torch.manual_seed(0)
    space = space_of(cells=1, steps=1, primitives=(f"{__name__}.Noise", "sum"))
    relaxation = RELAXATIONS[name]()
    supernet = FusionSupernet(space, pairing=pairing, relaxation=relaxation)
    head = nn.Linear(supernet.out_features, 4)
    weights = torch.optim.Adam([p for p in [*supernet.parameters(), *head.parameters()] if p.requires_grad], lr=0.02)
    logits = supernet.architecture_parameters()
    architecture = torch.optim.Adam(logits, lr=0.1, betas=(0.5, 0.999))
    steps = 150

    def loss(seed: int) -> Tensor:
        features = features_of(seed, 64, torch.float32)
        target = (2 * features["a/0"] + features["c/0"]).mean(1)  # x + (x + y), of x = a and y = c
        return nn.functional.mse_loss(head(supernet(features)), target)

    for step in range(steps):
        supernet.set_progress(step / steps)
        for parameter in logits:
            parameter.requires_grad_(True)
        gradients = torch.autograd.grad(loss(2 * step), logits, allow_unused=True)
        for parameter, gradient in zip(logits, gradients, strict=True):
            parameter.grad = gradient
            parameter.requires_grad_(False)
        architecture.step()
        weights.zero_grad()
        torch.autograd.backward(loss(2 * step + 1))
        weights.step()
    (cell,) = supernet.decode(coverage=False).cells
    assert cell.inputs == ("a/0", "c/0")
    assert cell.steps[0].primitive == "sum"
