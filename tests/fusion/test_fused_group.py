"""The fused functions of groups compute what their readable forms do, and so do their gradients."""

from collections.abc import Callable

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from lightning_mmnas.fusion.fused_group import grouped_nt_xent, mean_and_max, readable


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def value_and_gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    out = function(x)
    weights = torch.linspace(-1, 2, out.numel(), dtype=out.dtype).view_as(out)
    return out, torch.autograd.grad((out * weights).sum(), x)[0]


@pytest.mark.parametrize("temperature", [0.021, 0.2, 1.5])
@pytest.mark.parametrize("b", [1, 2, 7])
def test_nt_xent(b: int, temperature: float) -> None:
    z = drawn(3, 2 * b, 5)
    fused = value_and_gradient(lambda x: grouped_nt_xent(x, temperature), z)
    with readable():
        expected = value_and_gradient(lambda x: grouped_nt_xent(x, temperature), z)
    torch.testing.assert_close(fused, expected, rtol=1e-9, atol=1e-12)
    assert torch.autograd.gradcheck(lambda x: grouped_nt_xent(x, temperature), (z,), atol=1e-4)


@pytest.mark.parametrize("temperature", [0.019, 0.021, 0.3])  # without and with the fused form
def test_nt_xent_is_lightlys(temperature: float) -> None:
    z = drawn(3, 14, 5, dtype=torch.float32)
    loss = NTXentLoss(temperature=temperature)
    expected = torch.stack([loss(one[:7], one[7:]) for one in z])
    found = grouped_nt_xent(z, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert found.isfinite().all()


def test_equal_projections_are_finite_at_every_temperature() -> None:
    """The largest sums there are: all similarities are one."""
    z = torch.ones(1, 4096, 4, requires_grad=True)
    for temperature in (1e-3, 0.019, 0.021):
        loss = grouped_nt_xent(z, temperature)
        assert loss.item() == pytest.approx(8.3175, abs=1e-3)  # log 4095
        assert torch.autograd.grad(loss.sum(), z)[0].isfinite().all()


@pytest.mark.parametrize("ties", [False, True])
def test_mean_and_max(ties: bool) -> None:
    x = drawn(2, 3, 4, 5)
    if ties:  # equal maxima share the gradient
        x = (x > 0).double().detach().requires_grad_()
    fused = value_and_gradient(mean_and_max, x)
    with readable():
        expected = value_and_gradient(mean_and_max, x)
    torch.testing.assert_close(fused, expected, rtol=0, atol=1e-14)
    assert ties or torch.autograd.gradcheck(mean_and_max, (x,))


@pytest.mark.parametrize("function", [mean_and_max, lambda x: grouped_nt_xent(x.flatten(2), 0.2)])
def test_second_derivatives_are_refused_and_readable_forms_have_them(function: Callable[[Tensor], Tensor]) -> None:
    x = drawn(2, 4, 3, 5)
    (first,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        torch.autograd.backward(first.sum())
    with readable():
        (first,) = torch.autograd.grad(function(x).square().sum(), x, create_graph=True)
        assert torch.autograd.grad(first.sum(), x)[0].isfinite().all()


def test_autocast_leaves_the_loss_in_float32() -> None:
    z = drawn(2, 8, 5, dtype=torch.float32)
    expected = value_and_gradient(lambda x: grouped_nt_xent(x, 0.2), z)
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_gradient(lambda x: grouped_nt_xent(x, 0.2), z)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
