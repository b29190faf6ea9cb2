"""Ridge regression: equal to scikit-learn's, its strength chosen on whole groups."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from lightning_mmnas.errors import DataError
from lightning_mmnas.objectives.linear import folds
from lightning_mmnas.objectives.ridge import choose_ridge, fit_ridge


def samples(n: int, d: int, noise: float = 0.1, outputs: int = 1) -> tuple[Tensor, Tensor]:
    """Features of different scales, and targets that depend on the first three."""
    generator = torch.Generator().manual_seed(n + d)
    x = torch.randn(n, d, generator=generator) * torch.logspace(-2, 2, d) + 7
    y = ((x[:, :3] - 7) / torch.logspace(-2, 2, d)[:3]) @ torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, 0.0]])
    return x, (y + noise * torch.randn(n, 2, generator=generator))[:, :outputs] + 3


@pytest.mark.parametrize(("n", "d", "outputs"), [(60, 5, 1), (12, 40, 1), (30, 8, 2)])
@pytest.mark.parametrize("strength", [1e-2, 3.0, 1e4])
def test_equals_scikit_learn(n: int, d: int, outputs: int, strength: float) -> None:
    x, y = samples(n, d, outputs=outputs)
    reference = Ridge(strength).fit(scaled := StandardScaler().fit_transform(x.double()), y.double())
    expected = torch.from_numpy(reference.predict(scaled).reshape(n, outputs))
    torch.testing.assert_close(fit_ridge(x, y, strength)(x), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("ascending", [True, False])
def test_of_equally_good_strengths_the_strongest(ascending: bool) -> None:
    """Features that never vary leave the intercept alone, whatever the strength."""
    strengths = sorted((0.1, 1.0, 10.0), reverse=not ascending)
    found = choose_ridge(torch.ones(20, 3), torch.arange(20.0)[:, None], strengths=strengths)
    assert len(set(found.losses.values())) == 1
    assert found.strength == 10.0


@pytest.mark.parametrize("grouped", [False, True])
def test_the_strength_is_the_best_on_held_out_folds(grouped: bool) -> None:
    x, y = samples(40, 30, noise=1.0)
    groups = torch.arange(40) // 4 if grouped else None
    strengths = (0.1, 1.0, 10.0, 100.0, 1000.0)
    found = choose_ridge(x, y, groups, seed=3, strengths=strengths)
    scaled = StandardScaler().fit_transform(x.double())
    masks = [held.numpy() for held in folds(y, groups, 3)]
    assert np.stack(masks).sum(0).tolist() == [1] * 40
    if groups is not None:
        assert all(len({bool(m) for m in held[groups.numpy() == g]}) == 1 for held in masks for g in range(10))
    losses = {}
    for strength in strengths:
        predicted = np.zeros((40, 1))
        for held in masks:
            fold = Ridge(strength).fit(scaled[~held], y[~held].double().numpy())
            predicted[held] = fold.predict(scaled[held]).reshape(-1, 1)
        losses[strength] = float(np.square(predicted - y.numpy()).mean())
    assert found.losses == pytest.approx(losses, rel=1e-5)
    assert found.strength == min(losses, key=losses.__getitem__)
    assert found.held_out is not None
    assert float((found.held_out - y).square().mean()) == pytest.approx(losses[found.strength], rel=1e-5)


def test_edges() -> None:
    x, y = samples(3, 5)
    few = choose_ridge(x, y)  # nothing can be held out
    assert (few.strength, few.held_out, few.losses) == (100.0, None, {})
    one = choose_ridge(x[:1], y[:1])
    torch.testing.assert_close(one(x[:1]), y[:1].double())
    x, y = samples(50, 4)
    same = torch.cat([x, torch.full((50, 1), 5.0)], 1)  # a constant feature changes nothing
    torch.testing.assert_close(choose_ridge(same, y)(same), choose_ridge(x, y)(x))
    with pytest.raises(DataError, match="ridge regression needs at least one"):
        fit_ridge(x[:0], y[:0], 1.0)
    x[3, 2] = torch.nan
    with pytest.raises(DataError, match="ridge regression: feature 2"):
        choose_ridge(x, y)


def test_a_target_that_is_not_finite_is_refused() -> None:
    x, y = samples(12, 4)
    y[3] = float("nan")
    with pytest.raises(DataError, match="ridge regression: a target is not finite"):
        choose_ridge(x, y)
    with pytest.raises(DataError, match="ridge regression: a target is not finite"):
        fit_ridge(x, y, 1.0)
