"""How many networks a search space holds, all of them one by one, and one drawn uniformly.

Listing everything that can be written down does not scale. So the programs of a cell (its steps)
are counted as coloured graphs, the primitives being the colours, and networks as coloured graphs of
cells, where a colour is a program together with the inputs that the cell reads (`patterns.py`).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from lightning_mmnas.space.canonical import Code, Node, arrange, writable
from lightning_mmnas.space.patterns import Draw, Palette, Patterns, pairs_of, palette
from lightning_mmnas.space.primitive_names import is_symmetric

if TYPE_CHECKING:
    import torch


class Sizes(NamedTuple):
    """What the number of networks depends on; names of inputs do not matter.

    Attributes:
        inputs: number of inputs.
        cells: number of cells.
        steps: number of steps in a cell.
        cell_outputs: how many of the last cells are the network's output.
        step_outputs: how many of the last steps are a cell's output.
        primitives: those that the steps may apply.
    """

    inputs: int
    cells: int
    steps: int
    cell_outputs: int
    step_outputs: int
    primitives: tuple[str, ...]


def size(sizes: Sizes) -> int:
    """Returns the number of different networks.

    Raises:
        TooManyError: cells or steps are too many to be counted.
    """
    return _networks(sizes).size


def codes(sizes: Sizes) -> Iterator[Code]:
    """Yields the canonical code of every network once.

    Raises:
        TooManyError: cells or steps are too many to be counted.
    """
    for nodes, colours in _networks(sizes).all():
        yield _code(sizes, nodes, colours)


def draw(sizes: Sizes, generator: "torch.Generator") -> Code | None:
    """Returns the canonical code of a network, every one with the same probability; None where there is none.

    Raises:
        TooManyError: cells or steps are too many to be counted.
    """
    networks = _networks(sizes)
    return _code(sizes, *networks.draw(_draw(generator))) if networks.size else None


def _draw(generator: "torch.Generator") -> Draw:
    import torch

    def below(limit: int) -> int:
        """Limits may exceed 64 bits; numbers that are not below the limit are drawn again."""
        bits = (limit - 1).bit_length()
        while True:
            number = 0
            for _ in range(0, bits, 32):
                word = torch.randint(2**32, (), generator=generator, dtype=torch.int64)
                number = number << 32 | int(word)
            number >>= -bits % 32
            if number < limit:
                return number

    return below


@lru_cache(maxsize=32)
def _networks(sizes: Sizes) -> Patterns:
    """Returns the networks as coloured graphs of cells.

    A node reads earlier cells; what it reads besides is part of its colour (inputs, program). The
    labels say what x and y are: "i" an input, "l" the last input, "c" a cell, "-" not read. The
    last input and the latest cell are special as an x: where y is not read, there must still be
    a later candidate that could be named as y (`writable`).
    """
    alone = sizes.inputs == 1
    inputs = range(sizes.inputs)
    both = _programs(sizes, lambda nodes: any(1 in node.reads for node in nodes))
    x_only = _programs(sizes, lambda nodes: all(1 not in node.reads for node in nodes))
    twice = _programs(sizes, lambda nodes: any(node.label == "twice" for node in nodes), same=True)
    palettes = {
        "ii": pairs_of(list(combinations(inputs, 2)), both),
        "ic": pairs_of([(i,) for i in inputs], both),
        "cc": pairs_of([()], both),
        "i-": pairs_of([(i,) for i in inputs[:-1]], x_only),
        "l-": pairs_of([(inputs[-1],)], x_only),
        "c-": pairs_of([()], x_only),
        "xx": pairs_of([(0,)] if alone else [], twice),  # x and y are the only input
    }

    def choices(place: int) -> list[Node]:
        cells = range(place)
        nodes = [Node((), label) for label in ("ii", "i-", "l-", "xx")]
        nodes += [Node((cell,), label) for cell in cells for label in ("ic", "c-")]
        nodes += [Node(pair, "cc") for pair in combinations(cells, 2)]
        return [node for node in nodes if palettes[node.label].size]

    def fits(node: Node, place: int) -> bool:
        if node.label == "c-":
            return node.reads[0] < place - 1
        if node.label == "l-":
            return place > 0 or alone
        return node.label != "xx" or place == 0

    return Patterns(
        sizes.cells,
        0,
        sizes.cell_outputs,
        choices,
        palettes,
        first_is_earlier=True,
        fits=fits,
    )


def _programs(sizes: Sizes, keep: Callable[[Sequence[Node]], bool], *, same: bool = False) -> Palette:
    """Returns the different programs of a cell, as codes.

    Args:
        sizes: say how many steps and which primitives.
        keep: which to take; nodes read 0 = x, 1 = y and 2 + t = step t. Labels: "any" reads an
            unordered pair, "ordered" an ordered one, "twice" x and x, "zero" nothing.
        same: x and y are the same state, then called x.
    """
    paired = [name for name in sizes.primitives if name != "zero"]
    palettes = {
        "any": palette([name for name in paired if is_symmetric(name)]),
        "ordered": palette([name for name in paired if not is_symmetric(name)]),
        "twice": palette(paired),
        "zero": palette([name for name in sizes.primitives if name == "zero"]),
    }

    def choices(place: int) -> list[Node]:
        states = [state for state in range(2 + place) if not (same and state == 1)]
        nodes = [Node((), "zero", True)]
        nodes += [Node((0, 0), "twice", True)] if same else []
        for first, second in combinations(states, 2):
            nodes.append(Node((first, second), "any", True))
            nodes += [Node((first, second), "ordered"), Node((second, first), "ordered")]
        return [node for node in nodes if palettes[node.label].size]

    programs = Patterns(sizes.steps, 2, sizes.step_outputs, choices, palettes, keep=keep)

    def code(nodes: Sequence[Node], colours: Sequence[str]) -> Code:
        coloured = [Node(node.reads, colour, node.swappable) for node, colour in zip(nodes, colours, strict=True)]
        found = arrange(coloured, 2, sizes.step_outputs)
        assert found is not None  # without `fits` there is always an order
        return found[0]

    return Palette(
        programs.size,
        lambda draw: code(*programs.draw(draw)),
        cache(lambda: [code(*program) for program in programs.all()]),
    )


def _code(sizes: Sizes, nodes: Sequence[Node], colours: Sequence[Any]) -> Code:
    inputs = sizes.inputs
    cells = [
        Node((*reads, *(inputs + cell for cell in node.reads)), program)
        for node, (reads, program) in zip(nodes, colours, strict=True)
    ]
    found = arrange(cells, inputs, sizes.cell_outputs, first_is_earlier=True, fits=writable(inputs))
    assert found is not None  # such graphs have been left out
    return found[0]
