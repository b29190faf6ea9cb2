"""A step in few large operations equals the same step primitive by primitive."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_mmnas import FusionSpace, FusionSupernet
from lightning_mmnas.fusion.batch_norm import statistics_kept
from lightning_mmnas.fusion.dropout import keep_mask
from lightning_mmnas.fusion.pairing import Pairing
from lightning_mmnas.fusion.primitives import Attention, ConcatFC, LinearGLU, Sum, Zero
from lightning_mmnas.fusion.stacked_step import can_stack, stacked_mixture

NAMES = ("a/0", "a/1", "b/0")
ALL: dict[str, Any] = {"primitives": ("zero", "sum", "attention", "linear_glu", "concat_fc")}


def supernets(pairing: Pairing, partial: int = 1, **changes: Any) -> tuple[FusionSupernet, FusionSupernet]:
    """Twice the same weights and logits: stacked, and not."""
    space = FusionSpace(inputs=NAMES, steps=2, channels=8, length=4, **changes)
    found = []
    for stacked in (True, False):
        torch.manual_seed(0)
        supernet = FusionSupernet(space, pairing=pairing, partial_channels=partial, stacked=stacked).double()
        for parameter in supernet.parameters():
            parameter.data.add_(torch.randn_like(parameter))
        found.append(supernet)
    return found[0], found[1]


def results(supernet: FusionSupernet) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """Output, gradients of all weights and logits, and buffers after two passes in training mode."""
    torch.manual_seed(1)
    for _ in range(2):
        features = {name: torch.randn(5, 4, 8, dtype=torch.float64) for name in NAMES}
        parameters = {name: parameter.requires_grad_() for name, parameter in supernet.named_parameters()}
        out = supernet(features)
        loss = (out * torch.randn_like(out)).sum()
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    given = {name: g for name, g in zip(parameters, gradients, strict=True) if g is not None}
    return out, given, {name: buffer.double() for name, buffer in supernet.named_buffers()}


@pytest.mark.parametrize("pairing", ["tied", "independent"])
@pytest.mark.parametrize(("partial", "changes"), [(1, {}), (2, {}), (1, ALL)])
def test_outputs_gradients_and_statistics_are_equal(pairing: Pairing, partial: int, changes: dict[str, Any]) -> None:
    stacked, plain = supernets(pairing, partial, **changes)
    assert can_stack(list(stacked.cells[0].steps[0]))  # type: ignore[index]
    for ours, expected in zip(results(stacked), results(plain), strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)


def test_without_keeping_statistics_as_in_an_architecture_step() -> None:
    stacked, plain = supernets("independent")
    before = {name: buffer.clone() for name, buffer in stacked.named_buffers()}
    with statistics_kept(stacked), statistics_kept(plain):
        assert can_stack(list(stacked.cells[0].steps[0]))  # type: ignore[index]
        found = [results(supernet) for supernet in (stacked, plain)]
    for ours, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-10)
    after = dict(stacked.named_buffers())
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_eval_mode_is_equal_and_not_stacked() -> None:
    stacked, plain = supernets("independent")
    features = {name: torch.randn(5, 4, 8, dtype=torch.float64) for name in NAMES}
    assert torch.equal(stacked.eval()(features), plain.eval()(features))


class Masked(nn.Module):
    """Stands for a dropout whose mask is known."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask


def test_with_dropout_every_primitive_has_a_mask_of_its_own() -> None:
    torch.manual_seed(0)
    variants = [Sum(8, 4), Attention(8, 4, 0.5), Attention(8, 4, 0.5), LinearGLU(8, 4, 0.5), ConcatFC(8, 4, 0.5)]
    swapped = [False, False, True, False, False]
    x, y, weights = torch.randn(6, 4, 8), torch.randn(6, 4, 8), torch.rand(5)
    torch.manual_seed(7)
    out = stacked_mixture(variants, swapped, x, y, weights)
    torch.manual_seed(7)
    glu, fc, first, second = keep_mask((4, 6, 4, 8), 0.5, x)
    for variant, mask in zip(variants[1:], (first, second, glu, fc), strict=True):
        variant.dropout = Masked(mask)
    expected = [w * (v(y, x) if swap else v(x, y)) for w, v, swap in zip(weights, variants, swapped, strict=True)]
    torch.testing.assert_close(out, torch.stack(expected).sum(0), rtol=1e-4, atol=1e-5)


def test_second_derivatives_are_those_of_the_plain_step() -> None:
    """What the second order of the alternation needs."""
    found = []
    for supernet in supernets("independent"):
        features = {
            name: torch.linspace(-1, 1, 96, dtype=torch.float64).view(3, 4, 8).sin() * k
            for k, name in enumerate(NAMES, 1)
        }
        logits = supernet.architecture_parameters()
        for logit in logits:
            logit.requires_grad_()
        weight = supernet.get_parameter("cells.0.steps.0.3.linear.weight_x")
        out = supernet(features)
        (slope,) = torch.autograd.grad(
            (out * torch.arange(len(out.flatten())).view_as(out).cos()).sum(), weight, create_graph=True
        )
        found.append(torch.autograd.grad(slope.square().sum(), logits, allow_unused=True))
    torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-9)


def test_autocast_is_close_to_full_precision() -> None:
    stacked, _ = supernets("independent")
    stacked.float()
    features = {name: torch.randn(16, 4, 8) for name in NAMES}
    full = stacked(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = stacked(features)
    assert (half - full).abs().mean() < 0.1 * full.abs().mean()


@pytest.mark.parametrize(
    "variants",
    [
        [Sum(8, 4), ConcatFC(8, 4)],
        [LinearGLU(8, 4), LinearGLU(8, 4), ConcatFC(8, 4)],
        [LinearGLU(8, 4, 0.1), ConcatFC(8, 4, 0.2)],
        [LinearGLU(8, 4), ConcatFC(8, 4).eval()],
        [LinearGLU(8, 4), ConcatFC(8, 4), nn.Bilinear(8, 8, 8)],
    ],
    ids=["no GLU", "two GLUs", "other dropout", "eval", "a primitive of the user's"],
)
def test_other_steps_are_computed_one_by_one(variants: list[nn.Module]) -> None:
    assert not can_stack(variants)
    assert can_stack([Zero(8, 4), LinearGLU(8, 4), ConcatFC(8, 4)])


def test_a_converted_batch_norm_is_not_stacked() -> None:
    step = nn.ModuleList([LinearGLU(8, 4), ConcatFC(8, 4)])
    assert can_stack(list(step))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(step)  # type: ignore[no-untyped-call]
    assert not can_stack(list(converted))
