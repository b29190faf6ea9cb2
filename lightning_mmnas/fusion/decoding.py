"""From log-weights of all choices to one discrete architecture; deterministic, ties included."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import torch

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.space.genotype import CellGenotype, FusionSpace, Genotype, StepGenotype

Pair = tuple[int, int]


@dataclass(frozen=True)
class Scores:
    """Log-weights of the choices that decoding has.

    Attributes:
        cells: Per cell, each legal pair of candidates (input nodes, then earlier cells), lower index first.
        steps: Per cell and step, each legal pair of states (x, y, then earlier steps), lower index first.
        variants: Per cell and step, each (primitive, swapped) in the order of the pairing's ``variants``.
    """

    cells: list[dict[Pair, float]]
    steps: list[list[dict[Pair, float]]]
    variants: list[list[list[float]]]

    def perturbed(self, generator: torch.Generator) -> "Scores":
        """Adds standard Gumbel noise: decoding then samples every choice in proportion to its weight."""

        def noisy(scores: Sequence[float]) -> list[float]:
            uniform = torch.rand(len(scores), generator=generator, dtype=torch.float64).clamp_min(1e-300)
            gumbel = -(-uniform.log()).clamp_min(1e-300).log()
            return (torch.tensor(scores, dtype=torch.float64) + gumbel).tolist()

        def noisy_pairs(pairs: dict[Pair, float]) -> dict[Pair, float]:
            return dict(zip(pairs, noisy(list(pairs.values())), strict=True))

        return Scores(
            cells=[noisy_pairs(pairs) for pairs in self.cells],
            steps=[[noisy_pairs(pairs) for pairs in steps] for steps in self.steps],
            variants=[[noisy(row) for row in rows] for rows in self.variants],
        )


class Limit(Protocol):
    """What architectures must keep to besides the rules of `decode`, such as a `Budget`."""

    def decode(
        self,
        scores: Scores,
        space: FusionSpace,
        variants: Sequence[tuple[str, bool]],
        coverage: bool = True,
        distinct: bool = True,
    ) -> Genotype:
        """Returns the best legal architecture that keeps to it."""


def decode(
    scores: Scores,
    space: FusionSpace,
    variants: Sequence[tuple[str, bool]],
    coverage: bool = True,
    distinct: bool = True,
) -> Genotype:
    """Returns the best legal architecture: every choice by its weight, under the rules below.

    No cell and no step is dead. With ``coverage``, as many modalities as the space allows are read. With
    ``distinct``, no two cells have the same inputs unless the space leaves no other way. Ties go to the
    lexicographically first choice.

    Args:
        scores: Log-weights of the choices.
        space: The search space.
        variants: (primitive, swapped) in the order of ``scores.variants``.
        coverage: Whether every modality must be read.
        distinct: Whether no two cells may have the same inputs.
    """
    try:
        found = _decode(scores, space, variants, coverage, distinct, False)
    except GenotypeError:
        if "zero" not in space.primitives:
            raise
        # Blind to y, the best steps may leave an earlier cell that nothing can read.
        found = _decode(scores, space, variants, coverage, distinct, True)
    if coverage and "zero" in space.primitives and len(found.modalities_read()) < len(space.modalities):
        # Zero steps may have left cells blind to y: once more, with cells that see both inputs.
        seeing = _decode(scores, space, variants, coverage, distinct, True)
        found = max(found, seeing, key=lambda genotype: len(genotype.modalities_read()))
    return found


def decode_bmnas(
    edges: Sequence[Sequence[float]],
    inner_edges: Sequence[Sequence[Sequence[float]]],
    primitives: Sequence[Sequence[Sequence[float]]],
    space: FusionSpace,
) -> Genotype:
    """Decodes by the published rule of BM-NAS, on softmax values; see `TiedPairing.edge_weights`.

    A cell takes the pair of input nodes with the largest product of weights that is not made of inputs which
    earlier cells took already; earlier cells are never read. A step takes its two heaviest edges, the heavier first.

    Raises:
        GenotypeError: No admissible pair is left, because earlier cells used all the inputs.
    """
    n = len(space.inputs)
    used: set[int] = set()
    cells = []
    for i in range(space.cells):
        admissible = [pair for pair in combinations(range(n), 2) if not used.issuperset(pair)]
        if not admissible:
            raise GenotypeError(
                f"the published rule finds no inputs for cell {i}: earlier cells used all {n} inputs; "
                "use fewer cells or decode with rule='covering'"
            )
        pair = max(admissible, key=lambda p: edges[i][p[0]] * edges[i][p[1]])  # the first of equals
        used.update(pair)
        steps = []
        for t in range(space.steps):
            states = space.step_candidates(t)
            ranked = sorted(range(len(states)), key=lambda j: -inner_edges[i][t][j])
            weights = primitives[i][t]
            primitive = space.primitives[max(range(len(weights)), key=weights.__getitem__)]
            steps.append(StepGenotype(inputs=(states[ranked[0]], states[ranked[1]]), primitive=primitive))
        cells.append(CellGenotype(inputs=(space.inputs[pair[0]], space.inputs[pair[1]]), steps=tuple(steps)))
    return Genotype(space=space, cells=tuple(cells), compatibility="bmnas")


def _decode(
    scores: Scores,
    space: FusionSpace,
    variants: Sequence[tuple[str, bool]],
    coverage: bool,
    distinct: bool,
    see_y: bool,
) -> Genotype:
    programs = [_decode_steps(scores, space, variants, i, see_y) for i in range(space.cells)]
    pairs = _decode_cells(scores, space, [_reads_y(steps, space) for steps in programs], coverage, distinct)
    cells = []
    for i, ((x, y), steps) in enumerate(zip(pairs, programs, strict=True)):
        names = space.candidates(i)
        cells.append(CellGenotype(inputs=(names[x], names[y]), steps=steps))
    return Genotype(space=space, cells=tuple(cells))


def _decode_steps(
    scores: Scores, space: FusionSpace, variants: Sequence[tuple[str, bool]], i: int, see_y: bool
) -> tuple[StepGenotype, ...]:
    """The inner steps of cell i: the best pairs and primitives such that no step is dead (and y is read)."""
    nodes = []
    for pairs, row in zip(scores.steps[i], scores.variants[i], strict=True):
        choices = []
        for pair, score in pairs.items():
            for k, (primitive, _) in enumerate(variants):
                read = frozenset() if primitive == "zero" else frozenset(pair)
                choices.append(Choice((*pair, k), score + row[k], read))
        nodes.append(choices)
    chosen = best_choices(nodes, first=2, outputs=space.step_outputs, groups=(-1, 0), required=int(see_y))
    if chosen is None and see_y:  # a space of zeros only
        return _decode_steps(scores, space, variants, i, False)
    if chosen is None:
        raise GenotypeError(f"no legal architecture in {space}: every choice of steps leaves a dead one")
    return spell_steps([choice.key for choice in chosen], space, variants)


def spell_steps(
    keys: Sequence[tuple[int, ...]], space: FusionSpace, variants: Sequence[tuple[str, bool]]
) -> tuple[StepGenotype, ...]:
    """The steps of a cell from (state, state, variant) of each, all as indices."""
    names = space.step_candidates(space.steps)
    steps = []
    for j, k, variant in keys:
        primitive, swapped = variants[variant]
        first, second = (k, j) if swapped else (j, k)
        steps.append(StepGenotype(inputs=(names[first], names[second]), primitive=primitive))
    return tuple(steps)


def _reads_y(steps: Sequence[StepGenotype], space: FusionSpace) -> bool:
    """Whether the cell's output depends on y; only a zero primitive can make it blind."""
    reads: dict[str, bool] = {"x": False, "y": True}
    for t, step in enumerate(steps):
        reads[f"step{t}"] = step.primitive != "zero" and any(reads[name] for name in step.inputs)
    return any(reads[f"step{t}"] for t in range(space.steps - space.step_outputs, space.steps))


def _decode_cells(
    scores: Scores, space: FusionSpace, reads_y: Sequence[bool], coverage: bool, distinct: bool
) -> list[Pair]:
    """The cells' pairs under the rules, relaxed one by one only as far as the space leaves no other way."""
    groups = [space.modalities.index(space.modality_of(name)) for name in space.inputs]
    nodes = [
        [Choice(pair, score, frozenset(pair if sees_y else pair[:1])) for pair, score in pairs.items()]
        for pairs, sees_y in zip(scores.cells, reads_y, strict=True)
    ]
    wanted = len(space.modalities) if coverage else 0
    for unique in (True, False) if distinct else (False,):
        for required in range(wanted, -1, -1):
            chosen = best_choices(nodes, len(groups), space.cell_outputs, groups, required, unique)
            if chosen is not None:
                return [(choice.key[0], choice.key[1]) for choice in chosen]
    raise GenotypeError(f"no legal architecture in {space}: every choice of inputs leaves a dead cell")


@dataclass(frozen=True)
class Choice:
    """What one node (a cell or a step) can be.

    Attributes:
        key: Tells the choice apart, and decides between equal scores: the smaller one wins.
        score: Log-weight.
        read: Candidates that the node then reads.
    """

    key: tuple[int, ...]
    score: float
    read: frozenset[int]


def best_choices(
    nodes: Sequence[Sequence[Choice]],
    first: int,
    outputs: int,
    groups: Sequence[int] = (),
    required: int = 0,
    unique: bool = False,
) -> list[Choice] | None:
    """The best-scoring choice for every node (A*: what remains is bounded by its best scores).

    Args:
        nodes: Per node, its choices; candidate ``first + i`` is node i itself.
        first: Number of candidates that are not nodes.
        outputs: The last ``outputs`` nodes are read from outside; every other node must be read by a later one.
        groups: Group (modality) of each of the first candidates; those of group -1 do not count.
        required: Number of groups that must be read.
        unique: Whether all keys must differ.

    Returns:
        One choice per node, or None if none meets the demands.
    """
    count = len(nodes)
    ranked = [sorted(choices, key=lambda c: (-round(c.score, 12), c.key)) for choices in nodes]
    bound = [sum(choices[0].score for choices in ranked[i:]) for i in range(count + 1)]
    inner = count - outputs
    # Sorted by the bound on the whole score, then by the keys; the numbers i refer into `ranked`.
    heap: list[tuple[float, tuple[tuple[int, ...], ...], tuple[int, ...], float]] = [(-bound[0], (), (), 0.0)]
    while heap:
        _, keys, places, total = heapq.heappop(heap)
        depth = len(places)
        if depth == count:
            return [ranked[i][place] for i, place in enumerate(places)]
        before = set().union(*(ranked[i][place].read for i, place in enumerate(places)))
        for place, choice in enumerate(ranked[depth]):
            if unique and choice.key in keys:
                continue
            read = before | choice.read
            slots = 2 * (count - depth - 1)
            covered = len({groups[j] for j in read if j < len(groups)} - {-1})
            unread = sum(1 for i in range(min(inner, depth + 1)) if first + i not in read)
            if max(required - covered, 0) + unread > slots:
                continue
            value = total + choice.score
            entry = (-round(value + bound[depth + 1], 12), (*keys, choice.key), (*places, place), value)
            heapq.heappush(heap, entry)
    return None
