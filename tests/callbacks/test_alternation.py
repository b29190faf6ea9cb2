"""ArchitectureAlternation against a loop written by hand, and what each step may change."""

import copy
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lightning_mmnas.callbacks import ArchitectureAlternation
from tests.callbacks.searchers import Part, Searcher, dataset, loaders, trainer, values


def exponential(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)


def by_hand(
    net: Any,
    epochs: int = 2,
    accumulate: int = 1,
    clip: float | None = None,
    warmup_epochs: int = 0,
    every_n_steps: int = 1,
    per_epoch: bool = False,
    lr: float = 0.1,
) -> int:
    """The same search in plain PyTorch; returns the number of weight steps."""
    logits = net.logits()
    weights = [p for p in net.parameters() if all(p is not logit for logit in logits)]
    w_optimizer = torch.optim.SGD(weights, lr=0.05, momentum=0.9)
    w_scheduler = torch.optim.lr_scheduler.StepLR(w_optimizer, 2, 0.5)
    a_optimizer = torch.optim.Adam(logits, lr=lr, betas=(0.5, 0.999), weight_decay=1e-3)
    a_scheduler = exponential(a_optimizer)
    w_batches: list[Part] = list(DataLoader(dataset(12, 1), batch_size=4))
    a_batches: list[Part] = list(DataLoader(dataset(8, 2), batch_size=4))
    steps = 0

    def backward(batch: Part, parameters: list[nn.Parameter]) -> None:
        """Adds the gradient of one accumulated batch with respect to some parameters only."""
        for p in net.parameters():
            p.requires_grad_(any(p is q for q in parameters))
        torch.autograd.backward(nn.functional.mse_loss(net(batch[0]), batch[1]) / accumulate)

    def architecture_step() -> None:
        a_optimizer.step()
        a_scheduler.step()
        a_optimizer.zero_grad()

    for epoch in range(epochs):
        if per_epoch and epoch >= warmup_epochs:
            for index, batch in enumerate(a_batches):
                backward(batch, logits)
                if (index + 1) % accumulate == 0 or index + 1 == len(a_batches):
                    architecture_step()
        pairs = zip(w_batches, islice(cycle(a_batches), len(w_batches)), strict=True)
        for index, (w_batch, a_batch) in enumerate(pairs):
            boundary = (index + 1) % accumulate == 0 or index + 1 == len(w_batches)
            if not per_epoch and epoch >= warmup_epochs and steps % every_n_steps == 0:
                backward(a_batch, logits)
                if boundary:
                    architecture_step()
            backward(w_batch, weights)
            if boundary:
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(weights, clip)
                w_optimizer.step()
                w_scheduler.step()
                w_optimizer.zero_grad()
                steps += 1
    for p in logits:
        p.requires_grad_(False)
    return steps


@pytest.mark.parametrize(
    ("hand", "options"),
    [
        ({}, {}),
        ({"accumulate": 2}, {"accumulate_grad_batches": 2}),  # three batches: a remainder of one
        ({"accumulate": 3}, {"accumulate_grad_batches": 3}),
        ({"clip": 0.05}, {"gradient_clip_val": 0.05}),
        ({"warmup_epochs": 1}, {}),
        ({"warmup_epochs": 2}, {}),
        ({"every_n_steps": 2}, {}),
        ({"every_n_steps": 2, "accumulate": 2, "warmup_epochs": 1}, {"accumulate_grad_batches": 2}),
        ({"per_epoch": True}, {}),
        ({"per_epoch": True, "accumulate": 2, "warmup_epochs": 1}, {"accumulate_grad_batches": 2}),
    ],
)
def test_equals_a_loop_by_hand(hand: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    module = Searcher()
    reference = copy.deepcopy(module.net)
    steps = by_hand(reference, epochs=3, **hand)
    alternation = ArchitectureAlternation(
        lr=0.1,
        scheduler=exponential,
        warmup_epochs=hand.get("warmup_epochs", 0),
        every_n_steps=hand.get("every_n_steps", 1),
        schedule="epoch" if hand.get("per_epoch") else "step",
    )
    run = trainer(tmp_path, alternation, max_epochs=3, **options)
    run.fit(module, loaders())
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(module.net.state_dict()[name], value, rtol=1e-12, atol=1e-13, msg=name)
    assert run.global_step == steps
    assert bool((module.net.alpha != 0).all())
    assert torch.equal(module.net.unused, torch.ones(1, dtype=torch.float64))  # decays nothing


class Watch(Callback):
    """Records the state around the architecture step, which comes between the two watches."""

    def __init__(self) -> None:
        self.at_start: list[dict[str, Tensor]] = []
        self.after_architecture: list[dict[str, Tensor]] = []
        self.gradients: list[list[Tensor | None]] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.at_start.append(values(pl_module))
        for parameter in pl_module.parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.full_like(parameter, 7.0)
        self.gradients.append(gradients(pl_module))


class WatchAfter(Watch):
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self.at_start.append(values(pl_module))
        self.gradients.append(gradients(pl_module))
        self.flags = [p.requires_grad for p in pl_module.parameters()]


def gradients(module: nn.Module) -> list[Tensor | None]:
    return [p.grad if p.grad is None else p.grad.clone() for p in module.parameters()]


@pytest.mark.parametrize("order", [1, 2])
def test_each_step_changes_its_own_parameters_only(order: Any, tmp_path: Path) -> None:
    module = Searcher(batch_norm=True)
    module.net.head.bias.requires_grad_(False)  # frozen by the user: must stay so
    flags = [p.requires_grad for p in module.parameters()]
    before, after = Watch(), WatchAfter()
    alternation = ArchitectureAlternation(lr=0.1, order=order)
    trainer(tmp_path, before, alternation, after).fit(module, loaders())
    logits = {"net.alpha", "net.gamma"}
    weights = {name for name, p in module.named_parameters() if p.requires_grad}
    for index, (a, b) in enumerate(zip(before.at_start, after.at_start, strict=True)):
        changed = {name for name in a if not torch.equal(a[name], b[name])}
        assert changed - {n for n, _ in module.named_buffers()} == logits
        if order == 2:
            assert changed == logits
        for x, y in zip(before.gradients[index], after.gradients[index], strict=True):
            assert (x is None and y is None) or (x is not None and y is not None)
            assert x is None or (y is not None and torch.equal(x, y))
    for a, b in zip(after.at_start, before.at_start[1:], strict=False):  # the weight steps
        changed = {name for name in a if not torch.equal(a[name], b[name])}
        assert changed - {n for n, _ in module.named_buffers()} == weights
    assert flags == after.flags == [p.requires_grad for p in module.parameters()]
    assert all(logit.grad is None for logit in module.architecture_parameters())


def test_weights_have_no_gradient_buffers_in_the_architecture_step(tmp_path: Path) -> None:
    seen = []

    class Spy(Searcher):
        def architecture_step(self, batch: Part) -> Tensor:
            seen.append({name for name, p in self.named_parameters() if p.requires_grad})
            return super().architecture_step(batch)

    trainer(tmp_path, max_epochs=1).fit(Spy(), loaders())
    assert seen == [{"net.alpha", "net.gamma", "net.unused"}] * 3


def test_architecture_may_use_another_optimizer(tmp_path: Path) -> None:
    def sgd(logits: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(logits, lr=1.0)

    module = Searcher()
    alternation = ArchitectureAlternation(optimizer=sgd, schedule="epoch")
    net = copy.deepcopy(module.net)
    trainer(tmp_path, alternation, max_epochs=1).fit(module, loaders(architecture=4))
    net.alpha.requires_grad_(True)
    x, y = dataset(4, 2).tensors
    (gradient,) = torch.autograd.grad(nn.functional.mse_loss(net(x), y), net.alpha)
    torch.testing.assert_close(module.net.alpha.data, -gradient, rtol=1e-12, atol=0)


def test_bf16_mixed(tmp_path: Path) -> None:
    dtypes = []

    class Spy(Searcher):
        def architecture_step(self, batch: Part) -> Tensor:
            dtypes.append(self.net.first(batch[0]).dtype)
            return super().architecture_step(batch)

    for order in (1, 2):
        module = Spy(dtype=torch.float32)
        alternation = ArchitectureAlternation(lr=0.1, order=order)
        run = trainer(tmp_path, alternation, precision="bf16-mixed")
        run.fit(module, loaders(dtype=torch.float32))
        assert set(dtypes) == {torch.bfloat16}
        assert module.net.alpha.dtype == torch.float32
        assert module.net.alpha.abs().max() > 0.01


def test_fp16_scales_the_loss_as_for_the_weights(tmp_path: Path) -> None:
    class Faint(Searcher):
        """Its gradients vanish in fp16 unless the loss is scaled."""

        def loss(self, part: Part) -> Tensor:
            return super().loss(part) * 1e-7

    def sgd(logits: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(logits, lr=1e7)

    plugin = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    alphas = []
    for plugins in ([plugin], []):
        module = Faint(dtype=torch.float32)
        alternation = ArchitectureAlternation(optimizer=sgd)
        run = trainer(tmp_path, alternation, plugins=plugins, max_epochs=1, limit_train_batches=1)
        run.fit(module, loaders(dtype=torch.float32))
        alphas.append(module.net.alpha.data)
    torch.testing.assert_close(alphas[0], alphas[1], rtol=0.05, atol=0)


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*:UserWarning")
def test_a_gradient_that_is_not_finite_is_left_out_with_one_warning(tmp_path: Path) -> None:
    class Broken(Searcher):
        def architecture_step(self, batch: Part) -> Tensor:
            return super().architecture_step(batch) * float("nan")

    module = Broken()
    with pytest.warns(UserWarning, match="not finite after 0 architecture steps") as warned:
        trainer(tmp_path).fit(module, loaders())
    assert sum("not finite" in str(warning.message) for warning in warned) == 1
    assert torch.equal(module.net.alpha, torch.zeros(2, dtype=torch.float64))


def test_state_of_the_callback_round_trips() -> None:
    alternation = ArchitectureAlternation()
    state = {"architecture": {"steps": 3}}
    alternation.load_state_dict(state)
    assert alternation.state_dict() == state


@pytest.mark.slow
def test_epochs_with_persistent_workers_equal_those_without(tmp_path: Path) -> None:
    found = []
    workers: dict[str, Any] = {"num_workers": 1, "persistent_workers": True}
    for options in ({}, workers):
        module = Searcher()
        alternation = ArchitectureAlternation(lr=0.1, schedule="epoch")
        trainer(tmp_path, alternation).fit(module, loaders(**options))
        found.append(module.net.alpha.data)
    assert torch.equal(*found)


@pytest.mark.parametrize("arguments", [{}, {"schedule": "epoch"}, {"order": 2}])
def test_architecture_steps_leave_running_statistics_alone(arguments: dict[str, Any], tmp_path: Path) -> None:
    class Alone(Callback):
        """No architecture steps at all."""

    found = []
    for callback in (ArchitectureAlternation(lr=1e-30, **arguments), Alone()):  # logits that stay what they are
        module = Searcher(batch_norm=True)
        trainer(tmp_path, callback).fit(module, loaders())
        found.append({name: value for name, value in values(module).items() if "norm" in name})
    assert "net.norm.running_var" in found[0]
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


class Towards(Searcher):
    """The loss of a logit is its value times a constant: Adam takes a step of its learning rate."""

    def architecture_step(self, batch: Part) -> Tensor:
        return -self.net.alpha[0]


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_small_steps_add_up_in_half_precision(precision: Any, tmp_path: Path) -> None:
    module = Towards(dtype=torch.float32)
    steps = 120
    run = trainer(
        tmp_path,
        ArchitectureAlternation(lr=1e-3, weight_decay=0.0, betas=(0.0, 0.0)),
        precision=precision,
        max_epochs=steps // 3,
    )
    with torch.no_grad():
        module.net.alpha[0] = 0.5  # bfloat16 has steps of 0.002 from here on
    run.fit(module, loaders(dtype=torch.float32))
    assert module.net.alpha.dtype == module.net.first.weight.dtype
    assert module.net.alpha[0].item() == pytest.approx(0.5 + 1e-3 * steps, rel=2**-8)
