"""Softmax relaxation against exponentials written out."""

import math

import pytest
import torch

from lightning_mmnas import FusionSpace, FusionSupernet
from lightning_mmnas.relaxation import Softmax


@pytest.mark.parametrize("temperature", [0.1, 1.0, 5.0])
def test_softmax_with_temperature(temperature: float) -> None:
    logits = torch.tensor([[0.3, -1.2, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    found = Softmax(temperature)(logits)
    for row, weights in zip(logits.tolist(), found.tolist(), strict=True):
        powers = [math.exp(logit / temperature) for logit in row]
        assert weights == pytest.approx([power / sum(powers) for power in powers], abs=1e-15)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, dtype=torch.float64))


def test_large_logits_do_not_overflow() -> None:
    assert Softmax(0.01)(torch.tensor([1e4, 0.0])).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("temperature", [0.0, -1.0])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match=f"temperature must be > 0, not {temperature}"):
        Softmax(temperature)


def test_supernet_mixes_with_the_relaxation_that_it_is_given() -> None:
    space = FusionSpace(inputs=("a", "b"), cells=1, channels=4, length=2, primitives=("sum", "concat_fc"))
    supernet = FusionSupernet(space, relaxation=Softmax(0.5))
    supernet.logits.gamma[0].data[0] = torch.tensor([1.0, 0.0])
    wanted = 1 / (1 + math.exp(-2.0))
    assert supernet.probabilities()["gamma/0"][0].tolist() == pytest.approx([wanted, 1 - wanted])
    assert supernet.logits.primitive_weights(0)[0, 0].item() == pytest.approx(wanted)
