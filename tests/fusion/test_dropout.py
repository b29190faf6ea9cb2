"""Our dropout drops as many values as it should, keeps the mean, and works in every floating-point type."""

import pytest
import torch

from lightning_mmnas.fusion.dropout import Dropout, keep_mask


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.999])
def test_values_are_dropped_at_the_rate_and_kept_ones_are_scaled(p: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    mask = keep_mask((3, 33_333), p, torch.empty(0, dtype=dtype))
    assert (mask.shape, mask.dtype) == ((3, 33_333), dtype)
    dropped = (mask == 0).double().mean().item()
    assert abs(dropped - p) < 5 * (p * (1 - p) / mask.numel()) ** 0.5
    keep = round((1 - p) * 2**16) / 2**16
    torch.testing.assert_close(
        torch.unique(mask), torch.tensor([0, 1 / keep], dtype=dtype), rtol=1e-2 if dtype.itemsize == 2 else 1e-6, atol=0
    )


def test_neighbouring_values_are_independent() -> None:
    torch.manual_seed(0)
    mask = (keep_mask((4, 100_000), 0.3, torch.empty(0)) != 0).double().view(-1, 4)  # the four of one random word
    correlation = torch.corrcoef(mask.t()) - torch.eye(4)
    assert correlation.abs().max() < 5 / len(mask) ** 0.5


def test_the_gradient_passes_where_values_do() -> None:
    torch.manual_seed(0)
    x = torch.randn(7, 5, requires_grad=True)
    out = Dropout(0.4)(x)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    torch.testing.assert_close(gradient * x, out)
    assert 0 < (gradient == 0).sum() < gradient.numel()


def test_nothing_and_all_can_be_dropped_and_eval_drops_nothing() -> None:
    x = torch.randn(5)
    assert Dropout(0.0)(x) is x
    assert Dropout(0.9).eval()(x) is x
    assert torch.equal(Dropout(1.0)(x), torch.zeros(5))
    with pytest.raises(ValueError, match="between 0 and 1"):
        Dropout(1.5)
