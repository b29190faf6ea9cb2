"""Decoding under a hard budget, against all architectures one by one."""

import itertools
from collections.abc import Iterator

import pytest
import torch

from lightning_mmnas import CostTable, FusionSpace, FusionSupernet, Genotype
from lightning_mmnas.costs.budget import Budget
from lightning_mmnas.errors import CostError
from lightning_mmnas.fusion.pairing import Pairing
from lightning_mmnas.objectives.selection import candidates
from lightning_mmnas.space.genotype import CellGenotype, StepGenotype

INPUTS = ("image/0", "image/1", "text/0")


def space_of(**changes: object) -> FusionSpace:
    settings: dict[str, object] = {"inputs": INPUTS, "cells": 2, "channels": 4, "length": 2}
    return FusionSpace(**{**settings, **changes})  # type: ignore[arg-type]


def table_of(space: FusionSpace, seed: int = 0) -> CostTable:
    """Whole numbers, some of them equal: sums are exact, and ties happen."""
    generator = torch.Generator().manual_seed(seed)

    def draw(names: tuple[str, ...]) -> dict[str, float]:
        return {name: float(torch.randint(0, 8, (), generator=generator)) for name in names}

    return CostTable(
        kind="parameters",
        space=space,
        readout="pool",
        inputs=draw(space.inputs),
        primitives={**draw(space.primitives), **({"zero": 0.0} if "zero" in space.primitives else {})},
        fixed=3,
    )


def supernet_of(space: FusionSpace, seed: int = 0, pairing: Pairing = "independent") -> FusionSupernet:
    supernet = FusionSupernet(space, None, pairing)
    generator = torch.Generator().manual_seed(seed)
    for logits in supernet.architecture_parameters():
        logits.copy_(torch.randn(logits.shape, generator=generator))
    return supernet


def spellings(supernet: FusionSupernet) -> Iterator[tuple[Genotype, float]]:
    """Every legal genotype in every way that it can be written down, with its score."""
    space, scores, variants = supernet.space, supernet.logits.scores(), supernet.logits.variants
    states = space.step_candidates(space.steps)

    def cells(i: int) -> Iterator[tuple[CellGenotype, float]]:
        names = space.candidates(i)
        for (x, y), score in scores.cells[i].items():
            choices = [
                itertools.product(pairs.items(), enumerate(row))
                for pairs, row in zip(scores.steps[i], scores.variants[i], strict=True)
            ]
            for program in itertools.product(*choices):
                steps, total = [], score
                for ((j, k), pair_score), (variant, variant_score) in program:
                    first, second = (k, j) if variants[variant][1] else (j, k)
                    steps.append(StepGenotype(inputs=(states[first], states[second]), primitive=variants[variant][0]))
                    total += pair_score + variant_score
                yield CellGenotype(inputs=(names[x], names[y]), steps=tuple(steps)), total

    for combination in itertools.product(*(list(cells(i)) for i in range(space.cells))):
        chosen = tuple(cell for cell, _ in combination)
        genotype = Genotype.model_construct(space=space, cells=chosen)
        if space.problem(genotype) is None:
            yield Genotype(space=space, cells=chosen), sum(score for _, score in combination)


def obeying(found: list[tuple[Genotype, float]], coverage: bool, distinct: bool) -> list[tuple[Genotype, float]]:
    """Those that keep the rules of decoding as far as any of them does."""
    if distinct and any(len({c.inputs for c in g.cells}) == len(g.cells) for g, _ in found):
        found = [(g, score) for g, score in found if len({c.inputs for c in g.cells}) == len(g.cells)]
    if coverage:
        most = max(len(g.modalities_read()) for g, _ in found)
        found = [(g, score) for g, score in found if len(g.modalities_read()) == most]
    return found


SPACES = [
    space_of(primitives=("sum", "attention", "concat_fc")),
    space_of(cells=2, cell_outputs=1, primitives=("sum", "linear_glu")),
    space_of(cells=2, primitives=("zero", "sum", "attention")),
    space_of(cells=1, steps=2, step_outputs=1, primitives=("sum", "attention", "concat_fc")),
    space_of(cells=1, steps=2, step_outputs=1, primitives=("zero", "sum", "concat_fc")),
    space_of(inputs=("text/0",), cells=2, primitives=("sum", "concat_fc")),
]


@pytest.mark.parametrize("pairing", ["independent", "tied"])
@pytest.mark.parametrize("space", SPACES)
def test_best_within_the_budget_is_that_of_brute_force(space: FusionSpace, pairing: Pairing) -> None:
    for seed in range(3):
        supernet, table = supernet_of(space, seed, pairing), table_of(space, seed)
        everything = list(spellings(supernet))
        costs = {id(genotype): table.of(genotype) for genotype, _ in everything}
        for coverage, distinct in ((True, True), (False, True), (False, False)):
            legal = obeying(everything, coverage, distinct)
            prices = sorted({costs[id(genotype)] for genotype, _ in legal})
            for limit in {prices[0], prices[len(prices) // 3], prices[-1]}:
                found = supernet.decode(coverage=coverage, distinct=distinct, budget=Budget(table, limit))
                affordable = [(g, score) for g, score in legal if costs[id(g)] <= limit]
                best = max(score for _, score in affordable)
                written = found.model_dump()["cells"]
                assert any(g.model_dump()["cells"] == written for g, score in affordable if score > best - 1e-9)
            with pytest.raises(CostError, match=f"costs at most {prices[0] - 1:.0f} parameters.* {prices[0]:.0f} para"):
                supernet.decode(coverage=coverage, distinct=distinct, budget=Budget(table, prices[0] - 1))


@pytest.mark.parametrize("pairing", ["independent", "tied"])
def test_a_generous_budget_changes_nothing(pairing: Pairing) -> None:
    space = space_of(inputs=(*INPUTS, "text/1", "audio/0"), cells=3, cell_outputs=2, steps=3, step_outputs=2)
    for seed in range(5):
        supernet = supernet_of(space, seed, pairing)
        for rules in ({}, {"coverage": False}, {"distinct": False}):
            found = supernet.decode(budget=Budget(table_of(space), 1e9), **rules)  # type: ignore[arg-type]
            assert found.model_dump() == supernet.decode(**rules).model_dump()  # type: ignore[arg-type]


def test_of_equal_scores_the_cheapest() -> None:
    space = space_of()
    supernet, table = FusionSupernet(space, None), table_of(space, 1)
    legal = obeying(list(spellings(supernet)), True, True)
    assert len({round(score, 9) for _, score in legal}) == 1
    assert table.of(supernet.decode(budget=Budget(table, 1e9))) == min(table.of(genotype) for genotype, _ in legal)


def test_candidates_keep_to_the_budget() -> None:
    space = space_of(inputs=(*INPUTS, "text/1"))
    supernet, table = supernet_of(space), table_of(space)
    dear = candidates(supernet, 8, seed=0)
    limit = min(table.of(genotype) for genotype in dear)
    found = candidates(supernet, 8, seed=0, budget=Budget(table, limit))
    assert len(set(found)) == 8
    assert max(table.of(genotype) for genotype in found) <= limit < max(table.of(genotype) for genotype in dear)
    assert all(genotype.modalities_read() == {"image", "text"} for genotype in found)
    assert found[0] == supernet.decode(budget=Budget(table, limit))
    supernet.space.validate(found[-1])


def test_budget_of_another_space_is_refused() -> None:
    with pytest.raises(CostError, match="another space than the supernet; measure it"):
        supernet_of(space_of()).decode(budget=Budget(table_of(space_of(channels=8)), 1e9))


def test_published_rule_knows_no_budget() -> None:
    supernet = supernet_of(space_of(), pairing="tied")
    with pytest.raises(CostError, match="'bmnas' knows no budget; use rule='covering'"):
        supernet.decode("bmnas", budget=Budget(table_of(space_of()), 1e9))
