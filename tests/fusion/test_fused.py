"""The fused functions of fusion networks compute what their readable forms do, and so do their gradients."""

import pytest
import torch
from torch import Tensor

from lightning_mmnas.fusion.fused import is_fused, mean_and_max, readable


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
