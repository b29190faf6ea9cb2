"""The last stage's model: its parts, what they count, and what lies between start and fine-tuned weights."""

import copy
from typing import Any

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.fusion.readout import LateFeatures, mean_max_pool
from lightning_mmnas.objectives.labelled import Labelled
from lightning_mmnas.objectives.logistic import choose_logistic
from lightning_mmnas.objectives.mixture import LinearPath, Mixture, choose_shares, fit_parts
from lightning_mmnas.objectives.training import build_optimizer, train_together

SHAPES = {"image/0": (3, 4, 4), "image/1": (5, 2, 2), "text/0": (6,)}


def features_of(n: int = 60, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """Three classes that shift one channel of each modality."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    features = {name: torch.randn(n, *shape, generator=generator) for name, shape in SHAPES.items()}
    features["image/1"][:, 0] += labels.float()[:, None, None]
    features["text/0"][:, 2] += 2.0 * (labels == 1)
    return features, labels


def mixture_of(interpolation: float = 0.5) -> tuple[LateFusion, nn.Linear, Mixture]:
    torch.manual_seed(0)
    network = LateFusion(SHAPES, hidden=8)
    features, labels = features_of()
    network.train()(features)
    classifier = nn.Linear(8, 3)
    path = LinearPath(LateFeatures(list(SHAPES), SHAPES), 3)
    mixture = Mixture(network, classifier, path, interpolation)
    linear = choose_logistic(path.pooled(features), labels, 3)
    mixture.begin(network, classifier, fit_parts(linear, network.eval()(features).detach(), labels, 3))
    return network, classifier, mixture


def test_the_linear_path_is_the_fitted_model() -> None:
    features, labels = features_of()
    path = LinearPath(LateFeatures(list(SHAPES), SHAPES), 3)
    pooled = torch.cat([mean_max_pool(features[name]) for name in SHAPES], dim=1)
    model = choose_logistic(pooled, labels, 3)
    path.take(model)
    torch.testing.assert_close(path(features), model(pooled).float(), rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert path(features).dtype == torch.float32
    assert not list(path.parameters())


def test_shares_have_the_least_held_out_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(400) % 3
    truth = 2.0 * F.one_hot(labels, 3) + torch.randn(400, 3, generator=generator)
    noise, wrong = torch.randn(400, 3, generator=generator), -truth
    shares = choose_shares([truth, noise], labels)
    losses = {
        (a, b): float(F.cross_entropy(a * truth + b * noise, labels)) + ((a - 0.5) ** 2 + (b - 0.5) ** 2) / 400
        for a in torch.arange(0, 3, 0.05).tolist()
        for b in torch.arange(0, 1, 0.05).tolist()
    }
    assert shares.tolist() == pytest.approx(min(losses, key=lambda pair: losses[pair]), abs=0.05)
    assert choose_shares([truth, wrong], labels)[1] == 0
    reference = LogisticRegression(C=1e6, fit_intercept=False).fit(truth[:, :1].numpy(), (labels == 0).numpy())
    several = (labels == 0).long().unsqueeze(1)
    assert float(choose_shares([truth[:, :1]], several)) == pytest.approx(reference.coef_.item(), abs=0.05)


def test_few_samples_alone_do_not_decide() -> None:
    labels = torch.tensor([0, 1])
    perfect, useless = 3.0 * F.one_hot(labels, 2).float(), torch.zeros(2, 2)
    few = choose_shares([perfect, useless], labels)
    many = choose_shares([perfect.repeat(500, 1), useless.repeat(500, 1)], labels.repeat(500))
    assert 0.5 < float(few[0]) < 1.0 < 2.0 < float(many[0])  # nothing but the pull towards one half holds it
    assert few[1] == pytest.approx(0.5, abs=1e-3)


def test_held_out_logits_are_those_of_the_folds_without_the_sample() -> None:
    features, labels = features_of(30)
    x = features["text/0"]
    model = choose_logistic(x, labels, 3, seed=2)
    assert model.held_out is not None
    loss = float(F.cross_entropy(model.held_out, labels))
    assert loss == pytest.approx(model.losses[model.strength])
    changed = labels.clone()
    changed[0] = (labels[0] + 1) % 3
    # Its own label changes what the others are told, but not what a model without it says of it, given C and folds.
    other = choose_logistic(x, changed, 3, groups=torch.arange(30), seed=2, strengths=(model.strength,))
    same = choose_logistic(x, labels, 3, groups=torch.arange(30), seed=2, strengths=(model.strength,))
    assert other.held_out is not None
    assert same.held_out is not None
    torch.testing.assert_close(other.held_out[0], same.held_out[0])
    assert not torch.allclose(other.held_out[1:], same.held_out[1:])


def test_the_start_is_the_convex_optimum() -> None:
    network, classifier, mixture = mixture_of()
    features, labels = features_of()
    vectors = network.eval()(features).detach()
    probe = choose_logistic(vectors, labels, 3)
    torch.testing.assert_close(classifier(vectors), probe(vectors).float(), rtol=1e-4, atol=1e-4)
    linear, own = mixture.shares.tolist()
    assert linear > 0
    assert own > 0
    expected = linear * mixture.linear(features) + own * probe(vectors).float()
    torch.testing.assert_close(mixture(network, classifier, features), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("interpolation", [0.0, 0.25, 1.0])
def test_evaluated_are_the_weights_on_the_way(interpolation: float) -> None:
    network, classifier, mixture = mixture_of(interpolation)
    features, labels = features_of()
    first, first_classifier = copy.deepcopy(network), copy.deepcopy(classifier)
    labelled = Labelled(network, classifier, 0.5, mixture)
    train_together(
        {"": labelled},
        [(features, labels)] * 5,
        lambda module: build_optimizer(
            [{"params": [p for p in module.parameters() if p.requires_grad], "lr": 0.05}], 0, "constant", 5
        ),
    )
    between, between_classifier = copy.deepcopy(network), copy.deepcopy(classifier)
    for now, before, target in ((network, first, between), (classifier, first_classifier, between_classifier)):
        assert any(not torch.equal(a, b) for a, b in zip(now.parameters(), before.parameters(), strict=True))
        states: list[Any] = [now.state_dict(), before.state_dict()]
        target.load_state_dict(
            {
                name: value * interpolation + states[1][name] * (1 - interpolation)
                if value.is_floating_point()
                else value
                for name, value in states[0].items()
            }
        )
    linear, own = mixture.shares.tolist()
    expected = linear * mixture.linear(features) + own * between_classifier(between.eval()(features))
    with torch.no_grad():
        torch.testing.assert_close(labelled.eval().logits(features), expected, rtol=1e-4, atol=1e-4)


def test_random_numbers_of_one_network_change_neither_batches_nor_others() -> None:
    features, labels = features_of()

    def train(dropouts: dict[str, float]) -> dict[str, Labelled]:
        torch.manual_seed(1)
        built = {name: Labelled(LateFusion(SHAPES), nn.Linear(128, 3), p) for name, p in dropouts.items()}
        for one in built.values():
            one.load_state_dict(next(iter(built.values())).state_dict())
        torch.manual_seed(2)

        def batches() -> Any:
            for _ in range(3):
                rows = torch.randperm(60)[:20]
                yield {name: value[rows] for name, value in features.items()}, labels[rows]

        train_together(
            built,
            batches(),
            lambda module: build_optimizer([{"params": module.parameters(), "lr": 0.01}], 0, "constant", 3),
        )
        return built

    together, alone = train({"plain": 0.0, "dropped": 0.5, "again": 0.5}), train({"plain": 0.0})
    dropped = train({"dropped": 0.5})
    torch.testing.assert_close(together["plain"].state_dict(), alone["plain"].state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(together["again"].state_dict(), together["dropped"].state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(together["dropped"].state_dict(), dropped["dropped"].state_dict(), rtol=0, atol=0)
    states = [together[name].state_dict()["classifier.weight"] for name in ("plain", "dropped")]
    assert not torch.equal(*states)
