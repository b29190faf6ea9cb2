"""Relaxations against closed forms: exponentials written out, frequencies, Jacobians, means."""

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_mmnas import FusionSpace, FusionSupernet
from lightning_mmnas.fusion.relaxation import Dirichlet, GumbelHard, RandomRelaxation, Relaxation, Softmax

LOGITS = torch.tensor([[0.3, -1.2, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
RANDOM: list[Callable[..., RandomRelaxation]] = [GumbelHard, Dirichlet]


def softmax(row: list[float], temperature: float = 1.0) -> list[float]:
    powers = [math.exp(logit / temperature) for logit in row]
    return [power / sum(powers) for power in powers]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_softmax_with_temperature(temperature: float) -> None:
    relaxation = Softmax(temperature)
    for row, weights in zip(LOGITS.tolist(), relaxation(LOGITS).tolist(), strict=True):
        assert weights == pytest.approx(softmax(row, temperature), abs=1e-15)
    torch.testing.assert_close(relaxation.mean(LOGITS), relaxation(LOGITS))
    torch.testing.assert_close(relaxation.log_mean(LOGITS).exp(), relaxation(LOGITS))


def test_softmax_anneals_linearly() -> None:
    relaxation = Softmax(4.0, final_temperature=0.5)
    for progress, temperature in ((0.0, 4.0), (0.25, 3.125), (1.0, 0.5)):
        relaxation.set_progress(progress)
        assert relaxation(LOGITS)[0].tolist() == pytest.approx(softmax(LOGITS[0].tolist(), temperature))
    resumed = Softmax(4.0, final_temperature=0.5)
    resumed.load_state_dict(relaxation.state_dict())
    assert torch.equal(resumed(LOGITS), relaxation(LOGITS))
    assert not Softmax().state_dict()  # nothing to resume


def test_large_logits_do_not_overflow() -> None:
    assert Softmax(0.01)(torch.tensor([1e4, 0.0])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("relaxation", [Softmax, GumbelHard])
@pytest.mark.parametrize("temperature", [0.0, -1.0, math.inf])
def test_temperatures_must_be_positive(relaxation: Callable[..., Relaxation], temperature: float) -> None:
    with pytest.raises(ValueError, match=rf"^temperature must be > 0, not {temperature}"):
        relaxation(temperature)
    with pytest.raises(ValueError, match=rf"final_temperature must be > 0, not {temperature}"):
        relaxation(1.0, temperature)


@pytest.mark.parametrize("relaxation", RANDOM)
def test_seeds_must_not_be_negative(relaxation: Callable[..., RandomRelaxation]) -> None:
    with pytest.raises(ValueError, match="seed must be >= 0, not -1"):
        relaxation(seed=-1)


def test_gumbel_draws_in_proportion_to_softmax() -> None:
    drawn = GumbelHard(temperature=0.3)(LOGITS[0].expand(20000, 3))
    assert torch.equal(drawn, (drawn == 1.0).double())
    assert torch.equal(drawn.sum(-1), torch.ones(20000, dtype=torch.float64))
    found, wanted = drawn.mean(0), torch.tensor(softmax(LOGITS[0].tolist()), dtype=torch.float64)
    assert ((found - wanted).abs() < 4 * (wanted * (1 - wanted) / 20000).sqrt()).all()


@pytest.mark.parametrize("progress", [0.0, 0.5])
def test_gumbel_gradient_is_that_of_the_soft_sample(progress: float, monkeypatch: pytest.MonkeyPatch) -> None:
    exponentials = torch.tensor([0.5, 1.5, 3.0], dtype=torch.float64)
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_(exponentials))
    relaxation = GumbelHard(temperature=2.0, final_temperature=1.0)
    relaxation.set_progress(progress)
    tau = 2.0 - progress
    logits = LOGITS[:1].clone().requires_grad_()
    weights = relaxation(logits)
    assert weights.tolist() == [[1.0, 0.0, 0.0]]  # 0.3 - log 0.5 beats 2 - log 3
    # softmax((log p + o) / tau), o = -log e: powers p^(1 / tau) e^(-1 / tau)
    powers = [p ** (1 / tau) * e ** (-1 / tau) for p, e in zip(softmax(LOGITS[0].tolist()), exponentials, strict=True)]
    s = torch.stack(powers) / sum(powers)
    upstream = torch.tensor([[0.7, -0.2, 1.1]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad(weights, logits, upstream)
    torch.testing.assert_close(gradient[0], s * (upstream[0] - (upstream[0] * s).sum()) / tau)


def test_dirichlet_has_the_mean_and_the_variance_of_its_concentrations() -> None:
    relaxation = Dirichlet()
    wanted = torch.tensor([1.3, math.exp(-1.2), 3.0], dtype=torch.float64)
    torch.testing.assert_close(relaxation.concentration(LOGITS[0]), wanted)
    torch.testing.assert_close(relaxation.mean(LOGITS[0]), wanted / wanted.sum())
    torch.testing.assert_close(relaxation.log_mean(LOGITS[0]), (wanted / wanted.sum()).log())
    torch.testing.assert_close(relaxation.log_mean(torch.tensor([-500.0, 0.0]))[0], torch.tensor(-500.0))
    drawn = relaxation(LOGITS[0].expand(20000, 3))
    torch.testing.assert_close(drawn.sum(-1), torch.ones(20000, dtype=torch.float64))
    mean, total = wanted / wanted.sum(), wanted.sum()
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(drawn.var(0), mean * (1 - mean) / (total + 1), rtol=0.05, atol=0)


def test_dirichlet_gradient_is_pathwise() -> None:
    """Averaged over draws it is the gradient of the expectation: of E[w] and of E[w^2], both in closed form."""
    relaxation = Dirichlet()
    logits = LOGITS[0].clone().requires_grad_()
    concentration = relaxation.concentration(logits)
    total = concentration.sum()
    square = concentration * (concentration + 1) / (total * (total + 1))
    drawn = relaxation(logits.expand(40000, 3))
    for found, wanted in ((drawn, concentration / total), (drawn.square(), square)):
        for k in range(3):
            (expected,) = torch.autograd.grad(wanted[k], logits, retain_graph=True)
            (gradient,) = torch.autograd.grad(found[:, k].mean(), logits, retain_graph=True)
            torch.testing.assert_close(gradient, expected, rtol=0.05, atol=0.004)


@pytest.mark.parametrize("relaxation", RANDOM)
def test_draws_follow_seed_and_counter_alone(relaxation: Callable[..., RandomRelaxation]) -> None:
    def passes(module: RandomRelaxation, count: int) -> list[Tensor]:
        found = []
        for _ in range(count):
            module.begin()
            found += [module(LOGITS.expand(50, 2, 3)), module(LOGITS.expand(50, 2, 3))]
        return found

    torch.manual_seed(1)
    before = torch.get_rng_state()
    module = relaxation(seed=7)
    first = passes(module, 3)
    assert torch.equal(before, torch.get_rng_state())
    assert len({tuple(drawn.flatten().tolist()) for drawn in first}) == 6  # per pass and per use
    torch.manual_seed(2)
    again = relaxation(seed=7)
    assert all(torch.equal(a, b) for a, b in zip(first[:2], passes(again, 1), strict=True))
    resumed = relaxation(seed=7)
    resumed.load_state_dict(again.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(first[2:], passes(resumed, 2), strict=True))
    assert not torch.equal(first[0], passes(relaxation(seed=8), 1)[0])
    assert int(copy.deepcopy(module).draws) == 3


@pytest.mark.parametrize("relaxation", RANDOM)
def test_nothing_is_drawn_in_eval_mode(relaxation: Callable[..., RandomRelaxation]) -> None:
    module = relaxation().eval()
    module.begin()
    weights = module(LOGITS)
    assert torch.equal(weights, module(LOGITS))
    assert int(module.draws) == 0
    if module.one_hot:
        assert weights.tolist() == [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        assert module.mean(LOGITS)[0].tolist() == pytest.approx(softmax(LOGITS[0].tolist()))
    else:
        assert torch.equal(weights, module.mean(LOGITS))


def test_supernet_mixes_with_the_relaxation_that_it_is_given() -> None:
    space = FusionSpace(inputs=("a", "b"), cells=1, channels=4, length=2, primitives=("sum", "concat_fc"))
    supernet = FusionSupernet(space, relaxation=Softmax(0.5))
    supernet.logits.gamma[0].data[0] = torch.tensor([1.0, 0.0])
    wanted = 1 / (1 + math.exp(-2.0))
    assert supernet.probabilities()["gamma/0"][0].tolist() == pytest.approx([wanted, 1 - wanted])
    assert supernet.logits.primitive_weights(0)[0, 0].item() == pytest.approx(wanted)
    assert supernet.logits.scores().variants[0][0][0] == pytest.approx(math.log(wanted))
