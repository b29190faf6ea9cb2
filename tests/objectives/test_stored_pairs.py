"""Pairs of views come back as they were, from memory or from the file, and criteria give the same numbers."""

import pytest
import torch
from torch import Tensor

from lightning_mmnas.objectives.criteria import Criterion, Features, RankSum, ViewPair, label_free_criteria
from lightning_mmnas.objectives.stored_pairs import StoredPairs


def pairs(count: int = 5) -> list[ViewPair]:
    generator = torch.Generator().manual_seed(0)

    def view() -> dict[str, Tensor]:
        names = ("image/0", "text/0", "audio/0")
        return {name: torch.randn(6, 4, generator=generator, dtype=torch.float64) for name in names}

    return [(view(), view()) for _ in range(count)]


def project(features: Features) -> Tensor:
    out: Tensor = torch.stack([(i + 1) * value for i, value in enumerate(features.values())]).sum(0).tanh()
    return out


@pytest.mark.parametrize("kept", [0, 3000, 10**6])  # a pair has 1152 bytes
def test_pairs_come_back(kept: int) -> None:
    given = pairs()
    stored = StoredPairs(iter(given), kept)
    assert len(stored) == 5
    for _ in range(2):
        for mine, theirs in zip(stored, given, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    torch.testing.assert_close(stored[-1], given[-1], rtol=0, atol=0)
    torch.testing.assert_close(stored[1:3], given[1:3], rtol=0, atol=0)
    in_memory = [stored[i] is stored[i] for i in range(5)]
    assert in_memory == [(i + 1) * 1152 <= kept for i in range(5)]


@pytest.mark.parametrize("name", [*label_free_criteria(), "rank sum"])
def test_criteria_do_not_know_where_views_are(name: str) -> None:
    known = label_free_criteria()
    criterion: Criterion = RankSum(list(known.values())) if name == "rank sum" else known[name]
    found = []
    for stored in (pairs(), StoredPairs(pairs(), 0)):
        prepared = criterion.prepare(lambda dropout, stored=stored: stored)  # type: ignore[misc]
        found.append([criterion.score(project, prepared) for _ in range(2)])  # twice
    assert criterion.combine(found[0]) == criterion.combine(found[1])
