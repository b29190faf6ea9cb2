"""Logistic regression: its optimum against scikit-learn's, the choice of its strength, corners."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn import functional as F

from lightning_mmnas.errors import DataError
from lightning_mmnas.objectives.linear import folds
from lightning_mmnas.objectives.logistic import choose_logistic, fit_logistic
from lightning_mmnas.objectives.mixture import choose_shares


def samples(n: int, d: int, classes: int, seed: int = 0, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Classes that differ in the first features, on scales that differ by orders of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    centres = torch.randn(classes, d, generator=torch.Generator().manual_seed(9)) * (torch.arange(d) < 4)
    x = centres[labels] + noise * torch.randn(n, d, generator=generator)
    return x * 10.0 ** (torch.arange(d) % 5 - 2) + 3, labels


@pytest.mark.parametrize(("n", "d"), [(60, 8), (30, 50)])
@pytest.mark.parametrize("strength", [1e-3, 0.1, 10.0])
def test_the_optimum_is_that_of_scikit_learn(n: int, d: int, strength: float) -> None:
    x, labels = samples(n, d, 3)
    model = fit_logistic(x, labels, 3, strength)
    reference = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=10_000, tol=1e-10))
    reference.fit(x.double().numpy(), labels.numpy())
    expected = reference.decision_function(x.double().numpy())
    found = model(x).numpy()
    np.testing.assert_allclose(found - found.mean(1, keepdims=True), expected, atol=3e-3)  # softmax knows differences


def test_several_labels_are_one_problem_each() -> None:
    x, classes = samples(40, 60, 3)
    labels = torch.stack([classes == 0, classes > 0, torch.zeros(40), torch.ones(40)], dim=1).long()
    model = fit_logistic(x, labels, 4, 0.05)
    reference = make_pipeline(
        StandardScaler(), OneVsRestClassifier(LogisticRegression(C=0.05, max_iter=10_000, tol=1e-10))
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Label .*is present in all training examples")
        warnings.filterwarnings("ignore", message="Label not .* is present in all training examples")
        reference.fit(x.double().numpy(), labels.numpy())
        expected = reference.predict_proba(x.double().numpy())
    np.testing.assert_allclose(model(x).sigmoid()[:, :2].numpy(), expected[:, :2], atol=1e-4)
    assert model(x)[:, 2].sigmoid().max() < 0.02  # never seen: improbable, not impossible
    assert model(x)[:, 3].sigmoid().min() > 0.98


def test_noise_asks_for_strong_regularisation_and_signal_for_weak() -> None:
    noisy, clear = samples(60, 40, 3, noise=8.0), samples(60, 40, 3, noise=0.01)
    strong, weak = (choose_logistic(*data, 3) for data in (noisy, clear))
    assert strong.strength <= 1e-2 < 1e-1 <= weak.strength
    assert min(strong.losses, key=lambda c: strong.losses[c]) == strong.strength
    x, labels = samples(300, 40, 3, seed=1, noise=8.0)
    chosen, plain = (F.cross_entropy(model(x), labels) for model in (strong, fit_logistic(*noisy, 3, 1.0)))
    assert chosen < plain - 0.5  # on samples never seen


def test_the_path_ends_where_the_held_out_loss_has_risen_twice() -> None:
    found = choose_logistic(*samples(60, 40, 3, noise=8.0), 3, strengths=(100.0, 1e-4, 1.0, 1e-3, 1e-2, 10.0))
    losses = list(found.losses.values())
    assert list(found.losses) == sorted(found.losses)
    assert len(losses) < 6
    assert losses[-3] < losses[-2] < losses[-1]


def test_choosing_is_the_plain_loop() -> None:
    x, labels = samples(30, 50, 3, noise=3.0)
    found = choose_logistic(x, labels, 3, seed=4, strengths=(1e-3, 1e-2))
    for strength, loss in found.losses.items():
        total = 0.0
        for held in folds(labels, None, 4):
            logits = fit_logistic(x[~held], labels[~held], 3, strength)(x[held])
            total += float(F.cross_entropy(logits, labels[held], reduction="sum"))
        assert total / 30 == pytest.approx(loss, rel=1e-2)
    again = choose_logistic(x, labels, 3, seed=4, strengths=(1e-3, 1e-2))
    assert torch.equal(found.weight, again.weight)


def test_folds_hold_every_class_and_no_part_of_a_group() -> None:
    labels = torch.arange(40) % 4
    masks = list(folds(labels, None, 0))
    assert len(masks) == 5
    assert torch.equal(torch.stack(masks).sum(0), torch.ones(40, dtype=torch.long))
    assert all(torch.equal(labels[held].bincount(), torch.full((4,), 2)) for held in masks)
    groups = torch.arange(40) // 7
    for held in folds(labels, groups, 0):
        assert not set(groups[held].tolist()) & set(groups[~held].tolist())
    assert not list(folds(labels, torch.zeros(40, dtype=torch.long), 0))  # one group cannot be held out


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_few_samples(n: int) -> None:
    x, labels = samples(n, 6, 3)
    model = choose_logistic(x, labels, 3)
    assert bool(model(x).isfinite().all())
    assert model.strength == 1e-2 if n < 4 else model.losses


def test_a_class_of_one_sample_and_one_of_none() -> None:
    x, labels = samples(20, 6, 2)
    labels[0] = 3  # of five classes; 2 and 4 never occur
    model = choose_logistic(x, labels, 5)
    logits = model(x)
    assert logits.shape == (20, 5)
    assert bool(logits.isfinite().all())
    assert set(logits.argmax(1).tolist()) <= {0, 1, 3}
    one = choose_logistic(x, torch.zeros(20, dtype=torch.long), 3)
    assert one(x).argmax(1).tolist() == [0] * 20


def test_constant_features_do_nothing() -> None:
    x, labels = samples(20, 6, 2)
    constant = torch.cat([x, torch.full((20, 1), 7.3), torch.zeros(20, 1)], dim=1)
    expected, found = fit_logistic(x, labels, 2, 0.1)(x), fit_logistic(constant, labels, 2, 0.1)(constant)
    torch.testing.assert_close(found, expected)


def test_what_is_refused() -> None:
    x, labels = samples(20, 6, 2)
    x[3, 4] = torch.nan
    with pytest.raises(DataError, match="feature 4 of the frozen encoders is not finite"):
        fit_logistic(x, labels, 2, 0.1)
    with pytest.raises(DataError, match="at least one labelled sample"):
        choose_logistic(x[:0], labels[:0], 2)


def test_a_class_that_is_one_group_says_nothing_of_the_strength() -> None:
    """Held out, its samples made the weakest model the best one, down to equal probabilities for everything."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    x = torch.randn(60, 8, generator=generator)
    x[torch.arange(60), labels] += 3
    recordings = torch.arange(60) // 10
    alone = torch.where(labels == 0, 100, recordings)  # class 0 is one recording
    model = choose_logistic(x, labels, 3, alone)
    expected = choose_logistic(x, labels, 3, recordings)
    assert model.strength == expected.strength > 1
    assert model.held_out is not None
    assert torch.equal(model.held_out.isnan().any(1), labels == 0)
    others = choose_shares([model.held_out, model.held_out], labels)
    assert torch.equal(others, choose_shares([model.held_out[labels > 0]] * 2, labels[labels > 0]))
    every = choose_logistic(x, labels, 3, labels)  # nothing can be held out
    assert (every.strength, every.held_out) == (0.01, None)
    one = choose_logistic(x[:4], torch.arange(4), 4)  # nor one sample of each class
    assert (one.strength, one.held_out) == (0.01, None)
