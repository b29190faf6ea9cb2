"""The fused functions of fusion networks compute what their readable forms do, and so do their gradients."""

from typing import cast

import pytest
import torch
from torch import Tensor

from lightning_mmnas import FusionSpace, FusionSupernet
from lightning_mmnas.fusion.fused import is_fused, mean_and_max, readable, weighted_sums
from lightning_mmnas.fusion.supernet import SupernetCell


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("ties", [False, True])
def test_mean_and_max(ties: bool) -> None:
    x = drawn(2, 3, 4, 5)
    if ties:  # equal maxima share the gradient
        x = (x > 0).double().detach().requires_grad_()
    weights = torch.linspace(-1, 2, 60, dtype=torch.float64).view(2, 3, 10)
    found = [mean_and_max(x), *torch.autograd.grad((mean_and_max(x) * weights).sum(), x)]
    with readable():
        expected = [mean_and_max(x), *torch.autograd.grad((mean_and_max(x) * weights).sum(), x)]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    if not ties:
        assert torch.autograd.gradcheck(mean_and_max, (x,))
        assert torch.autograd.gradgradcheck(mean_and_max, (x,))


def test_the_switch_is_put_back() -> None:
    assert is_fused()
    with readable():
        assert not is_fused()
    assert is_fused()


@pytest.mark.parametrize("wanted", [(True, True), (True, False), (False, True)])
def test_weighted_sums(wanted: tuple[bool, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mmnas.fusion.fused._LARGE", 0)
    weights, a, b = drawn(2, 2).requires_grad_(wanted[0]), drawn(2, 3).requires_grad_(wanted[1]), drawn(1, 2, 3)[0]
    b = b.detach().neg().requires_grad_(wanted[1])
    places = [place for place in (weights, a, b) if place.requires_grad]
    direction = torch.linspace(-1, 2, 12, dtype=torch.float64).view(2, 2, 3)

    def found() -> list[Tensor]:
        out = weighted_sums(weights, [a, b])
        return [out, *torch.autograd.grad((out * direction).sum(), places)]

    fused = found()
    assert "WeightedSums" in type(weighted_sums(weights, [a, b]).grad_fn).__name__
    with readable():
        torch.testing.assert_close(fused, found(), rtol=0, atol=1e-14)
    assert torch.autograd.gradcheck(lambda w, *t: weighted_sums(w, t), (weights, a, b))
    assert torch.autograd.gradgradcheck(lambda w, *t: weighted_sums(w, t), (weights, a, b))


@pytest.mark.parametrize("large", [0, 2**16])
def test_weights_of_another_type_are_brought_to_the_tensors(large: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_mmnas.fusion.fused._LARGE", large)
    out = weighted_sums(torch.ones(1, 2), [torch.ones(3, dtype=torch.bfloat16)] * 2)
    assert out.dtype == torch.bfloat16
    assert out.tolist() == [[2.0, 2.0, 2.0]]


def test_mixed_precision_does_not_round_the_weights_of_a_mixture() -> None:
    space = FusionSpace(inputs=("a/0", "b/0"), cells=1, primitives=("zero", "sum"), channels=4, length=2)
    cell = cast(SupernetCell, FusionSupernet(space).cells[0])
    x, y = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    weights = torch.tensor([[2 / 3, 1 / 3]])
    with torch.autocast("cpu", torch.bfloat16):
        out = cell._step(0, x, y, weights[0], range(2))
    torch.testing.assert_close(out, (x + y) / 3, rtol=1e-6, atol=1e-6)
