"""Counting, listing and uniformly drawing small coloured graphs up to renaming.

A *pattern* is a graph of `Node`s up to renaming, with its automorphisms, whose nodes are still to
be coloured: each label stands for a palette. Two colourings are the same if an automorphism maps
one to the other. By Burnside's lemma their number is the mean, over automorphisms g, of the number
of colourings that g leaves as they are; picking g with a probability in proportion to that number,
and then uniformly one of those colourings, draws uniformly from what is different.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import accumulate, product
from math import prod
from typing import Any, NamedTuple

from lightning_mmnas.space.canonical import Node, arrange, live

Draw = Callable[[int], int]
"""Returns a random whole number from 0 up to, not including, the given one."""


_LONGEST = 16
"""Places of a list, with which there are always too many."""


class TooManyError(Exception):
    """There are more patterns than can be listed in reasonable time."""


class Palette(NamedTuple):
    """The colours that nodes of one label can have: their number, one at random, all of them."""

    size: int
    draw: Callable[[Draw], Any]
    all: Callable[[], Sequence[Any]]


def palette(colours: Sequence[Any]) -> Palette:
    """Returns the palette of the given colours."""
    return Palette(len(colours), lambda draw: colours[draw(len(colours))], lambda: colours)


def pairs_of(first: Sequence[Any], second: Palette) -> Palette:
    """Returns the palette of all (one of `first`, one of `second`)."""
    return Palette(
        len(first) * second.size,
        lambda draw: (first[draw(len(first))], second.draw(draw)),
        cache(lambda: list(product(first, second.all()))),
    )


class Pattern:
    """One graph up to renaming.

    Args:
        nodes: the graph; labels are keys of `palettes`.
        symmetries: its automorphisms; node number i may take the place of node symmetry[i].
        palettes: colours for each label.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        symmetries: Sequence[tuple[int, ...]],
        palettes: dict[str, Palette],
    ) -> None:
        self.nodes = nodes
        self._symmetries = symmetries
        self._palettes = [palettes[node.label] for node in nodes]
        self._cycles = [_cycles(symmetry) for symmetry in symmetries]
        self._fixed = [prod(self._palettes[cycle[0]].size for cycle in cycles) for cycles in self._cycles]
        self.size = sum(self._fixed) // len(symmetries)

    def draw(self, draw: Draw) -> tuple[Any, ...]:
        """Returns a colouring, each different one with the same probability."""
        colours: list[Any] = [None] * len(self.nodes)
        for cycle in self._cycles[_weighted(self._fixed, draw)]:
            colour = self._palettes[cycle[0]].draw(draw)
            for number in cycle:
                colours[number] = colour
        return tuple(colours)

    def all(self) -> Iterator[tuple[Any, ...]]:
        """Yields every different colouring once."""
        for colours in product(*(palette.all() for palette in self._palettes)):
            if all(colours <= tuple(colours[number] for number in symmetry) for symmetry in self._symmetries):
                yield colours


class Patterns:
    """All coloured graphs of a given number of live nodes.

    Args:
        length: number of nodes.
        outside: number of outside states.
        outputs: how many of the last nodes are outputs.
        choices: what can stand at a place, labels being keys of `palettes`.
        palettes: colours for each label.
        first_is_earlier: see `arrange`.
        fits: see `arrange`; graphs that cannot be written in any order are left out.
        keep: which graphs to take.
        most: how many graphs to look at before giving up with `TooManyError`.
    """

    def __init__(
        self,
        length: int,
        outside: int,
        outputs: int,
        choices: Callable[[int], list[Node]],
        palettes: dict[str, Palette],
        *,
        first_is_earlier: bool = False,
        fits: Callable[[Node, int], bool] | None = None,
        keep: Callable[[Sequence[Node]], bool] = lambda nodes: True,
        most: int = 30_000,
    ) -> None:
        self.patterns: list[Pattern] = []
        if length > _LONGEST:  # each place multiplies their number
            raise TooManyError
        lists = _lists(length, outside, outputs, choices, monotonous=not first_is_earlier)
        for seen, nodes in enumerate(lists):
            if seen == most:
                raise TooManyError
            if not keep(nodes) or len(live(nodes, outside, outputs)) < length:
                continue
            found = arrange(nodes, outside, outputs, first_is_earlier=first_is_earlier, every=True)
            assert found is not None  # without `fits` there is always an order
            code, symmetries = found
            if code != tuple((node.reads, node.label) for node in nodes):
                continue  # another list stands for this graph
            if fits and not arrange(nodes, outside, outputs, first_is_earlier=first_is_earlier, fits=fits):
                continue
            self.patterns.append(Pattern(nodes, symmetries, palettes))
        self._sizes = [pattern.size for pattern in self.patterns]
        self.size = sum(self._sizes)

    def draw(self, draw: Draw) -> tuple[Sequence[Node], tuple[Any, ...]]:
        """Returns nodes and their colours, each different graph with the same probability."""
        pattern = self.patterns[_weighted(self._sizes, draw)]
        return pattern.nodes, pattern.draw(draw)

    def all(self) -> Iterator[tuple[Sequence[Node], tuple[Any, ...]]]:
        """Yields nodes and their colours, every different graph once."""
        for pattern in self.patterns:
            for colours in pattern.all():
                yield pattern.nodes, colours


def _lists(
    length: int,
    outside: int,
    outputs: int,
    choices: Callable[[int], list[Node]],
    *,
    monotonous: bool,
) -> Iterator[list[Node]]:
    """Yields lists of nodes, among them all whose own order gives the smallest code.

    Args:
        length: number of nodes.
        outside: number of outside states.
        outputs: how many of the last nodes are outputs.
        choices: what can stand at a place.
        monotonous: leave out, early, lists where exchanging two neighbours of which the later
            does not read the earlier gives a smaller code.
    """
    nodes: list[Node] = []

    def extend() -> Iterator[list[Node]]:
        here = len(nodes)
        if here == length:
            yield list(nodes)
            return
        for node in choices(here):
            if monotonous and nodes and here != length - outputs:
                free = outside + here - 1 not in node.reads
                if free and (node.reads, node.label) < (nodes[-1].reads, nodes[-1].label):
                    continue
            nodes.append(node)
            yield from extend()
            nodes.pop()

    return extend()


def _cycles(symmetry: tuple[int, ...]) -> list[list[int]]:
    cycles: list[list[int]] = []
    left = set(range(len(symmetry)))
    while left:
        cycle = [left.pop()]
        while symmetry[cycle[-1]] in left:
            cycle.append(symmetry[cycle[-1]])
            left.remove(cycle[-1])
        cycles.append(cycle)
    return cycles


def _weighted(weights: Sequence[int], draw: Draw) -> int:
    sums = list(accumulate(weights))
    return bisect_right(sums, draw(sums[-1]))
