"""When do two networks, written in words, come out the same? Order, liveness and canonical form of a wiring.

A cell is a small graph of steps and a network is a small graph of cells. Both are lists of `Node`s
which read *outside* states (x and y for steps, inputs for cells) and earlier nodes; the last few
nodes are the outputs. Renaming nodes does not change the network as long as every node still comes
after what it reads and the outputs stay last. The canonical order is the one whose code (for every
place, what is read there and the label) comes first in lexicographic order.

Only structure counts: that a + (a + b) equals (a + a) + b is not looked at. The zero primitive is
the exception, for it reads nothing: its inputs, and what only it refers to, are not in the network.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from lightning_mmnas.space.primitive_names import is_symmetric

Code = tuple[tuple[tuple[int, ...], Any], ...]
"""For each place what is read there and the label; the parts are comparable by <."""

Step = tuple[tuple[str, str], str]
"""A step in words: ((first, second), primitive)."""

Cell = tuple[tuple[str, str], Sequence[Step]]
"""A cell in words: ((x, y), its steps)."""


class Wiring(NamedTuple):
    """A network in words.

    Attributes:
        inputs: names of the inputs that the cells may read.
        cells: the cells in order, each of which may read the inputs and the earlier "cell0", "cell1", ...
        cell_outputs: how many of the last cells are the network's output.
        step_outputs: how many of the last steps are a cell's output.
    """

    inputs: Sequence[str]
    cells: Sequence[Cell]
    cell_outputs: int
    step_outputs: int


class Node(NamedTuple):
    """One step or cell.

    Attributes:
        reads: what it reads: numbers below `outside` are outside states, `outside + i` is node i.
        label: everything else there is to say about it; labels can be compared by <.
        swappable: whether the order of `reads` is without meaning.
    """

    reads: tuple[int, ...]
    label: Any
    swappable: bool = False


def live(nodes: Sequence[Node], outside: int, outputs: int) -> set[int]:
    """Returns the numbers of the nodes that reach one of the last `outputs` nodes."""
    alive = set(range(len(nodes) - outputs, len(nodes)))
    for number in reversed(range(len(nodes))):
        if number in alive:
            alive.update(read - outside for read in nodes[number].reads if read >= outside)
    return alive


def prune(nodes: Sequence[Node], outside: int, outputs: int) -> list[Node]:
    """Returns the live nodes, renumbered."""
    alive = sorted(live(nodes, outside, outputs))
    number = {read: read for read in range(outside)}
    number |= {outside + old: outside + new for new, old in enumerate(alive)}
    return [nodes[old]._replace(reads=tuple(number[read] for read in nodes[old].reads)) for old in alive]


def arrange(
    nodes: Sequence[Node],
    outside: int,
    outputs: int,
    *,
    first_is_earlier: bool = False,
    fits: Callable[[Node, int], bool] | None = None,
    every: bool = False,
) -> tuple[Code, list[tuple[int, ...]]] | None:
    """Returns the smallest code of any legal order of the nodes, and the orders that give it.

    Greedy, place by place; it branches only where several nodes give exactly the same code.

    Args:
        nodes: the graph, each node after what it reads.
        outside: number of outside states.
        outputs: how many of the last nodes are outputs; they stay last.
        first_is_earlier: the first of two reads must stay the earlier one (the x of a cell).
        fits: whether a node, its reads renumbered, can be written at a place; default always.
        every: return all orders that give the code (as many as the graph has automorphisms),
            not just one.

    Returns:
        The code and orders (order[place] is a number of `nodes`), or None if no order fits.
    """
    hidden = len(nodes) - outputs
    after = [{read - outside for read in node.reads if read >= outside} for node in nodes]
    readers: list[list[tuple[int, int]]] = [[] for _ in nodes]
    for number, node in enumerate(nodes):
        for role, read in enumerate(node.reads):
            if read >= outside:
                readers[read - outside].append((number, 0 if node.swappable else role))
        if first_is_earlier and len(node.reads) == 2 and node.reads[0] >= outside:
            after[node.reads[1] - outside].add(node.reads[0] - outside)

    def rest(place: dict[int, int]) -> tuple[Code, list[tuple[int, ...]]] | None:
        now = len(place)
        if now == len(nodes):
            return (), [()]
        ready: dict[Any, list[int]] = {}
        for number, node in enumerate(nodes):
            if number in place or (number >= hidden) != (now >= hidden):
                continue
            if all(other in place for other in after[number]):
                reads = tuple(read if read < outside else outside + place[read - outside] for read in node.reads)
                reads = tuple(sorted(reads)) if node.swappable else reads
                if fits is None or fits(node._replace(reads=reads), now):
                    ready.setdefault((reads, node.label), []).append(number)
        for code in sorted(ready):
            tied = ready[code]
            if not every:  # nodes with the same code and the same readers are interchangeable
                tied = list({tuple(readers[number]): number for number in tied}.values())
            found = [(number, rest(place | {number: now})) for number in tied]
            done = [(number, tail) for number, tail in found if tail is not None]
            if done:
                least = min(tail[0] for _, tail in done)
                orders = [(number, *order) for number, tail in done if tail[0] == least for order in tail[1]]
                return (code, *least), orders if every else orders[:1]
        return None

    return rest({})


def step_nodes(cell: Cell) -> list[Node]:
    """Returns the steps of a cell as nodes over two outside states, 0 = x and 1 = y.

    A zero step reads nothing; where the cell's two inputs are one and the same, y is x.
    """
    (x, y), steps = cell
    number = {"x": 0, "y": 0 if x == y else 1} | {f"step{t}": 2 + t for t in range(len(steps))}
    nodes = []
    for inputs, primitive in steps:
        first, second = (number[name] for name in inputs)
        swappable = is_symmetric(primitive) or first == second
        reads = tuple(sorted((first, second))) if swappable else (first, second)
        nodes.append(Node(() if primitive == "zero" else reads, primitive, swappable))
    return nodes


def cell_nodes(wiring: Wiring, *, pruned: bool) -> list[Node]:
    """Returns the cells as nodes over the inputs; a cell's label is the code of its steps.

    A cell reads (x, y), or (x,) where none of its steps gets to y.

    Args:
        wiring: what to look at.
        pruned: look at the steps only that reach the output of their cell.
    """
    names = [*wiring.inputs, *(f"cell{i}" for i in range(len(wiring.cells)))]
    number = {name: i for i, name in enumerate(names)}
    nodes = []
    for cell in wiring.cells:
        steps = step_nodes(cell)
        steps = prune(steps, 2, wiring.step_outputs) if pruned else steps
        x, y = (number[name] for name in cell[0])
        reads_y = any(1 in step.reads for step in steps)
        arranged = arrange(steps, 2, wiring.step_outputs)
        assert arranged is not None  # nothing restricts the places of steps
        nodes.append(Node((x, y) if reads_y else (x,), arranged[0]))
    return nodes


def live_cells(wiring: Wiring) -> dict[int, Node]:
    """Returns the cells that reach the network's output by number, with their live steps only."""
    nodes = cell_nodes(wiring, pruned=True)
    return {i: nodes[i] for i in sorted(live(nodes, len(wiring.inputs), wiring.cell_outputs))}


def equality_code(wiring: Wiring) -> Code:
    """Returns a code that two wirings of the same inputs and outputs share exactly if they build the same network.

    It is that of the live cells and steps, up to their order.
    """
    nodes = cell_nodes(wiring, pruned=True)
    cells = prune(nodes, len(wiring.inputs), wiring.cell_outputs)
    arranged = arrange(cells, len(wiring.inputs), wiring.cell_outputs, first_is_earlier=True)
    assert arranged is not None  # the order of the wiring itself is one
    return arranged[0]


def writable(inputs: int) -> Callable[[Node, int], bool]:
    """Returns whether a cell can be written at a place, in a space of so many inputs.

    A cell that does not read its y needs some later candidate to name as y; one that reads
    x twice needs x to be the only candidate.
    """

    def fits(node: Node, place: int) -> bool:
        if len(node.reads) == 2 or inputs + place == 1:
            return True
        reads_twice = any(reads == (0, 0) for reads, _ in node.label)
        return not reads_twice and node.reads[0] < inputs + place - 1

    return fits


def spell(code: Code, inputs: Sequence[str]) -> list[Cell]:
    """Returns the cells that a code stands for, in words.

    Args:
        code: of the cells, each label being the code of the cell's steps; writable in this order.
        inputs: names of the inputs.
    """
    states = [*inputs, *(f"cell{i}" for i in range(len(code)))]
    cells: list[Cell] = []
    for place, (reads, steps) in enumerate(code):
        x = reads[0]
        y = reads[1] if len(reads) == 2 else x + (len(inputs) + place > 1)
        names = ["x", "y", *(f"step{t}" for t in range(len(steps)))]
        spelled: list[Step] = []
        for step_reads, primitive in steps:
            first, second = (0, 1) if step_reads in ((), (0, 0)) else step_reads
            spelled.append(((names[first], names[second]), primitive))
        cells.append(((states[x], states[y]), spelled))
    return cells
