"""What the cells and steps of a network may read, and what makes a wiring illegal: the rules of a search space."""

from collections.abc import Sequence
from itertools import combinations

from lightning_mmnas.space.canonical import Wiring, live, live_cells, step_nodes


def cell_candidates(inputs: Sequence[str], cell: int) -> tuple[str, ...]:
    """Returns what cell number `cell` may read: the inputs, then the earlier cells."""
    return (*inputs, *(f"cell{i}" for i in range(cell)))


def step_candidates(step: int) -> tuple[str, ...]:
    """Returns what step number `step` of a cell may read: x, y, then the earlier steps."""
    return ("x", "y", *(f"step{i}" for i in range(step)))


def input_pairs(inputs: Sequence[str], cell: int) -> list[tuple[str, str]]:
    """Returns the legal (x, y) of cell number `cell`; x is the earlier of the two.

    Where only one candidate exists it is both x and y.
    """
    names = cell_candidates(inputs, cell)
    return list(combinations(names, 2)) or [(names[0], names[0])]


def problem(wiring: Wiring, cells: int, steps: int, primitives: Sequence[str], *, dead_code: bool) -> str | None:
    """Returns the first thing that is illegal as `place: reason`, or None.

    Args:
        wiring: what is looked at.
        cells: number of cells that there must be.
        steps: number of steps that every cell must have.
        primitives: those that the steps may apply.
        dead_code: whether cells and steps may be there that do not reach the output.
    """
    if len(wiring.cells) != cells:
        return f"cells: {len(wiring.cells)} given, but the space has {cells}"
    for i, (inputs, cell_steps) in enumerate(wiring.cells):
        candidates = cell_candidates(wiring.inputs, i)
        if found := _misread(f"cells[{i}]", inputs, candidates):
            return found
        if inputs not in input_pairs(wiring.inputs, i):
            return (
                f"cells[{i}].inputs: {list(inputs)} must be two different names, the"
                f" earlier of {', '.join(candidates)} first"
            )
        if len(cell_steps) != steps:
            return f"cells[{i}].steps: {len(cell_steps)} given, but the space has {steps}"
        for t, (step_inputs, primitive) in enumerate(cell_steps):
            place = f"cells[{i}].steps[{t}]"
            if found := _misread(place, step_inputs, step_candidates(t)):
                return found
            if step_inputs[0] == step_inputs[1]:
                return f"{place}.inputs: {step_inputs[0]!r} twice; give two different names"
            if primitive not in primitives:
                return f"{place}.primitive: {primitive!r} is not in the space; accepted: {', '.join(primitives)}"
    return None if dead_code else _dead(wiring)


def _misread(place: str, names: tuple[str, str], candidates: tuple[str, ...]) -> str | None:
    for k, name in enumerate(names):
        if name not in candidates:
            accepted = ", ".join(candidates)
            return f"{place}.inputs[{k}]: {name!r} cannot be read here; accepted: {accepted}"
    return None


def _dead(wiring: Wiring) -> str | None:
    for i, cell in enumerate(wiring.cells):
        alive = live(step_nodes(cell), 2, wiring.step_outputs)
        if dead := sorted(set(range(len(cell[1]))) - alive):
            return f"cells[{i}].steps[{dead[0]}]: dead: it does not reach the cell's output"
    if dead := sorted(set(range(len(wiring.cells))) - set(live_cells(wiring))):
        return f"cells[{dead[0]}]: dead: it does not reach the network's output"
    return None
