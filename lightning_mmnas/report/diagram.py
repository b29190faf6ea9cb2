"""Boxes and arrows for a genotype. Lengths are in inches; y grows upwards.

Every cell has a row of the figure to itself, and every step a row of its cell; columns are depths.
So an arrow runs straight along the row of its target, bends only in the gap after the column of its
source, and never crosses a box.
"""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from lightning_mmnas.report.formulas import formula
from lightning_mmnas.space.canonical import live, live_cells, step_nodes
from lightning_mmnas.space.genotype import Genotype

MODALITIES = ("#0072B2", "#D55E00", "#009E73", "#AA4499", "#997700", "#56B4E9")  # by position
PRIMITIVES = {
    "zero": "#ECEFF1",
    "sum": "#DDE3F3",
    "attention": "#E7DAF5",
    "linear_glu": "#D3EFE7",
    "concat_fc": "#FCEBC8",
}
OTHER = "#FADADD"
INK, FAINT, GREY = "#263238", "#B7C3C9", "#607D8B"

GAP = 0.8  # between the columns of the figure
ROW_GAP = 0.26
STEP_WIDTH, STEP_HEIGHT, STEP_ROW, STEP_GAP = 1.04, 0.36, 0.56, 0.44
HEAD, FOOT = 0.56, 0.14  # of a cell: its name and the residual's lane; the space below its steps
PORT = 0.52  # from a cell's left edge to its first steps
TAIL = 1.08  # after a cell's last steps: sum and norm
MERGE = 0.88  # before them, where several steps are outputs
PORT_SIZE = 0.1
INPUT_HEIGHT, INPUT_ROW = 0.34, 0.46

Point = tuple[float, float]


class _Canvas:
    """A blank figure with the few shapes that the drawing is made of."""

    def __init__(self, width: float, height: float) -> None:
        self.figure = Figure(figsize=(width, height), facecolor="white")
        self.axes: Axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(0, height))
        self.axes.set_axis_off()

    def box(self, left: float, right: float, y: float, height: float, face: str, edge: str, **style: Any) -> None:
        """Draws a rounded box around the height y."""
        shape = f"round,pad=0,rounding_size={style.pop('round', 0.07)}"
        style = {"linewidth": 1.2, "zorder": 3, **style}
        low = (left, y - height / 2)
        patch = FancyBboxPatch(low, right - left, height, shape, fc=face, ec=edge, **style)
        self.axes.add_patch(patch)

    def text(self, x: float, y: float, text: str, size: float = 9, **style: Any) -> None:
        """Writes text, centred if not told otherwise."""
        style = {"ha": "center", "va": "center", "color": INK, "zorder": 6, **style}
        self.axes.text(x, y, text.replace("$", r"\$"), fontsize=size, **style)

    def arrow(self, start: Point, end: Point, colour: str, bend: float, width: float = 1.1) -> None:
        """Draws an arrow that changes its height within `bend` of its start, then runs straight."""
        half = start[0] + bend / 2
        points = [start, (half, start[1]), (half, end[1]), (start[0] + bend, end[1]), end]
        self.line(points, [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO], colour, width)

    def line(self, points: list[Point], codes: list[Any], colour: str, width: float, dashes: Any = "-") -> None:
        """Draws a path that ends in an arrow head."""
        head = "-|>,head_length=4,head_width=2"
        self.axes.add_patch(
            FancyArrowPatch(
                path=Path(points, codes), arrowstyle=head, mutation_scale=1, color=colour,
                linewidth=width, linestyle=dashes, zorder=4,
            )
        )  # fmt: skip

    def join(self, start: Point, end: Point, colour: str, bend: float, width: float) -> None:
        """Draws an arrow that runs straight first and changes its height in the last `bend`."""
        turn, over = end[0] - bend, end[0] - 0.1
        half = (turn + over) / 2
        points = [start, (turn, start[1]), (half, start[1]), (half, end[1]), (over, end[1]), end]
        codes = [Path.MOVETO, Path.LINETO, *[Path.CURVE4] * 3, Path.LINETO]
        self.line(points, codes, colour, width)


def draw(genotype: Genotype) -> Figure:
    """Returns the drawing of a genotype; what does not reach the output is faint."""
    space = genotype.space
    alive = live_cells(genotype.wiring)
    depths = _depths([cell.inputs for cell in genotype.cells], "cell")
    step_depths = [_depths([step.inputs for step in cell.steps], "step") for cell in genotype.cells]
    widths = [_cell_width(genotype, max(steps)) for steps in step_depths]

    input_left = 0.62
    input_width = 0.3 + 0.085 * max(map(len, space.inputs))
    starts = [input_left + input_width + GAP + 0.1]
    for column in range(max(depths) + 1):
        widest = max(width for width, d in zip(widths, depths, strict=True) if d == column)
        starts.append(starts[-1] + widest + GAP)
    cell_row = HEAD + space.steps * STEP_ROW + FOOT + ROW_GAP
    cells_height = space.cells * cell_row
    inputs_height = len(space.inputs) * INPUT_ROW + (len(space.modalities) - 1) * 0.3
    body = max(cells_height, inputs_height)
    middle = 0.55 + body / 2
    canvas = _Canvas(max(starts[-1] + 1.25, _legend(genotype)[-1][0]), body + 1.2)

    modality_colours = {name: MODALITIES[i % len(MODALITIES)] for i, name in enumerate(space.modalities)}
    colours = {name: modality_colours[space.modality_of(name)] for name in space.inputs}
    sources = _draw_inputs(canvas, genotype, colours, input_left, input_width, middle + inputs_height / 2)
    for i, cell in enumerate(genotype.cells):
        top = middle + cells_height / 2 - i * cell_row - ROW_GAP / 2
        ports, sources[f"cell{i}"] = _draw_cell(
            canvas, genotype, i, starts[depths[i]], widths[i], top, step_depths[i], i in alive
        )
        for k, (name, port) in enumerate(zip(cell.inputs, ports, strict=True)):
            used = i in alive and k < len(alive[i].reads)
            colour = colours.get(name, INK) if used else FAINT
            canvas.arrow(sources[name], port, colour, GAP - (0.15 if name in colours else 0.25), 1.8)
    _draw_readout(canvas, genotype, sources, starts[-1], middle)
    _draw_captions(canvas, genotype)
    return canvas.figure


def _draw_inputs(
    canvas: _Canvas,
    genotype: Genotype,
    colours: dict[str, str],
    left: float,
    width: float,
    top: float,
) -> dict[str, Point]:
    """Draws the inputs from the top down, banded by modality; returns where arrows may begin."""
    space, read = genotype.space, genotype.inputs_read()
    points = {}
    for modality in space.modalities:
        names = [name for name in space.inputs if space.modality_of(name) == modality]
        height = len(names) * INPUT_ROW
        y, colour = top - height / 2, colours[names[0]]
        canvas.box(left - 0.1, left + width + 0.1, y, height + 0.06, colour, "none", alpha=0.13, zorder=0)
        size = min(10.0, 72 * (height + 0.2) / (0.7 * len(modality)))
        canvas.text(left - 0.28, y, modality, size, rotation=90, color=colour, weight="bold")
        for name in names:
            y = top - INPUT_ROW / 2
            edge, ink = (colours[name], INK) if name in read else (FAINT, FAINT)
            canvas.box(left, left + width, y, INPUT_HEIGHT, "white", edge, linewidth=1.5)
            canvas.text(left + width / 2, y, name, color=ink)
            points[name] = (left + width, y)
            top -= INPUT_ROW
        top -= 0.3
    return points


def _draw_cell(
    canvas: _Canvas, genotype: Genotype, i: int, left: float, width: float, top: float,
    depths: list[int], alive: bool,
) -> tuple[list[Point], Point]:  # fmt: skip
    """Draws a cell; returns where arrows to its x and y end and where arrows from it begin."""
    space, cell = genotype.space, genotype.cells[i]
    right, height = left + width, HEAD + space.steps * STEP_ROW + FOOT
    ink = INK if alive else FAINT
    canvas.box(left, right, top - height / 2, height, "#FAFBFC", ink, round=0.13, linewidth=1.4, zorder=2)
    canvas.text(left + 0.13, top - 0.18, f"cell{i}", 10, ha="left", weight="bold", color=ink)

    first = top - HEAD - STEP_ROW / 2
    apart = 0.24 if space.steps == 1 else 0.4
    ports = [(left, first + 0.12), (left, first + 0.12 - apart)]
    sources = {}
    for name, (x, y) in zip("xy", ports, strict=True):
        canvas.axes.add_patch(Circle((x, y), PORT_SIZE, fc="white", ec=ink, lw=1.1, zorder=5))
        canvas.text(x, y + 0.008, name, 8.5, style="italic", color=ink)
        sources[name] = (x + PORT_SIZE, y)
    reach = live(step_nodes(genotype.wiring.cells[i]), 2, space.step_outputs)
    for t, step in enumerate(cell.steps):
        x, y = left + PORT + depths[t] * (STEP_WIDTH + STEP_GAP), first - t * STEP_ROW
        lit = alive and t in reach
        edge = INK if lit else FAINT
        face = PRIMITIVES.get(step.primitive, OTHER)
        canvas.box(x, x + STEP_WIDTH, y, STEP_HEIGHT, face, edge, linewidth=1)
        label = step.primitive.rpartition(".")[2]
        size = min(9.0, 72 * STEP_WIDTH / (0.65 * len(label)))
        canvas.text(x + STEP_WIDTH / 2, y, label, size, color=edge)
        for k, name in enumerate(step.inputs):
            side = 1 - 2 * k
            colour = edge if step.primitive != "zero" else FAINT
            bend = PORT - 0.22 if name in ("x", "y") else STEP_GAP - 0.14
            canvas.arrow(sources[name], (x, y + side * 0.09), colour, bend)
            if step.primitive == "attention":  # q asks, k and v answer
                canvas.text(x - 0.09, y + side * 0.11, ("q", "kv")[k], 6.5, color=GREY, ha="right",
                            va=("bottom", "top")[k])  # fmt: skip
        sources[f"step{t}"] = (x + STEP_WIDTH, y)

    outputs = [sources[f"step{t}"] for t in range(space.steps - space.step_outputs, space.steps)]
    y = sum(point[1] for point in outputs) / len(outputs)
    end = right - TAIL + 0.37
    if len(outputs) > 1:
        merge = end - MERGE
        canvas.box(merge, merge + 0.62, y, 0.3 + 0.14 * len(outputs), "white", ink, linewidth=1)
        canvas.text(merge + 0.31, y, "merge", 8.5, color=ink)
        for rank, point in enumerate(outputs):
            target = (merge, y + (0.5 * (len(outputs) - 1) - rank) * 0.16)
            bend = min(STEP_GAP, merge - point[0])
            canvas.join(point, target, ink, bend, 1.1)
        outputs = [(merge + 0.62, y)]
    canvas.arrow(outputs[0], (end - 0.1, y), ink, 0.05)
    canvas.axes.add_patch(Circle((end, y), 0.1, fc="white", ec=ink, lw=1.1, zorder=4))
    canvas.text(end, y - 0.008, "+", 9, color=ink)
    canvas.arrow((end + 0.1, y), (end + 0.26, y), ink, 0.05)
    canvas.box(end + 0.26, right - 0.1, y, 0.3, "white", ink, linewidth=1)
    canvas.text((end + 0.16 + right) / 2, y, "norm", 7.5, color=ink)
    canvas.axes.plot([right - 0.1, right], [y, y], color=ink, lw=1.8, zorder=4)
    _draw_residual(canvas, sources["x"], (end, y + 0.1), top - 0.34, ink)
    return [(x - PORT_SIZE, y) for x, y in ports], (right, y)


def _draw_residual(canvas: _Canvas, start: Point, end: Point, lane: float, ink: str) -> None:
    """Draws the way of x around the steps to the sum."""
    points = [
        start, (start[0] + 0.14, start[1]), (start[0], lane), (start[0] + 0.22, lane),
        (end[0] - 0.15, lane), (end[0], lane), (end[0], lane - 0.15), end,
    ]  # fmt: skip
    codes = [Path.MOVETO, *[Path.CURVE4] * 3, Path.LINETO, *[Path.CURVE3] * 2, Path.LINETO]
    canvas.line(points, codes, ink, 1.1, (0, (3, 2)))
    canvas.text(end[0] - 0.2, lane + 0.03, "residual", 6.5, color=ink, va="bottom", ha="right")


def _draw_readout(canvas: _Canvas, genotype: Genotype, sources: dict[str, Point], left: float, y: float) -> None:
    space = genotype.space
    outputs = [sources[f"cell{i}"] for i in range(space.cells - space.cell_outputs, space.cells)]
    height = max(0.7, 0.3 * len(outputs) + 0.2)
    canvas.box(left, left + 0.95, y, height, "#37474F", INK)
    canvas.text(left + 0.475, y, "readout", 10, color="white", weight="bold")
    for rank, point in enumerate(outputs):
        target = (left, y + (0.5 * (len(outputs) - 1) - rank) * 0.3)
        canvas.join(point, target, INK, GAP, 1.8)


def _draw_captions(canvas: _Canvas, genotype: Genotype) -> None:
    """Writes the sizes and the modalities above, and below what each primitive computes."""
    space, read = genotype.space, genotype.modalities_read()
    height = canvas.figure.get_size_inches()[1]
    cells = f"{space.cells} {'cell' if space.cells == 1 else 'cells'}"
    steps = f"{space.steps} {'step' if space.steps == 1 else 'steps'}"
    facts = f"{cells} of {steps}  ·  {space.channels} channels, {space.length} positions"
    names = ", ".join(name for name in space.modalities if name in read)
    canvas.text(0.3, height - 0.27, f"{facts}  ·  reads {names}", 9.5, ha="left", color=GREY)
    for x, name, text in _legend(genotype)[:-1]:
        face = "white" if name == "merge" else PRIMITIVES.get(name, OTHER)
        canvas.box(x, x + 0.16, 0.27, 0.16, face, GREY, linewidth=0.8, round=0.03)
        canvas.text(x + 0.24, 0.265, text, 8, ha="left", color=GREY)


def _legend(genotype: Genotype) -> list[tuple[float, str, str]]:
    """Returns (left edge, primitive, text) for the primitives in use; the last one is empty."""
    used = {step.primitive for cell in genotype.cells for step in cell.steps}
    lines = [
        (name, f"{name}:  {formula(name, 'a', 'b')}" if name in PRIMITIVES else name)
        for name in genotype.space.primitives
        if name in used
    ]
    if genotype.space.step_outputs > 1:
        lines.append(("merge", "merge:  relu(W [a; b; ...])"))
    lefts = [0.3]
    for _, text in lines:
        lefts.append(lefts[-1] + 0.6 + 0.064 * len(text))
    return [(left, *line) for left, line in zip(lefts, [*lines, ("", "")], strict=True)]


def _depths(reads: list[tuple[str, str]], prefix: str) -> list[int]:
    """Returns for each node how many nodes there are on the longest way to it."""
    depths: dict[str, int] = {}
    for number, names in enumerate(reads):
        depths[f"{prefix}{number}"] = max(depths.get(name, -1) + 1 for name in names)
    return list(depths.values())


def _cell_width(genotype: Genotype, depth: int) -> float:
    steps = (depth + 1) * STEP_WIDTH + depth * STEP_GAP
    return PORT + steps + TAIL + (MERGE if genotype.space.step_outputs > 1 else 0)
