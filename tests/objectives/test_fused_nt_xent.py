"""The fused NT-Xent computes what its readable form and lightly's do, at once or block by block, gradients too."""

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from lightning_mmnas.fusion.fused import readable
from lightning_mmnas.objectives import fused_nt_xent as module
from lightning_mmnas.objectives.fused_nt_xent import fused_nt_xent
from lightning_mmnas.objectives.losses import nt_xent


@pytest.fixture(params=["at once", "blocks of 3", "single rows"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How many similarities there are at once; blocks of three rows do not divide the batches."""
    limit = {"at once": 10**6, "blocks of 3": 3 * 9, "single rows": 1}[request.param]
    monkeypatch.setattr(module, "_ON_CPU", limit)


def drawn(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def value_and_gradient(z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    loss = fused_nt_xent(z, temperature)
    return loss, torch.autograd.grad((loss * torch.arange(1, 1 + len(loss))).sum(), z)[0]


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("temperature", [0.021, 0.2, 1.5])
@pytest.mark.parametrize("b", [1, 2, 7])
def test_values_and_gradients(b: int, temperature: float) -> None:
    z = drawn(3, 2 * b, 5)
    found = value_and_gradient(z, temperature)
    with readable():
        expected = value_and_gradient(z, temperature)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.usefixtures("blocks")
def test_first_and_second_derivatives_by_differences() -> None:
    z = drawn(2, 6, 4)
    assert torch.autograd.gradcheck(lambda x: fused_nt_xent(x, 0.5), (z,))
    assert torch.autograd.gradgradcheck(lambda x: fused_nt_xent(x, 0.5), (z,))


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("temperature", [0.019, 0.021, 0.3])  # without and with exponentials that are large
def test_it_is_lightlys(temperature: float) -> None:
    z = drawn(3, 14, 5, dtype=torch.float32)
    loss = NTXentLoss(temperature=temperature)
    expected = torch.stack([loss(one[:7], one[7:]) for one in z])
    torch.testing.assert_close(fused_nt_xent(z, temperature), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("temperature", [1e-3, 0.019, 0.021, 100.0])
def test_the_largest_and_smallest_sums_are_finite(temperature: float) -> None:
    alike = torch.ones(1, 4096, 4)
    apart = torch.stack([torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])])[None]
    for z, expected in ((alike, 8.3175), (apart, 0.0)):  # log 4095, and the only other view is the positive
        z = z.requires_grad_()
        loss = fused_nt_xent(z, temperature)
        assert loss.item() == pytest.approx(expected, abs=1e-2)
        assert torch.autograd.grad(loss.sum(), z)[0].isfinite().all()


def test_autocast_leaves_it_in_float32() -> None:
    z = drawn(2, 8, 5, dtype=torch.float32)
    expected = value_and_gradient(z, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_gradient(z, 0.2)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert fused_nt_xent(z.bfloat16(), 0.2).dtype == torch.float32


def test_large_batches_of_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mmnas.objectives.losses._LARGE", 6)
    z = drawn(1, 12, 5)
    first, second = z[0].chunk(2)
    loss = nt_xent(0.2)(first, second)
    assert "_NTXent" in str(loss.grad_fn.next_functions)
    torch.testing.assert_close(loss, NTXentLoss(temperature=0.2)(first, second))
    with readable():
        assert "_NTXent" not in str(nt_xent(0.2)(first, second).grad_fn.next_functions)
    small = nt_xent(0.2)(first[:5], second[:5])
    assert "_NTXent" not in str(small.grad_fn.next_functions)
