"""Our tied supernet and the plain reference that its speed is measured against compute the same, step for step."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.bmnas_reference import ReferenceAlternation, ReferenceNetwork, ReferenceSupernet
from benchmarks.our_alternation import Alternation
from lightning_mmnas import FusionNetwork, FusionSpace, FusionSupernet
from lightning_mmnas.interop import bmnas

N, C, L, B = 3, 4, 2, 6
NAMES = [f"m{j}/0" for j in range(N)]
INNER: dict[str, Any] = {"cells": 3, "cell_outputs": 2, "steps": 2, "step_outputs": 2}


def both() -> tuple[ReferenceSupernet, FusionSupernet]:
    """A reference with random weights and logits, and our supernet with the same."""
    torch.manual_seed(0)
    reference = ReferenceSupernet(N, C, L, **INNER).double()
    for parameter in reference.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    reference.arch = {
        name: torch.randn(p.shape, dtype=torch.float64).requires_grad_() for name, p in reference.arch.items()
    }
    space = FusionSpace(inputs=tuple(NAMES), channels=C, length=L, **INNER)
    ours = FusionSupernet(space, pairing="tied", readout="flatten").double()
    bmnas.load_state_dict(ours, reference.state_dict())
    bmnas.load_logits(ours, {name: p.detach() for name, p in reference.arch.items()})
    return reference, ours


def batch(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(B, C, L, generator=generator, dtype=torch.float64) for _ in NAMES]


def as_ours(states: list[Tensor]) -> dict[str, Tensor]:
    return {name: state.transpose(1, 2).contiguous() for name, state in zip(NAMES, states, strict=True)}


def mean_square(model: nn.Module, states: Any) -> Tensor:
    loss: Tensor = model(states).square().mean()
    return loss


def assert_equal(ours: dict[str, Tensor], reference: dict[str, Tensor]) -> None:
    torch.testing.assert_close(ours, reference, rtol=0, atol=1e-9)


def test_outputs_and_both_gradients_are_equal() -> None:
    reference, ours = both()
    logits = ours.architecture_parameters()
    for training in (False, True):
        reference.train(training)
        ours.train(training)
        weights = dict(reference.named_parameters())
        out = reference(batch(1))
        found = torch.autograd.grad(out.square().mean(), [*weights.values(), *reference.arch.values()])
        expected = bmnas.convert_state_dict(dict(zip(weights, found[: len(weights)], strict=True)))
        expected_logits = bmnas.convert_logits(
            ours.space, dict(zip(reference.arch, found[len(weights) :], strict=True))
        )
        for logit in logits:
            logit.requires_grad_()
        out_ours = ours(as_ours(batch(1)))
        names = [name for name, p in ours.named_parameters() if not name.startswith("logits.")]
        gradients = torch.autograd.grad(out_ours.square().mean(), [*(ours.get_parameter(n) for n in names), *logits])
        torch.testing.assert_close(out_ours, out, rtol=0, atol=1e-12)
        assert_equal(dict(zip(names, gradients[: len(names)], strict=True)), expected)
        logit_names = [name for name, _ in ours.logits.named_parameters()]
        assert_equal(dict(zip(logit_names, gradients[len(names) :], strict=True)), expected_logits)


def test_weights_logits_and_statistics_are_equal_after_two_alternations() -> None:
    reference, ours = both()
    theirs = ReferenceAlternation(
        list(reference.parameters()),
        list(reference.arch.values()),
        partial(mean_square, reference),
        redundant_forward=False,  # it moves the running statistics
    )
    alternation = Alternation(list(ours.parameters()), ours.architecture_parameters(), partial(mean_square, ours))
    for step in range(2):
        theirs(batch(2 * step), batch(2 * step + 1))
        alternation(as_ours(batch(2 * step)), as_ours(batch(2 * step + 1)))
    state = {name: value for name, value in ours.state_dict().items() if not name.startswith("logits.")}
    assert_equal(
        {name: value.double() for name, value in state.items() if "relaxation" not in name},
        {name: value.double() for name, value in bmnas.convert_state_dict(reference.state_dict()).items()},
    )
    logits = {name: p.detach() for name, p in ours.logits.named_parameters()}
    assert_equal(logits, bmnas.convert_logits(ours.space, {n: p.detach() for n, p in reference.arch.items()}))


def test_the_redundant_forward_pass_changes_no_weights_and_no_logits() -> None:
    results = []
    for redundant in (False, True):
        reference, _ = both()
        alternation = ReferenceAlternation(
            list(reference.parameters()),
            list(reference.arch.values()),
            partial(mean_square, reference),
            redundant,
        )
        alternation(batch(0), batch(1))
        results.append([p.detach() for p in (*reference.parameters(), *reference.arch.values())])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_the_found_networks_are_equal() -> None:
    torch.manual_seed(0)
    reference = ReferenceNetwork(C, L).double()
    inputs = [f"m{j}/0" for j in range(4)]
    fields = {**ReferenceNetwork.fields, "concat": [4, 5]}
    network = FusionNetwork(bmnas.genotype_from_fields(fields, inputs, C, L), readout="flatten").double()
    bmnas.load_state_dict(network, reference.state_dict())
    states = [torch.randn(B, C, L, dtype=torch.float64) for _ in inputs]
    features = {name: state.transpose(1, 2) for name, state in zip(inputs, states, strict=True)}
    torch.testing.assert_close(network(features), reference(states), rtol=0, atol=1e-12)
