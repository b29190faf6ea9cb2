"""Genotype: which are legal, which are equal, and their files."""

from itertools import permutations
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.space.genotype import CellGenotype, FusionSpace, Genotype, StepGenotype
from tests.space.test_space import small_spaces, written

SPACE = FusionSpace(inputs=("image/0", "image/1", "text"))

Cell = tuple[tuple[str, str], list[tuple[str, str, str]]]


def make(space: FusionSpace, *cells: Cell, compatibility: Any = None) -> Genotype:
    """A genotype from ((x, y), [(primitive, first, second), ...]) for each cell."""
    return Genotype(
        space=space,
        cells=tuple(
            CellGenotype(
                inputs=pair,
                steps=tuple(
                    StepGenotype(inputs=(first, second), primitive=primitive) for primitive, first, second in steps
                ),
            )
            for pair, steps in cells
        ),
        compatibility=compatibility,
    )


SUM: list[tuple[str, str, str]] = [("sum", "x", "y")]
GENOTYPE = make(
    SPACE,
    (("image/1", "text"), [("attention", "y", "x")]),
    (("image/0", "cell0"), SUM),
)


def drawn(space: FusionSpace, seed: int) -> Genotype:
    assume(space.size())
    return space.sample(torch.Generator().manual_seed(seed))


def renamed(genotype: Genotype, cell_order: tuple[int, ...], step_order: tuple[int, ...]) -> Any:
    """The genotype with its cells, and the steps of every cell, in another order; None if illegal.

    Place p of the new order holds cell `cell_order[p]`; inputs of symmetric primitives are swapped.
    """
    cell_names = {f"cell{old}": f"cell{new}" for new, old in enumerate(cell_order)}
    step_names = {f"step{old}": f"step{new}" for new, old in enumerate(step_order)}
    cells = []
    for old_cell in cell_order:
        cell = genotype.cells[old_cell]
        steps = []
        for old_step in step_order:
            step = cell.steps[old_step]
            first, second = (step_names.get(name, name) for name in step.inputs)
            swap = step.primitive in ("sum", "linear_glu", "concat_fc")
            steps.append((step.primitive, *((second, first) if swap else (first, second))))
        x, y = (cell_names.get(name, name) for name in cell.inputs)
        cells.append(((x, y), steps))
    try:
        return make(genotype.space, *cells)
    except GenotypeError:
        return None


def orders(length: int, outputs: int) -> list[tuple[int, ...]]:
    """Orders in which the last `outputs` stay last."""
    hidden = length - outputs
    every = permutations(range(length))
    return [order for order in every if all(number < hidden for number in order[:hidden])]


@settings(max_examples=60, deadline=None)
@given(small_spaces(most=3000), st.integers(0, 2**32))
def test_renamed_genotypes_are_equal(space: FusionSpace, seed: int) -> None:
    genotype = drawn(space, seed)
    for cell_order in orders(space.cells, space.cell_outputs):
        for step_order in orders(space.steps, space.step_outputs):
            other = renamed(genotype, cell_order, step_order)
            if other is not None:
                assert other == genotype
                assert hash(other) == hash(genotype)
                assert other.canonical().to_json() == genotype.to_json()
                assert other.modalities_read() == genotype.modalities_read()


@pytest.mark.slow
@pytest.mark.parametrize(
    "space",
    [
        FusionSpace(inputs=("a", "b"), cells=3, cell_outputs=2, primitives=("sum", "attention")),
        FusionSpace(inputs=("a",), cells=4, primitives=("sum",)),
        FusionSpace(inputs=("a", "b"), cells=1, steps=3, step_outputs=2, primitives=("sum", "attention")),
        FusionSpace(inputs=("a", "b"), cells=2, steps=2, primitives=("concat_fc",)),
    ],
)
def test_equality_is_renaming_and_nothing_else(space: FusionSpace) -> None:
    """Equal exactly if cells, and the steps of single cells, can be reordered into each other."""
    everything = written(space)
    index = {genotype.to_json(): i for i, genotype in enumerate(everything)}
    group = list(range(len(everything)))

    def find(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    def same(genotype: Genotype, other: Any) -> None:
        if other is not None:
            group[find(index[other.to_json()])] = find(index[genotype.to_json()])

    as_is = tuple(range(space.steps))
    for genotype in everything:
        for order in orders(space.cells, space.cell_outputs):
            same(genotype, renamed(genotype, order, as_is))
        for i, cell in enumerate(genotype.cells):  # one cell at a time
            for order in orders(space.steps, space.step_outputs):
                single = Genotype.model_construct(
                    space=FusionSpace(**{**space.model_dump(), "cells": 1, "cell_outputs": 1}),
                    cells=(CellGenotype(inputs=space.pairs(0)[0], steps=cell.steps),),
                )
                other = renamed(single, (0,), order)
                if other is not None:
                    new = CellGenotype(inputs=cell.inputs, steps=other.cells[0].steps)
                    cells = (*genotype.cells[:i], new, *genotype.cells[i + 1 :])
                    same(genotype, Genotype(space=space, cells=cells))
            for t, step in enumerate(cell.steps):  # and one pair of inputs at a time
                if step.primitive != "attention":
                    swapped = StepGenotype(inputs=step.inputs[::-1], primitive=step.primitive)
                    new = CellGenotype(inputs=cell.inputs, steps=(*cell.steps[:t], swapped, *cell.steps[t + 1 :]))
                    cells = (*genotype.cells[:i], new, *genotype.cells[i + 1 :])
                    same(genotype, Genotype(space=space, cells=cells))
    by_renaming = {find(i) for i in range(len(everything))}
    assert len(by_renaming) == len(set(everything)) == space.size()


def test_order_of_inputs_matters_to_attention_only() -> None:
    def one(primitive: str, first: str, second: str) -> Genotype:
        space = FusionSpace(inputs=("a", "b"), cells=1, primitives=("attention", "sum", "my.Own"))
        return make(space, (("a", "b"), [(primitive, first, second)]))

    assert one("sum", "x", "y") == one("sum", "y", "x")
    assert one("attention", "x", "y") != one("attention", "y", "x")
    assert one("my.Own", "x", "y") != one("my.Own", "y", "x")


def test_cells_swap_only_where_x_stays_the_earlier_one() -> None:
    space = FusionSpace(inputs=("a", "b", "c"), cells=3, cell_outputs=1)
    first, second = (("a", "b"), SUM), (("b", "c"), SUM)
    last = (("cell0", "cell1"), SUM)  # the residual comes from cell0
    assert make(space, first, second, last) != make(space, second, first, last)
    side_by_side = FusionSpace(inputs=("a", "b", "c"))
    assert make(side_by_side, first, second) == make(side_by_side, second, first)


def test_zero_reads_nothing() -> None:
    space = FusionSpace(inputs=("a", "b", "c"), cells=1, primitives=("zero", "sum"))
    zero = [("zero", "x", "y")]
    assert make(space, (("a", "b"), zero)) == make(space, (("a", "c"), [("zero", "y", "x")]))
    assert make(space, (("a", "b"), zero)) != make(space, (("b", "c"), zero))
    assert make(space, (("a", "b"), zero)).modalities_read() == {"a"}
    assert make(space, (("a", "b"), SUM)).modalities_read() == {"a", "b"}


def test_one_input_is_both_x_and_y() -> None:
    space = FusionSpace(inputs=("a",), cells=1, steps=2, primitives=("sum", "attention"))
    one = make(space, (("a", "a"), [("attention", "x", "y"), ("sum", "x", "step0")]))
    two = make(space, (("a", "a"), [("attention", "y", "x"), ("sum", "step0", "y")]))
    assert one == two
    assert one.canonical().cells == two.canonical().cells


def test_equality_looks_at_the_network() -> None:
    larger = FusionSpace(**{**SPACE.model_dump(), "primitives": ("sum", "attention")})
    assert Genotype(space=larger, cells=GENOTYPE.cells) == GENOTYPE
    wider = FusionSpace(**{**SPACE.model_dump(), "channels": 64})
    assert Genotype(space=wider, cells=GENOTYPE.cells) != GENOTYPE
    assert GENOTYPE != "genotype"


def test_bmnas_genotypes_may_hold_dead_code() -> None:
    space = FusionSpace(inputs=("a", "b", "c"), cells=3, cell_outputs=2)
    dead: Cell = (("a", "c"), SUM)
    rest: list[Cell] = [(("a", "b"), SUM), (("b", "cell1"), SUM)]
    with pytest.raises(GenotypeError, match=r"cells\[0\]: dead: it does not reach the network"):
        make(space, dead, *rest)
    genotype = make(space, dead, *rest, compatibility="bmnas")
    other: Cell = (("b", "c"), [("concat_fc", "x", "y")])
    assert genotype == make(space, other, *rest, compatibility="bmnas")
    assert genotype.modalities_read() == {"a", "b"}
    assert genotype.canonical() == genotype
    assert genotype.canonical().cells == genotype.canonical().canonical().cells
    assert Genotype.from_json(genotype.to_json()).cells == genotype.cells
    smaller = FusionSpace(inputs=("a", "b", "c"), cells=2, cell_outputs=2)
    assert genotype == make(smaller, rest[0], (("b", "cell0"), SUM))


def test_written_order_is_kept() -> None:
    genotype = make(SPACE, (("image/1", "text"), [("sum", "y", "x")]), (("image/0", "text"), SUM))
    assert genotype.cells[0].inputs == ("image/1", "text")
    assert genotype.cells[0].steps[0].inputs == ("y", "x")
    copy = Genotype.from_json(genotype.to_json())
    assert copy.cells == genotype.cells
    assert genotype.canonical().cells[0].inputs == ("image/0", "text")
    assert genotype.canonical().cells[0].steps[0].inputs == ("x", "y")


def test_describe() -> None:
    assert GENOTYPE.describe().splitlines() == [
        "cell0 = norm(step0 + x) with x = image/1, y = text",
        "  step0 = attention(y, x)",
        "cell1 = norm(step0 + x) with x = image/0, y = cell0",
        "  step0 = sum(x, y)",
        "output = cell0, cell1; reads image, text",
    ]
    space = FusionSpace(inputs=("a", "b"), cells=1, steps=2, primitives=("sum",))
    text = make(space, (("a", "b"), SUM * 2)).describe()
    assert text.startswith("cell0 = norm(merge(step0, step1) + x)")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([(("image/1", "text"), SUM)], "cells: 1 given, but the space has 2"),
        (
            [(("image/1", "text"), SUM), (("txet", "text"), SUM)],
            r"cells\[1\].inputs\[0\]: 'txet' cannot be read here; accepted: image/0, .*, cell0",
        ),
        ([(("text", "cell0"), SUM)] * 2, r"cells\[0\].inputs\[1\]: 'cell0' cannot be read here"),
        ([(("text", "image/0"), SUM)] * 2, r"cells\[0\].inputs: .* the earlier of"),
        ([(("text", "text"), SUM)] * 2, r"cells\[0\].inputs: .* two different names"),
        ([(("image/0", "text"), SUM * 2)] * 2, r"cells\[0\].steps: 2 given, but the space has 1"),
        (
            [(("image/0", "text"), [("sum", "x", "step3")])] * 2,
            r"cells\[0\].steps\[0\].inputs\[1\]: 'step3' cannot be read here; accepted: x, y",
        ),
        ([(("image/0", "text"), [("sum", "x", "x")])] * 2, r"steps\[0\].inputs: 'x' twice"),
        (
            [(("image/0", "text"), [("zero", "x", "y")])] * 2,
            r"steps\[0\].primitive: 'zero' is not in the space; accepted: sum, attention",
        ),
    ],
)
def test_illegal_genotypes_name_the_place(cells: list[Cell], message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        make(SPACE, *cells)


def test_dead_steps_are_illegal() -> None:
    space = FusionSpace(inputs=("a", "b"), cells=1, steps=2, step_outputs=1, primitives=("sum", "zero"))
    message = r"cells\[0\].steps\[0\]: dead: it does not reach the cell's output"
    with pytest.raises(GenotypeError, match=message):
        make(space, (("a", "b"), SUM * 2))
    with pytest.raises(GenotypeError, match=message):
        make(space, (("a", "b"), [*SUM, ("zero", "x", "step0")]))


@settings(max_examples=40, deadline=None)
@given(small_spaces(most=3000), st.integers(0, 2**32), st.data())
def test_broken_genotypes_are_found(space: FusionSpace, seed: int, data: st.DataObject) -> None:
    genotype = drawn(space, seed)
    cells = genotype.model_dump()["cells"]
    i = data.draw(st.integers(0, space.cells - 1))
    t = data.draw(st.integers(0, space.steps - 1))
    place = f"cells[{i}].steps[{t}]"
    match data.draw(st.sampled_from(["step", "primitive", "cell", "missing"])):
        case "step":
            cells[i]["steps"][t]["inputs"] = ("x", f"step{t}")
            expected = f"{place}.inputs[1]: 'step{t}'"
        case "primitive":
            cells[i]["steps"][t]["primitive"] = "Sum"
            expected = f"{place}.primitive: 'Sum'"
        case "cell":
            cells[i]["inputs"] = (f"cell{i}", "z")
            expected = f"cells[{i}].inputs[0]: 'cell{i}'"
        case _:
            cells = cells[:-1]
            expected = f"cells: {space.cells - 1} given"
    with pytest.raises(GenotypeError) as caught:
        Genotype(space=space, cells=cells)
    assert expected in str(caught.value)
    broken = Genotype.model_construct(
        space=space, cells=tuple(CellGenotype(**cell) for cell in cells), compatibility=None
    )
    with pytest.raises(GenotypeError) as caught:
        space.validate(broken)
    assert expected in str(caught.value)


def test_another_space() -> None:
    other = FusionSpace(inputs=("image/0", "audio"), channels=64)
    message = (
        r"another space: inputs differ: \[image/0, image/1, text\] in the genotype,"
        r" \[image/0, audio\] expected; channels differ: 32 in the genotype, 64 expected$"
    )
    with pytest.raises(GenotypeError, match=message):
        GENOTYPE.require_space(other)
    with pytest.raises(GenotypeError, match="another space"):
        other.validate(GENOTYPE)
    GENOTYPE.require_space(SPACE)
    SPACE.validate(GENOTYPE)
