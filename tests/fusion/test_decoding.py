"""The best choices under demands: against all combinations where these can be listed, and where they cannot."""

import itertools
import random

import pytest
import torch

from lightning_mmnas import FusionSpace
from lightning_mmnas.fusion.decoding import Choice, best_choices, decode
from lightning_mmnas.fusion.pairing import Pairing, build_pairing


def nodes_of(draw: random.Random, inputs: int, cells: int) -> list[list[Choice]]:
    """Scores of few different values, so that there are ties."""
    return [
        [
            Choice(pair, float(draw.randint(-2, 0)), frozenset(pair[: draw.choice([1, 2])]))
            for pair in itertools.combinations(range(inputs + i), 2)
        ]
        for i in range(cells)
    ]


def by_hand(
    nodes: list[list[Choice]], inputs: int, outputs: int, groups: list[int], required: int, unique: bool
) -> list[Choice] | None:
    """The best of all combinations, of equals the first."""
    found = []
    for chosen in itertools.product(*nodes):
        read = set().union(*(choice.read for choice in chosen))
        dead = any(inputs + i not in read for i in range(len(nodes) - outputs))
        twice = len({choice.key for choice in chosen}) < len(chosen)
        covered = {groups[j] for j in read if j < inputs} - {-1}
        if not dead and not (unique and twice) and len(covered) >= required:
            found.append((-sum(choice.score for choice in chosen), [choice.key for choice in chosen], chosen))
    return list(min(found, key=lambda entry: entry[:2])[2]) if found else None


@pytest.mark.parametrize("seed", range(25))
def test_best_choices_are_the_best_of_all(seed: int) -> None:
    draw = random.Random(seed)
    inputs, cells = draw.randint(2, 4), draw.randint(1, 3)
    groups = [draw.randint(-1, 2) for _ in range(inputs)]
    nodes = nodes_of(draw, inputs, cells)
    for outputs, required, unique in itertools.product(range(1, cells + 1), range(4), (True, False)):
        demands = (inputs, outputs, groups, required, unique)
        assert best_choices(nodes, *demands) == by_hand(nodes, *demands)


@pytest.mark.parametrize("pairing", ["independent", "tied"])
@pytest.mark.parametrize("alike", [True, False])
def test_spaces_too_large_to_look_at_one_by_one(pairing: Pairing, alike: bool) -> None:
    inputs = tuple(f"{modality}/{level}" for modality in "abcd" for level in range(2))
    space = FusionSpace(inputs=inputs, cells=9, cell_outputs=1, channels=4, length=2)
    logits, generator = build_pairing(pairing, space, None), torch.Generator().manual_seed(0)
    for parameter in logits.parameters():  # every cell would like the same inputs; or nothing is decided at all
        parameter.data = torch.arange(parameter.numel()).view_as(parameter) * (-0.5 if alike else 0.0)
    for scores in (logits.scores(), logits.scores().perturbed(generator)):
        genotype = decode(scores, space, logits.variants)
        assert genotype.modalities_read() == set(space.modalities)
        assert len({cell.inputs for cell in genotype.cells}) == 9
