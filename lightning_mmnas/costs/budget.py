"""Decoding under a hard budget: the best architecture among those that cost no more than a limit.

Exact and without listing the space. What an architecture costs is the sum over the input nodes that it names and the
primitives of its steps. Once the input nodes that may be named are fixed and paid for, pairs of inputs no longer
change the cost: they are chosen by their scores alone, and what is left of the budget goes to the primitives, of
which only the Pareto front of (score, cost) matters. The sets of inputs are tried one by one; no set is larger than
twice the number of cells.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from lightning_mmnas.costs.table import CostTable
from lightning_mmnas.errors import CostError
from lightning_mmnas.fusion.decoding import Choice, Pair, Scores, best_choices, spell_steps
from lightning_mmnas.space.genotype import CellGenotype, FusionSpace, Genotype


@dataclass(frozen=True)
class Budget:
    """The most that an architecture may cost.

    Attributes:
        table: What architectures cost.
        limit: Largest cost that is allowed, in the table's unit.
    """

    table: CostTable
    limit: float

    def decode(
        self,
        scores: Scores,
        space: FusionSpace,
        variants: Sequence[tuple[str, bool]],
        coverage: bool = True,
        distinct: bool = True,
    ) -> Genotype:
        """Returns the best legal architecture within the budget; see `decode_within`."""
        return decode_within(scores, space, variants, self, coverage, distinct)


@dataclass(frozen=True)
class Program:
    """Steps of one or several cells.

    Attributes:
        score: Log-weight.
        cost: Of their primitives together.
        keys: Per step, (state, state, variant) as indices; cell after cell.
    """

    score: float
    cost: float
    keys: tuple[tuple[int, ...], ...] = ()

    def __add__(self, other: "Program") -> "Program":
        """This program followed by another one."""
        return Program(self.score + other.score, self.cost + other.cost, self.keys + other.keys)


def decode_within(
    scores: Scores,
    space: FusionSpace,
    variants: Sequence[tuple[str, bool]],
    budget: Budget,
    coverage: bool = True,
    distinct: bool = True,
) -> Genotype:
    """Returns the best legal architecture within the budget; of equals the cheapest, then the first.

    The rules of `decode` come before the budget: as many modalities are read as the space allows whatever it costs,
    and no two cells have the same inputs.

    Args:
        scores: Log-weights of the choices.
        space: The search space.
        variants: (primitive, swapped) in the order of ``scores.variants``.
        budget: What architectures cost and may cost.
        coverage: Whether every modality must be read.
        distinct: Whether no two cells may have the same inputs.

    Raises:
        CostError: The costs are of another space, or no architecture that keeps to the rules is cheap enough.
    """
    table, n = budget.table, len(space.inputs)
    if table.space != space:
        raise CostError("the budget's cost table is for another space than the supernet; measure it for this one")
    prices = [table.primitives[name] for name, _ in variants]
    groups = [space.modalities.index(space.modality_of(name)) for name in space.inputs]
    patterns = []  # which cells are known to depend on their y; only zero primitives can make one blind
    for sees in product((True, False), repeat=space.cells) if "zero" in space.primitives else [(True,) * space.cells]:
        programs = [Program(0.0, 0.0)]
        for i, sees_y in enumerate(sees):
            steps = _programs(scores.steps[i], scores.variants[i], space, variants, prices, sees_y)
            programs = _front(earlier + later for earlier in programs for later in steps)
        if programs:
            patterns.append((programs, _pairs(scores, sees)))
    required, unique = _rules([nodes for _, nodes in patterns], space, groups, coverage, distinct)

    def pairs_of(named: frozenset[int], nodes: Sequence[Sequence[Choice]]) -> list[Choice] | None:
        allowed = _allowed(nodes, named, n)
        return best_choices(allowed, n, space.cell_outputs, groups, required, unique) if all(allowed) else None

    # What is worth looking at: the set of inputs that is paid for, what it costs, primitives that can still be paid.
    tries: list[tuple[float, float, frozenset[int], Program, list[list[Choice]]]] = []
    cheapest: list[tuple[float, frozenset[int], list[list[Choice]]]] = []
    for named in _sets(n, 2 * space.cells):
        if len({groups[j] for j in named}) < required:
            continue
        spent = table.fixed + sum(table.inputs[space.inputs[j]] for j in named)
        for programs, nodes in patterns:
            cheapest.append((spent + programs[0].cost, named, nodes))
            affordable = [program for program in programs if spent + program.cost <= budget.limit]
            allowed = _allowed(nodes, named, n)
            if affordable and all(allowed):
                bound = sum(max(choice.score for choice in choices) for choices in allowed) + affordable[-1].score
                tries.append((bound, spent, named, affordable[-1], nodes))

    best: tuple[float, float, list[Pair], Program] | None = None
    for bound, spent, named, program, nodes in sorted(tries, key=lambda entry: -entry[0]):
        if best is not None and round(bound, 12) < -best[0]:
            break
        chosen = pairs_of(named, nodes)
        if chosen is not None:
            score = sum(choice.score for choice in chosen) + program.score
            pairs = [(choice.key[0], choice.key[1]) for choice in chosen]
            entry = (-round(score, 12), spent + program.cost, pairs, program)
            best = entry if best is None or entry[:3] < best[:3] else best
    if best is None:
        least = next(cost for cost, named, nodes in sorted(cheapest, key=lambda e: e[0]) if pairs_of(named, nodes))
        rules = f" that reads {required} modalities" if required else ""
        raise CostError(
            f"no architecture costs at most {table.text(budget.limit)}: the cheapest{rules} costs "
            f"{table.text(least)}; raise the budget, or make channels, length, cells or steps smaller"
        )
    cells = []
    for i, (x, y) in enumerate(best[2]):
        names = space.candidates(i)
        steps_of = spell_steps(best[3].keys[i * space.steps : (i + 1) * space.steps], space, variants)
        cells.append(CellGenotype(inputs=(names[x], names[y]), steps=steps_of))
    return Genotype(space=space, cells=tuple(cells))


def _sets(count: int, most: int) -> Iterator[frozenset[int]]:
    """All sets of 1 to `most` of the numbers below `count`."""
    for size in range(1, min(count, most) + 1):
        yield from map(frozenset, combinations(range(count), size))


def _allowed(nodes: Sequence[Sequence[Choice]], named: frozenset[int], n: int) -> list[list[Choice]]:
    """Per cell, the pairs of which no input is unpaid."""
    return [[choice for choice in choices if all(j in named or j >= n for j in choice.key)] for choices in nodes]


def _pairs(scores: Scores, sees: Sequence[bool]) -> list[list[Choice]]:
    """Per cell, its pairs; a cell that may be blind to y counts as one that does not read it."""
    return [
        [Choice(pair, score, frozenset(pair if sees_y else pair[:1])) for pair, score in pairs.items()]
        for pairs, sees_y in zip(scores.cells, sees, strict=True)
    ]


def _rules(
    patterns: Sequence[list[list[Choice]]], space: FusionSpace, groups: Sequence[int], coverage: bool, distinct: bool
) -> tuple[int, bool]:
    """How many modalities must be read and whether pairs must differ, as far as the space allows."""
    n = len(space.inputs)
    for unique in (True, False) if distinct else (False,):
        for required in range(len(space.modalities) if coverage else 0, -1, -1):
            if any(best_choices(nodes, n, space.cell_outputs, groups, required, unique) for nodes in patterns):
                return required, unique
    raise CostError(f"no legal architecture in {space}: every choice leaves a dead cell or step")


def _programs(
    pairs: Sequence[dict[Pair, float]],
    rows: Sequence[Sequence[float]],
    space: FusionSpace,
    variants: Sequence[tuple[str, bool]],
    prices: Sequence[float],
    sees_y: bool,
) -> list[Program]:
    """The Pareto front of a cell's steps without dead ones; with `sees_y` of those that depend on y."""
    found: list[Program] = []
    kinds = {name == "zero" for name, _ in variants}
    for zeros in product(kinds, repeat=space.steps):
        # What a step reads depends on whether it is a zero, not on which other primitive it is.
        nodes = [
            [Choice(pair, score, frozenset() if zero else frozenset(pair)) for pair, score in choices.items()]
            for choices, zero in zip(pairs, zeros, strict=True)
        ]
        chosen = best_choices(nodes, first=2, outputs=space.step_outputs, groups=(-1, 0), required=int(sees_y))
        programs = [Program(0.0, 0.0)] if chosen is not None else []
        for choice, row, zero in zip(chosen or [], rows, zeros, strict=False):
            steps = [
                Program(choice.score + row[k], prices[k], ((*choice.key, k),))
                for k, (name, _) in enumerate(variants)
                if (name == "zero") == zero
            ]
            programs = _front(earlier + step for earlier in programs for step in steps)
        found += programs
    return _front(found)


def _front(programs: Iterable[Program]) -> list[Program]:
    """Those that no other one beats in score at the same or less cost: by rising cost, and rising score."""
    front: list[Program] = []
    for program in sorted(programs, key=lambda p: (p.cost, -round(p.score, 12), p.keys)):
        if not front or round(program.score, 12) > round(front[-1].score, 12):
            front.append(program)
    return front
