"""A genotype for human eyes: a tree for the terminal and a figure."""

from typing import TYPE_CHECKING

from rich.text import Text
from rich.tree import Tree

from lightning_mmnas.report.formulas import formula
from lightning_mmnas.space.canonical import live_cells
from lightning_mmnas.space.genotype import Genotype

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def render_tree(genotype: Genotype) -> Tree:
    """Returns a tree for rich's console: the inputs and who reads them, the cells, the output."""
    space = genotype.space
    sizes = f"{space.channels} channels, {space.length} positions"
    cells = _number(space.cells, "cell")
    tree = Tree(Text(f"fusion network: {cells} of {_number(space.steps, 'step')}, {sizes}", "bold"))

    reads = genotype.inputs_read()
    inputs = tree.add(Text("inputs", "bold"))
    for modality in space.modalities:
        branch = inputs.add(Text(modality, "bold cyan"))
        for name in space.inputs:
            if space.modality_of(name) == modality:
                readers = [
                    f"cell{i} as {' and '.join(roles)}"
                    for i, cell in enumerate(genotype.cells)
                    if (roles := [r for r, n in zip("xy", cell.inputs, strict=True) if n == name])
                ]
                line = f"{name} → {', '.join(readers) or 'not read'}"
                branch.add(Text(line, "" if name in reads else "dim"))

    alive = live_cells(genotype.wiring)
    for i, cell in enumerate(genotype.cells):
        branch = tree.add(Text.assemble((f"cell{i}", "bold green"), " = norm(out + x)"))
        if i not in alive:
            branch.add(Text("dead code: the output does not depend on it", "yellow"))
        for role, name in zip("xy", cell.inputs, strict=True):
            branch.add(Text.assemble((role, "bold"), f" = {name}"))
        for t, step in enumerate(cell.steps):
            text = formula(step.primitive, *step.inputs)
            branch.add(Text.assemble((f"step{t}", "bold"), " = ", (step.primitive, "magenta"), f": {text}"))
        outputs = [f"step{t}" for t in range(space.steps - space.step_outputs, space.steps)]
        merged = outputs[0] if len(outputs) == 1 else f"relu(W [{'; '.join(outputs)}])"
        branch.add(Text.assemble(("out", "bold"), f" = {merged}"))
    last = [f"cell{i}" for i in range(space.cells - space.cell_outputs, space.cells)]
    tree.add(Text.assemble(("output", "bold"), f" = [{'; '.join(last)}]"))
    read = genotype.modalities_read()
    missing = [name for name in space.modalities if name not in read]
    summary = Text.assemble(("reads", "bold"), f" {', '.join(name for name in space.modalities if name in read)}")
    if missing:
        summary.append(f"; does not read {', '.join(missing)}", "yellow")
    tree.add(summary)
    return tree


def plot_genotype(genotype: Genotype) -> "Figure":
    """Returns a drawing of the network, inputs at the left and its output at the right."""
    from lightning_mmnas.report.diagram import draw  # imports matplotlib

    return draw(genotype)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
