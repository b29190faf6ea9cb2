"""From log-weights of all choices to one discrete architecture; deterministic, ties included."""

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple, Protocol

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

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
    """The best-scoring choice for every node.

    A* search: what remains is bounded by its best scores under all demands but `unique`, and under `unique` alone.

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
    rest = _Rest(nodes, first, outputs, groups, required)
    # Sorted by the bound on the whole score, then by the keys; then what was chosen, its score, and what was read.
    heap: list[tuple[float, tuple[tuple[int, ...], ...], bool, tuple[Choice, ...], float, _Read]] = []

    def push(chosen: tuple[Choice, ...], score: float, read: _Read, bound: float, tight: bool) -> None:
        if bound > -math.inf:
            keys = tuple(choice.key for choice in chosen)
            heapq.heappush(heap, (-round(score + bound, 12), keys, tight, chosen, score, read))

    seen: set[tuple[int, _Read, frozenset[tuple[int, ...]]]] = set()  # of those with the same future the first is best
    push((), 0.0, _Read(0, 0), rest.bound(0, _Read(0, 0)), not unique)
    while heap:
        _, keys, tight, chosen, score, read = heapq.heappop(heap)
        depth = len(chosen)
        if depth == count:
            return list(chosen)
        if not tight:  # the costlier bound only for what comes to the front
            bound = min(rest.bound(depth, read), _best_distinct(nodes[depth:], frozenset(keys)))
            push(chosen, score, read, bound, True)
            continue
        state = (depth, read, frozenset(keys) if unique else frozenset())
        if state in seen:
            continue
        seen.add(state)
        for choice in nodes[depth]:
            if not (unique and choice.key in keys):
                after = rest.after(depth, read, rest.effect(choice))
                push((*chosen, choice), score + choice.score, after, rest.bound(depth + 1, after), not unique)
    return None


class _Read(NamedTuple):
    """What matters of the choices made so far, or what one choice reads, as sets of bits.

    Attributes:
        nodes: Nodes that must still be read; of a choice, those that it reads.
        groups: Groups that are read.
    """

    nodes: int
    groups: int


class _Rest:
    """The best score of the nodes from some depth on, whose keys may be equal; see `best_choices`."""

    def __init__(
        self, nodes: Sequence[Sequence[Choice]], first: int, outputs: int, groups: Sequence[int], required: int
    ) -> None:
        self.count, self.first, self.inner = len(nodes), first, len(nodes) - outputs
        self.groups, self.required = groups, required
        self.effects: list[dict[_Read, float]] = []  # per node, the best score of the choices that read the same
        for choices in nodes:
            best: dict[_Read, float] = {}
            for choice in choices:
                effect = self.effect(choice)
                best[effect] = max(best.get(effect, -math.inf), choice.score)
            self.effects.append(best)
        self.known: dict[tuple[int, _Read], float] = {}

    def effect(self, choice: Choice) -> _Read:
        """What a choice reads."""
        nodes = groups = 0
        for j in choice.read:
            if j >= self.first:
                nodes |= 1 << (j - self.first)
            elif j < len(self.groups) and self.groups[j] >= 0:
                groups |= 1 << self.groups[j]
        return _Read(nodes, groups)

    def after(self, depth: int, read: _Read, effect: _Read) -> _Read:
        """What matters after node `depth` has made a choice; once enough groups are read, which ones does not."""
        new = 1 << depth if depth < self.inner else 0
        groups = read.groups | effect.groups
        enough = groups.bit_count() >= self.required
        return _Read(read.nodes & ~effect.nodes | new, (1 << self.required) - 1 if enough else groups)

    def bound(self, depth: int, read: _Read) -> float:
        """The best score of the nodes from `depth` on; minus infinity where they cannot meet the demands."""
        found = self.known.get((depth, read))
        if found is None:
            found = self.known[depth, read] = self._bound(depth, read)
        return found

    def _bound(self, depth: int, read: _Read) -> float:
        missing = max(self.required - read.groups.bit_count(), 0)
        if read.nodes.bit_count() + missing > 2 * (self.count - depth):
            return -math.inf
        if depth == self.count:
            return 0.0
        return max(
            (
                score + self.bound(depth + 1, self.after(depth, read, effect))
                for effect, score in self.effects[depth].items()
            ),
            default=-math.inf,
        )


def _best_distinct(nodes: Sequence[Sequence[Choice]], used: frozenset[tuple[int, ...]]) -> float:
    """The best score of nodes with different keys, none of them used already; minus infinity where there is none."""
    keys = sorted({choice.key for choices in nodes for choice in choices} - used)
    if len(keys) < len(nodes):
        return -math.inf
    column = {key: k for k, key in enumerate(keys)}
    scores = np.full((len(nodes), len(keys)), -math.inf)
    for row, choices in zip(scores, nodes, strict=True):
        for choice in choices:
            if choice.key in column:
                row[column[choice.key]] = choice.score
    try:
        rows, columns = linear_sum_assignment(scores, maximize=True)
    except ValueError:  # infeasible
        return -math.inf
    return float(scores[rows, columns].sum())
