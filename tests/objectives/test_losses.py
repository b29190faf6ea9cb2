"""Objectives against the equations of their papers, written as double loops."""

import importlib
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_mmnas import FusionNetwork, FusionSpace
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.objectives.fusion_objective import FusionObjective, projection_head
from lightning_mmnas.objectives.losses import CrossModalInfoNCE, classification_loss, loss_of, nt_xent

N, D = 4, 5


def projections(seed: int = 0, n: int = N) -> tuple[Tensor, Tensor]:
    first, second = torch.randn(2, n, D, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return first, second


def simclr(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    """SimCLR, eq. 1: the mean over all 2n ordered positive pairs."""
    z = torch.cat([z0, z1])
    z = z / (z**2).sum(1, keepdim=True).sqrt()
    n = len(z0)
    losses = []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        total = torch.zeros((), dtype=z.dtype)
        for k in range(2 * n):
            if k != i:
                total = total + torch.exp(z[i] @ z[k] / temperature)
        losses.append(-torch.log(torch.exp(z[i] @ z[j] / temperature) / total))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("temperature", [0.1, 0.2, 1.0])
def test_nt_xent_is_equation_1_of_simclr(temperature: float) -> None:
    z0, z1 = (z.requires_grad_() for z in projections())
    ours, wanted = nt_xent(temperature)(z0, z1), simclr(z0, z1, temperature)
    torch.testing.assert_close(ours, wanted, rtol=1e-12, atol=0)
    for mine, theirs in zip(torch.autograd.grad(ours, (z0, z1)), torch.autograd.grad(wanted, (z0, z1)), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-12)


def test_default_temperature() -> None:
    z0, z1 = projections()
    torch.testing.assert_close(nt_xent()(z0, z1), simclr(z0, z1, 0.2))


def test_nt_xent_of_perfect_projections() -> None:
    z = torch.eye(4)  # positives have similarity 1, the 2n - 2 others 0
    wanted = math.log(1 + 6 * math.exp(-1 / 0.5))
    assert nt_xent(0.5)(z, 3 * z).item() == pytest.approx(wanted, rel=1e-6)


def test_cross_modal_is_the_mean_over_pairs_of_modalities() -> None:
    (a, b), (c, _) = projections(0), projections(1)
    given = {"image": a, "text": b, "audio": c}
    wanted = (simclr(a, b, 0.3) + simclr(a, c, 0.3) + simclr(b, c, 0.3)) / 3
    torch.testing.assert_close(CrossModalInfoNCE(0.3)(given), wanted)
    torch.testing.assert_close(CrossModalInfoNCE()({"image": a, "text": b}), simclr(a, b, 0.2))


def test_cross_modal_of_one_modality_is_zero() -> None:
    loss = CrossModalInfoNCE()({"image": projections()[0].requires_grad_()})
    assert loss.shape == ()
    assert loss.item() == 0.0


def vicreg(z0: Tensor, z1: Tensor) -> Tensor:
    """VICReg, eq. 1 to 6: weights 25, 25, 1; eps 1e-4; covariance divided by n - 1 and by d."""
    invariance = ((z0 - z1) ** 2).sum() / z0.numel()
    variance, covariance = torch.zeros((), dtype=z0.dtype), torch.zeros((), dtype=z0.dtype)
    for z in (z0, z1):
        centred = z - z.mean(0)
        for i in range(D):
            deviation = ((centred[:, i] ** 2).sum() / (len(z) - 1) + 1e-4).sqrt()
            variance = variance + (1 - deviation).clamp(min=0) / D / 2
            for j in range(D):
                if i != j:
                    covariance = covariance + (centred[:, i] @ centred[:, j] / (len(z) - 1)) ** 2 / D
    return 25 * invariance + 25 * variance + covariance


def barlow_twins(z0: Tensor, z1: Tensor) -> Tensor:
    """Barlow Twins, eq. 1 and 2, with batch-normalised projections and lambda 5e-3."""
    normal = [(z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (z0, z1)]
    loss = torch.zeros((), dtype=z0.dtype)
    for i in range(D):
        for j in range(D):
            c = normal[0][:, i] @ normal[1][:, j] / len(z0)
            loss = loss + ((1 - c) ** 2 if i == j else 5e-3 * c**2)
    return loss


def decoupled(z0: Tensor, z1: Tensor) -> Tensor:
    """DCL, eq. 6, temperature 0.1: the positive is not among the negatives."""
    z0, z1 = (z / (z**2).sum(1, keepdim=True).sqrt() for z in (z0, z1))
    losses = []
    for own, other in ((z0, z1), (z1, z0)):
        for i in range(len(own)):
            total = torch.zeros((), dtype=z0.dtype)
            for k in range(len(own)):
                if k != i:
                    total = total + torch.exp(own[i] @ own[k] / 0.1) + torch.exp(own[i] @ other[k] / 0.1)
            losses.append(-own[i] @ other[i] / 0.1 + torch.log(total))
    return torch.stack(losses).mean()


@pytest.mark.parametrize(
    ("path", "reference"),
    [
        ("lightly.loss.VICRegLoss", vicreg),
        ("lightly.loss.BarlowTwinsLoss", barlow_twins),
        ("lightly.loss.DCLLoss", decoupled),
    ],
)
def test_losses_by_class_path_are_objectives(path: str, reference: Callable[[Tensor, Tensor], Tensor]) -> None:
    package, _, name = path.rpartition(".")
    objective = getattr(importlib.import_module(package), name)()
    first, second = projections(n=6)
    torch.testing.assert_close(objective(first, second), reference(first, second), rtol=1e-6, atol=1e-8)

    torch.manual_seed(0)
    network = nn.Linear(D, D)
    fusion = FusionObjective(_Only("a", network), nn.Identity(), objective)
    loss = fusion({"a": first.float()}, {"a": second.float()})
    wanted = reference(network(first.float()).double(), network(second.float()).double())
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert network.weight.grad is not None
    assert network.weight.grad.abs().sum() > 0


class _Only(nn.Module):
    """Reads one feature."""

    def __init__(self, name: str, network: nn.Module) -> None:
        super().__init__()
        self.name, self.network = name, network

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        out: Tensor = self.network(features[self.name])
        return out


def test_classification_loss_of_classes() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.5, 0.5]])
    first = math.log(math.exp(2) + 1 + math.exp(-1)) - 0.0
    loss = classification_loss(logits, torch.tensor([1, 2]))
    assert loss.item() == pytest.approx((first + math.log(3)) / 2, rel=1e-6)
    for dtype in (torch.int32, torch.int16, torch.uint8):  # as NumPy's arrays often are
        assert torch.equal(classification_loss(logits, torch.tensor([1, 2], dtype=dtype)), loss)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float32])
def test_classification_loss_of_labels(dtype: torch.dtype) -> None:
    logits = torch.tensor([[2.0, -1.0], [0.0, 3.0]])
    label = torch.tensor([[1, 0], [1, 0]], dtype=dtype)
    terms = [math.log(1 + math.exp(-2)), math.log(1 + math.exp(-1)), math.log(2), math.log(1 + math.exp(3))]
    assert classification_loss(logits, label).item() == pytest.approx(sum(terms) / 4, rel=1e-6)


def test_only_the_pass_of_plain_views_moves_running_statistics() -> None:
    space, shapes = FusionSpace(inputs=("image", "text"), channels=4, length=2), {"image": (3, 5), "text": (6,)}
    generator = torch.Generator().manual_seed(0)
    views = [{name: torch.randn(8, *shape, generator=generator) for name, shape in shapes.items()} for _ in range(2)]
    found = []
    for weight in (0.0, 0.5):
        torch.manual_seed(0)
        network = FusionNetwork(space.sample(torch.Generator().manual_seed(1)), shapes)
        head = projection_head(network.out_features, 8, 4)
        FusionObjective(network, head, nt_xent(), cross_modal_weight=weight)(*views)
        found.append({**dict(network.named_buffers()), **dict(head.named_buffers())})
    assert any(name.endswith("running_var") for name in found[0])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=0)


class _Wrong(nn.Module):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, z0: Tensor, z1: Tensor) -> Any:
        return self.value


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (torch.ones(3), r"a tensor of shape \(3,\)"),
        ((torch.ones(()), 1), "a tuple"),
        (0.5, "a float"),
        (None, "a None"),
    ],
)
def test_an_objective_of_one_s_own_returns_one_number(value: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=f"objective _Wrong returned {found}.* one number in a tensor"):
        loss_of(_Wrong(value), torch.ones(3, 2), torch.ones(3, 2))
    assert loss_of(_Wrong(torch.ones(1)), torch.ones(3, 2), torch.ones(3, 2)) == 1
