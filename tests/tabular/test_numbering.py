"""Numbers of architectures, in spaces that can be listed and in others."""

import pytest
import torch

from lightning_mmnas import FusionSpace
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.tabular import numbering

SMALL = FusionSpace(inputs=("a", "b", "c"), cells=1, channels=4, length=2)
LARGE = FusionSpace(inputs=tuple("abcdefgh"), cells=2, steps=3, channels=4, length=2)


def test_small_spaces_are_numbered_by_their_list() -> None:
    everything = list(SMALL.enumerate())
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0)).tolist()
    assert numbering.numbers(SMALL) == order
    assert numbering.numbers(SMALL, 4) == order[:4]
    assert numbering.numbers(SMALL, 10**6) == order
    assert numbering.architectures(SMALL, [3, 1]) == {1: everything[1], 3: everything[3]}
    assert numbering.architectures(SMALL, []) == {}


def test_large_spaces_are_drawn_from() -> None:
    assert LARGE.size() > 10**9  # to list it would take days
    assert numbering.numbers(LARGE, 32) == list(range(32))
    found = numbering.architectures(LARGE, range(32))
    assert len(set(found.values())) == 32
    assert numbering.architectures(LARGE, [7, 31]) == {7: found[7], 31: found[31]}
    with pytest.raises(ConfigError, match="1,173,129,720 architectures; say with --limit"):
        numbering.numbers(LARGE)


def test_draws_hold_each_architecture_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numbering, "LISTED", 1)
    drawn = numbering.architectures(SMALL, range(SMALL.size()))
    assert len(drawn) == SMALL.size()
    assert set(drawn.values()) == set(SMALL.enumerate())
