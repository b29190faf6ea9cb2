"""Names of mixture weights."""

import pytest
import torch

from lightning_mmnas.fusion.named_weights import named_weights
from lightning_mmnas.fusion.pairing import Pairing, build_pairing
from lightning_mmnas.space.genotype import FusionSpace

SPACE = FusionSpace(inputs=("a/0", "a/1", "b/0"), cells=2, steps=2, primitives=("sum", "attention"))


@pytest.mark.parametrize("pairing", ["independent", "tied"])
def test_weights_of_a_genotype_are_one_hot_under_its_names(pairing: Pairing) -> None:
    logits = build_pairing(pairing, SPACE, None)
    uniform = named_weights(logits)
    assert len(uniform) == sum(p.numel() for p in (*logits.alpha, *logits.beta, *logits.gamma)) - (
        sum(p.shape[0] for p in (*logits.alpha, *logits.beta)) if pairing == "tied" else 0
    )
    genotype = SPACE.sample(torch.Generator().manual_seed(3))
    logits.set(genotype)
    found = named_weights(logits)
    assert found.keys() == uniform.keys()
    chosen = {name for name, value in found.items() if value > 0.99}
    assert all(value < 0.01 for name, value in found.items() if name not in chosen)
    for i, cell in enumerate(genotype.cells):
        sides = (".x", ".y") if pairing == "independent" else ("", "")
        for side, name in zip(sides, cell.inputs, strict=True):
            assert f"alpha/cell{i}{side}/{name}" in chosen
        for t, step in enumerate(cell.steps):
            assert any(name.startswith(f"gamma/cell{i}.step{t}/{step.primitive}") for name in chosen)
            states = [
                f"beta/cell{i}.step{t}{side}/{name}" for side, name in zip(sides, sorted(step.inputs), strict=True)
            ]
            if pairing == "tied":
                assert set(states) <= chosen


def test_rows_of_independent_logits_sum_to_one() -> None:
    found = named_weights(build_pairing("independent", SPACE, None))
    for place in ("alpha/cell0.x", "alpha/cell1.y", "beta/cell1.step1.x", "gamma/cell0.step1"):
        assert sum(v for name, v in found.items() if name.startswith(f"{place}/")) == pytest.approx(1.0)
    assert "gamma/cell0.step0/attention-swapped" in found
    assert "alpha/cell1.y/cell0" in found
    assert "alpha/cell1.x/cell0" not in found  # x is the earlier of the two


def test_a_single_candidate() -> None:
    found = named_weights(build_pairing("independent", FusionSpace(inputs=("a/0",), cells=1), None))
    assert found["alpha/cell0.x/a/0"] == found["alpha/cell0.y/a/0"] == 1.0
