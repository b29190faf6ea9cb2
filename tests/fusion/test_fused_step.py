"""The fused step computes what calling its primitives does, with all gradients, and steps aside where it would not."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_mmnas import FusionSpace, FusionSupernet
from lightning_mmnas.fusion.batch_norm import SynchronisedBatchNorm, statistics_kept
from lightning_mmnas.fusion.fused import readable
from lightning_mmnas.fusion.fused_step import Variant, fused_step
from lightning_mmnas.fusion.primitives import ConcatFC, LinearGLU, build_primitive

B, L, C = 3, 4, 8
NAMES = ("zero", "sum", "attention", "linear_glu", "concat_fc")


@pytest.fixture(autouse=True)
def _small_inputs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mmnas.fusion.fused._LARGE", 0)


def random(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


def built(names: Sequence[str] = NAMES, dropout: float = 0.25, both: bool = True) -> list[Variant]:
    """Primitives with parameters drawn at random, the attention in both orders."""
    torch.manual_seed(0)
    variants: list[Variant] = [(build_primitive(name, C, L, dropout).double(), False) for name in names]
    if both:
        variants.append((build_primitive("attention", C, L, dropout).double(), True))
    for module, _ in variants:
        for parameter in module.parameters():
            nn.init.normal_(parameter)
    return variants


def called(variants: Sequence[Variant], weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The slow, obvious mixture."""
    outs = [module(y, x) if swapped else module(x, y) for module, swapped in variants]
    return torch.stack([weight * out for weight, out in zip(weights, outs, strict=True)]).sum(0)


def everything(
    step: Callable[..., Tensor | None], variants: list[Variant], weights: Tensor, x: Tensor, y: Tensor
) -> dict[str, Any]:
    """Output, gradients and running statistics of a step of copies of the primitives."""
    variants = copy.deepcopy(variants)
    parameters = [parameter for module, _ in variants for parameter in module.parameters()]
    torch.manual_seed(1)
    out = step(variants, weights, x, y)
    assert out is not None
    turned = out.transpose(0, 2)  # so that the gradient is no contiguous memory
    loss = (turned * torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(turned)).sum()
    places = [place for place in (weights, x, *([] if x is y else [y]), *parameters) if place.requires_grad]
    return {
        "out": out.detach(),
        "gradients": torch.autograd.grad(loss, places, materialize_grads=True),
        "buffers": [buffer for module, _ in variants for buffer in module.buffers()],
    }


def same(variants: list[Variant], weights: Tensor, x: Tensor, y: Tensor) -> None:
    found, expected = (everything(step, variants, weights, x, y) for step in (fused_step, called))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("dropout", [0.0, 0.25])
@pytest.mark.parametrize("tied", [True, False])
def test_equals_calling_the_primitives(tied: bool, dropout: float) -> None:
    x = random(B, L, C, seed=2)
    y = x if tied else random(B, L, C, seed=3)
    weights = torch.tensor([0.1, 0.3, 0.5, 0.0, -0.2, 0.4], dtype=torch.float64, requires_grad=True)
    same(built(dropout=dropout), weights, x, y)


@pytest.mark.parametrize("wanted", ["weights", "x", "y", "parameters", "none but x"])
def test_each_gradient_alone(wanted: str) -> None:
    variants, weights = built(), torch.linspace(0.1, 0.6, 6, dtype=torch.float64)
    for module, _ in variants:
        module.requires_grad_(wanted == "parameters")
    x, y = (random(B, L, C, seed=seed).detach() for seed in (2, 3))
    for name, place in {"weights": weights, "x": x, "y": y}.items():
        place.requires_grad_(wanted.endswith(name))
    same(variants, weights, x, y)


@pytest.mark.parametrize("name", NAMES)
def test_one_primitive_alone(name: str) -> None:
    weights = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    same(built([name], both=False), weights, random(B, L, C, seed=2), random(B, L, C, seed=3))


def test_inputs_that_are_no_contiguous_memory() -> None:
    x, y = random(L, B, C, seed=2).transpose(0, 1), random(B, C, L, seed=3).transpose(1, 2)
    same(built(), torch.linspace(0.1, 0.6, 6, dtype=torch.float64, requires_grad=True), x, y)


@pytest.mark.parametrize("tied", [True, False])
def test_derivatives_by_finite_differences(tied: bool) -> None:
    variants = built(both=not tied)
    for module, _ in variants:  # of a bias in front of a batch norm the derivative is nothing but rounding
        if isinstance(module, (LinearGLU, ConcatFC)):
            module.linear.bias.requires_grad_(False)
    weights = torch.linspace(0.2, 0.7, len(variants), dtype=torch.float64, requires_grad=True)
    x, y = random(2, L, C, seed=2), random(2, L, C, seed=3)
    parameters = [p for module, _ in variants for p in module.parameters() if p.requires_grad]
    directions = [random(*p.shape, seed=9 + k).detach() for k, p in enumerate(parameters)]

    def out(weights: Tensor, x: Tensor, y: Tensor, move: Tensor) -> Tensor:
        """The step with its parameters moved along a line: one number stands for all of them."""
        moved = {id(p): p + move * d for p, d in zip(parameters, directions, strict=True)}
        torch.manual_seed(1)
        with _Replaced(variants, moved):
            found = fused_step(variants, weights, x, x if tied else y + x.square())  # x comes before y, too
        assert found is not None
        assert "FusedStep" in type(found.grad_fn).__name__
        return found

    move = torch.zeros((), dtype=torch.float64, requires_grad=True)
    places = (weights, x, y.requires_grad_(not tied), move)
    assert torch.autograd.gradcheck(out, places, fast_mode=True)
    assert torch.autograd.gradgradcheck(out, places, fast_mode=True)
    wanted = [place for place in places if place.requires_grad]
    once, again = (
        torch.autograd.grad(out(*places).square().sum(), wanted, create_graph=create_graph)
        for create_graph in (False, True)
    )
    torch.testing.assert_close(once, again, rtol=1e-9, atol=1e-11)


class _Replaced:
    """Puts other tensors in the place of parameters, as ``functional_call`` does."""

    def __init__(self, variants: Sequence[Variant], moved: dict[int, Tensor]) -> None:
        self.modules = [part for module, _ in variants for part in module.modules()]
        self.moved = moved

    def __enter__(self) -> None:
        self.before = [dict(module._parameters) for module in self.modules]
        for module in self.modules:
            for name, parameter in module._parameters.items():
                module._parameters[name] = self.moved.get(id(parameter), parameter)  # type: ignore[assignment]

    def __exit__(self, *_: object) -> None:
        for module, before in zip(self.modules, self.before, strict=True):
            module._parameters.update(before)


def test_statistics_are_kept_where_a_pass_does_not_count() -> None:
    variants = built()
    modules = nn.ModuleList(module for module, _ in variants)
    before = copy.deepcopy(modules.state_dict())
    with statistics_kept(modules):
        fused_step(variants, torch.ones(6, dtype=torch.float64), *(random(B, L, C, seed=s) for s in (2, 3)))
    torch.testing.assert_close(modules.state_dict(), before, rtol=0, atol=0)


class _Own(LinearGLU):
    """A primitive of a user's own."""


def hooked(glu: LinearGLU) -> None:
    glu.norm.register_forward_hook(lambda *_: None)


def evaluated(glu: LinearGLU) -> None:
    glu.eval()


def synchronised(glu: LinearGLU) -> None:
    glu.norm = SynchronisedBatchNorm(2 * C)  # type: ignore[assignment]


def without_affine(glu: LinearGLU) -> None:
    glu.norm = nn.BatchNorm1d(2 * C, affine=False)


def averaging_all_batches(glu: LinearGLU) -> None:
    glu.norm.momentum = None


def dropping_all(glu: LinearGLU) -> None:
    glu.dropout.p = 1.0


def parametrized(glu: LinearGLU) -> None:
    nn.utils.parametrizations.weight_norm(glu.linear, "weight_x")


def replaced_forward(glu: LinearGLU) -> None:
    glu.forward = lambda x, y: x  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "change",
    [
        hooked,
        evaluated,
        averaging_all_batches,
        dropping_all,
        synchronised,
        without_affine,
        parametrized,
        replaced_forward,
        "own",
        "autocast",
        "one",
    ],
)
def test_steps_aside(change: Any) -> None:
    glu = _Own(C, L) if change == "own" else LinearGLU(C, L)
    assert fused_step([(LinearGLU(C, L), False)], torch.ones(1), torch.randn(B, L, C), torch.randn(B, L, C)) is not None
    if callable(change):
        change(glu)
    x = torch.randn(1, 1, C) if change == "one" else torch.randn(B, L, C)
    with torch.autocast("cpu", torch.bfloat16, enabled=change == "autocast"):
        assert fused_step([(glu, False)], torch.ones(1), x, x) is None


def test_small_inputs_are_left_to_the_primitives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mmnas.fusion.fused._LARGE", 2**16)
    step = [(LinearGLU(64, 16), False)], torch.ones(1)
    for b, fused in ((63, False), (64, True)):
        x = torch.randn(b, 16, 64)
        assert (fused_step(*step, x, x) is not None) is fused


def test_transforms_of_functions_still_work() -> None:
    glu, x = LinearGLU(C, L), torch.randn(B, L, C)

    def loss(x: Tensor) -> Tensor:
        assert fused_step([(glu, False)], torch.ones(1), x, x) is None
        out: Tensor = glu(x, x)
        return out.sum()

    with statistics_kept(glu):
        assert torch.func.grad(loss)(x).shape == x.shape


@pytest.mark.parametrize("pairing", ["tied", "independent"])
def test_a_supernet_is_the_same_in_its_readable_form(pairing: Any) -> None:
    space = FusionSpace(inputs=("a/0", "a/1", "b/0"), cells=3, steps=3, step_outputs=2, channels=C, length=L)
    torch.manual_seed(0)
    supernet = FusionSupernet(space, {"a/0": (5, 6), "a/1": (7, 4), "b/0": (6,)}, pairing, dropout=0.2).double()
    for logit in supernet.architecture_parameters():
        nn.init.normal_(logit).requires_grad_()
    features = {"a/0": random(B, 5, 6, seed=1), "a/1": random(B, 7, 4, seed=2), "b/0": random(B, 6, seed=3)}
    found = []
    for fused in (True, False):
        net = copy.deepcopy(supernet)
        torch.manual_seed(1)
        out = net(features) if fused else _readably(net, features)
        F.cross_entropy(out, torch.arange(B)).backward()  # type: ignore[no-untyped-call]
        found.append([out.detach(), *(p.grad for p in net.parameters()), *net.buffers()])
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-10)


def _readably(supernet: FusionSupernet, features: dict[str, Tensor]) -> Tensor:
    with readable():
        out: Tensor = supernet(features)
    return out
