"""Regularisation terms against sums written out, and what their gradients do to the logits."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_mmnas import FusionSpace, FusionSupernet
from lightning_mmnas.fusion.pairing import Pairing, PairingLogits
from lightning_mmnas.fusion.relaxation import Dirichlet, Softmax
from lightning_mmnas.objectives.regularisation import (
    BetaDecay,
    ConcentrationAnchor,
    EntropyRegularisation,
    Regularisation,
)

MAKERS: list[Callable[..., Regularisation]] = [BetaDecay, EntropyRegularisation, ConcentrationAnchor]


def logits_of(pairing: Pairing = "independent", relaxation: Softmax | Dirichlet | None = None) -> PairingLogits:
    space = FusionSpace(inputs=("a", "b"), cells=2, steps=2, channels=4, length=2, primitives=("sum", "concat_fc"))
    logits = FusionSupernet(space, pairing=pairing, relaxation=relaxation).double().logits
    generator = torch.Generator().manual_seed(0)
    for parameter in logits.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
        parameter.requires_grad_(True)
    return logits


def rows_of(logits: PairingLogits) -> list[list[float]]:
    """Rows with a choice: x and y of the first of two cells over two inputs have none with independent pairing."""
    rows: list[list[float]] = [row for p in logits.parameters() for row in p.tolist()]
    return [row for row in rows if len(row) > 1]


def beta_decay(row: list[float]) -> float:
    return math.log(sum(math.exp(x) for x in row))


def entropy(row: list[float]) -> float:
    weights = [math.exp(x) / sum(math.exp(y) for y in row) for x in row]
    return -sum(w * math.log(w) for w in weights) / math.log(len(row))


def anchor(row: list[float]) -> float:
    return sum((x if x > 0 else math.exp(x) - 1) ** 2 for x in row)


@pytest.mark.parametrize("pairing", ["tied", "independent"])
@pytest.mark.parametrize(
    ("make", "term"), [(BetaDecay, beta_decay), (EntropyRegularisation, entropy), (ConcentrationAnchor, anchor)]
)
def test_terms_equal_their_definition(
    make: Callable[..., Regularisation], term: Callable[[list[float]], float], pairing: Pairing
) -> None:
    logits = logits_of(pairing)
    rows = rows_of(logits)
    assert len(rows) == {"tied": 4 + 1 + 10 + 4, "independent": 2 + 4 + 4}[pairing]
    wanted = sum(term(row) for row in rows) / len(rows)
    assert make(weight=3.0, growing=False)(logits, 0.1).item() == pytest.approx(3 * wanted)
    assert make(weight=3.0, growing=True)(logits, 0.1).item() == pytest.approx(0.3 * wanted)
    assert make(weight=3.0, growing=True)(logits, 0.0).item() == 0


def test_beta_decay_pulls_by_the_softmax() -> None:
    logits = logits_of()
    value = BetaDecay(2.0)(logits, 0.5)
    (gradient,) = torch.autograd.grad(value, logits.gamma[0])
    torch.testing.assert_close(gradient, logits.gamma[0].softmax(-1) / len(rows_of(logits)))


def descend(term: Regularisation, logits: PairingLogits) -> Tensor:
    """The logits of the first step's primitives after a hundred steps of gradient descent."""
    for _ in range(100):
        gradients = torch.autograd.grad(term(logits, 1.0), [*logits.parameters()], allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(logits.parameters(), gradients, strict=True):
                if gradient is not None:
                    parameter.sub_(gradient)
    row: Tensor = logits.gamma[0][0].detach()
    return row


def test_entropy_decides_and_opens() -> None:
    start = logits_of().gamma[0][0].detach()
    gap = float((start[0] - start[1]).abs())
    decided = descend(EntropyRegularisation(5.0), logits_of())
    opened = descend(EntropyRegularisation(-5.0), logits_of())
    assert (decided[0] - decided[1]).abs() > gap + 1
    assert (decided.argmax() == start.argmax()).item()
    assert (opened[0] - opened[1]).abs() < gap / 2


def test_entropy_is_that_of_the_relaxation() -> None:
    sharp, flat = (EntropyRegularisation()(logits_of(relaxation=Softmax(t)), 1.0).item() for t in (0.1, 10.0))
    assert sharp < 0.4
    assert flat > 0.98


def test_anchor_brings_concentrations_to_one() -> None:
    logits = logits_of(relaxation=Dirichlet())
    torch.testing.assert_close(
        descend(ConcentrationAnchor(2.0), logits), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-3
    )


@pytest.mark.parametrize("make", MAKERS)
def test_weights_must_be_finite(make: Callable[..., Regularisation]) -> None:
    with pytest.raises(ValueError, match="weight must be finite, not nan"):
        make(math.nan)
