"""The exact second-order gradient against autograd through a step written by hand."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from lightning_mmnas.callbacks import ArchitectureAlternation
from lightning_mmnas.callbacks.second_order import unrolled_gradient
from tests.callbacks.searchers import (
    Mixture,
    Part,
    Searcher,
    dataset,
    differences,
    loaders,
    trainer,
    values,
)


def loss_of(net: nn.Module, part: Part) -> Tensor:
    return nn.functional.mse_loss(net(part[0]), part[1])


def by_hand(net: Mixture, rates: dict[str, float], train: Part, search: Part) -> list[Tensor]:
    """Differentiates through w - xi * dL/dw as autograd itself does it."""
    state: dict[str, Tensor] = {k: v.detach().clone() for k, v in net.state_dict().items()}
    logits = [state[name].requires_grad_() for name in ("alpha", "gamma")]
    weights = {name: state[name].requires_grad_() for name in rates}

    def loss(values: dict[str, Tensor], part: Part) -> Tensor:
        copies = {k: v.clone() for k, v in state.items()} | values
        return nn.functional.mse_loss(functional_call(net, copies, (part[0],)), part[1])

    slopes = torch.autograd.grad(loss({}, train), list(weights.values()), create_graph=True)
    moved = {name: weight - rates[name] * slope for (name, weight), slope in zip(weights.items(), slopes, strict=True)}
    return list(torch.autograd.grad(loss(moved, search), logits))


def parts() -> tuple[Part, Part]:
    train, search = (dataset(8, seed).tensors for seed in (1, 2))
    return (train[0], train[1]), (search[0], search[1])


@pytest.mark.parametrize("batch_norm", [False, True])
def test_equals_autograd(batch_norm: bool) -> None:
    torch.manual_seed(0)
    net = Mixture(batch_norm=batch_norm).double()
    net.head.bias.requires_grad_(False)
    rates = {n: 0.1 * (i + 1) for i, (n, p) in enumerate(net.named_parameters()) if p.requires_grad}
    train, search = parts()
    expected = by_hand(net, rates, train, search)
    before = values(net)
    for logit in net.logits():
        logit.requires_grad_(True)
    arguments = (
        net,
        net.logits(),
        rates,
        lambda: loss_of(net, train),
        lambda: loss_of(net, search),
    )
    *gradients, unused = unrolled_gradient(*arguments)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-12)
    assert unused is None
    assert not differences(before, values(net))
    assert all(p.grad is None for p in net.parameters())
    first = torch.autograd.grad(loss_of(net, search), net.alpha)[0]
    assert gradients[0] is not None
    assert (gradients[0] - first).norm() > 0.05 * first.norm()  # the order matters here


class Shared(nn.Module):
    """A mixture that goes by two names, and a weight that two modules share."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mixture(batch_norm=True)
        self.again = nn.ModuleDict({"net": self.net})
        self.net.second.weight = self.net.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x) + self.again["net"](2 * x)
        return out


def test_shared_modules_and_weights_are_replaced_everywhere_and_put_back() -> None:
    torch.manual_seed(0)
    shared = Shared().double()
    train, search = parts()
    weights = {name: weight for name, weight in shared.named_parameters() if weight.requires_grad}
    logits = [shared.net.alpha.requires_grad_(), shared.net.gamma.requires_grad_()]
    before, objects = values(shared), dict(shared.named_parameters(remove_duplicate=False))
    gradients = unrolled_gradient(
        shared, logits, dict.fromkeys(weights, 0.1), lambda: loss_of(shared, train), lambda: loss_of(shared, search)
    )
    assert not differences(before, values(shared))
    assert all(p is objects[n] for n, p in shared.named_parameters(remove_duplicate=False))

    # Moved by hand, for good.
    slopes = torch.autograd.grad(loss_of(shared, train), list(weights.values()), create_graph=True)
    del shared.net.second.weight
    for (name, weight), slope in zip(weights.items(), slopes, strict=True):
        path, _, last = name.rpartition(".")
        delattr(shared.get_submodule(path), last)
        setattr(shared.get_submodule(path), last, weight - 0.1 * slope)
    shared.net.second.weight = shared.net.first.weight
    expected = torch.autograd.grad(loss_of(shared, search), logits)
    for gradient, reference in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-10, atol=1e-12)


def test_a_training_loss_without_logits_leaves_the_direct_term() -> None:
    torch.manual_seed(0)
    net = Mixture().double()
    _, search = parts()
    net.alpha.requires_grad_(True)
    weight = net.head.weight
    (gradient,) = unrolled_gradient(
        net, [net.alpha], {"head.weight": 0.5}, weight.square().sum, lambda: loss_of(net, search)
    )
    with torch.no_grad():
        weight.mul_(0.0)  # w - 0.5 * 2 w
    (expected,) = torch.autograd.grad(loss_of(net, search), net.alpha)
    torch.testing.assert_close(gradient, expected)


class WithLoss(Searcher):
    """Gives its training loss by a method of its own; the other one must not be called twice."""

    def weight_step_loss(self, batch: Part) -> Tensor:
        return self.loss(batch)


@pytest.mark.parametrize("module_class", [Searcher, WithLoss])
def test_search_equals_autograd(module_class: type[Searcher], tmp_path: Path) -> None:
    module = module_class()
    names = [n for n, p in module.net.named_parameters() if p.requires_grad]
    logits = {"alpha": module.net.alpha.data.clone(), "gamma": module.net.gamma.data.clone()}
    expected: list[dict[str, Tensor]] = []

    def sgd(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1.0)

    class Compare(ArchitectureAlternation):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            rate = trainer.optimizers[0].param_groups[0]["lr"]
            rates = dict.fromkeys(names, rate)
            steps = by_hand(pl_module.net, rates, batch["weights"], batch["architecture"])
            for (name, logit), step in zip(logits.items(), steps, strict=True):
                logits[name] = logit - step
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
            expected.append({name: getattr(pl_module.net, name).clone() for name in logits})
            for name, logit in logits.items():
                torch.testing.assert_close(expected[-1][name], logit, rtol=1e-10, atol=1e-12)

    trainer(tmp_path, Compare(optimizer=sgd, order=2)).fit(module, loaders())
    assert len(expected) == 6
    # the fallback calls training_step once more per batch, with logging switched off
    assert len(module.losses) == (12 if module_class is Searcher else 6)
    assert "log" not in vars(module)


def test_attention_has_a_second_derivative() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 4, dtype=torch.float64))
            self.alpha = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            x = x @ self.weight * self.alpha.exp()
            return nn.functional.scaled_dot_product_attention(x, x, x).square().mean()

    torch.manual_seed(0)
    net = Attention()
    x = torch.randn(2, 1, 8, 4, dtype=torch.float64)
    (gradient,) = unrolled_gradient(net, [net.alpha], {"weight": 0.1}, lambda: net(x), lambda: net(2 * x))

    def outer(alpha: Tensor) -> Tensor:
        def inner(weight: Tensor) -> Tensor:
            value: Tensor = functional_call(net, {"weight": weight, "alpha": alpha}, (x,))
            return value

        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            moved = net.weight - 0.1 * torch.func.grad(inner)(net.weight)
            value: Tensor = functional_call(net, {"weight": moved, "alpha": alpha}, (2 * x,))
            return value

    torch.testing.assert_close(gradient, torch.func.grad(outer)(net.alpha), rtol=1e-10, atol=0)
