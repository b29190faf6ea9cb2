"""FusionSpace: validation, sizes, enumeration and uniform sampling."""

import time
from collections import Counter
from itertools import permutations, product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.space.genotype import CellGenotype, FusionSpace, Genotype, StepGenotype

PUBLISHED = ("sum", "attention", "linear_glu", "concat_fc")


def inputs(count: int) -> tuple[str, ...]:
    return tuple(f"{'abc'[i % 3]}/{i // 3}" for i in range(count))


def written(space: FusionSpace) -> list[Genotype]:
    """All legal genotypes of a space, in every way they can be written down."""
    steps = [
        [
            StepGenotype(inputs=pair, primitive=primitive)
            for pair in permutations(space.step_candidates(t), 2)
            for primitive in space.primitives
        ]
        for t in range(space.steps)
    ]
    programs = list(product(*steps))
    genotypes = []
    for pairs in product(*(space.pairs(i) for i in range(space.cells))):
        for chosen in product(programs, repeat=space.cells):
            cells = zip(pairs, chosen, strict=True)
            try:
                genotypes.append(
                    Genotype(
                        space=space,
                        cells=tuple(CellGenotype(inputs=pair, steps=own) for pair, own in cells),
                    )
                )
            except GenotypeError:  # dead code
                continue
    return genotypes


def raw(space: FusionSpace) -> int:
    """How many ways `written` tries."""
    count = 1
    for i in range(space.cells):
        count *= len(space.pairs(i))
        for t in range(space.steps):
            count *= (2 + t) * (1 + t) * len(space.primitives)
    return count


@st.composite
def small_spaces(draw: st.DrawFn, most: int = 400) -> FusionSpace:
    """Spaces with up to `most` ways to write a genotype down."""
    cells, steps = draw(st.sampled_from([(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 1), (4, 1)]))
    names = ("zero", "sum", "attention", "concat_fc", "some.module.Primitive")
    space = FusionSpace(
        inputs=inputs(draw(st.integers(1, 3))),
        cells=cells,
        steps=steps,
        cell_outputs=draw(st.integers(1, cells)),
        step_outputs=draw(st.integers(1, steps)),
        primitives=tuple(draw(st.lists(st.sampled_from(names), min_size=1, unique=True))),
    )
    while raw(space) > most and len(space.primitives) > 1:
        space = FusionSpace(**{**space.model_dump(), "primitives": space.primitives[:-1]})
    while raw(space) > most and len(space.inputs) > 1:
        space = FusionSpace(**{**space.model_dump(), "inputs": space.inputs[:-1]})
    return space


def test_defaults() -> None:
    space = FusionSpace(inputs=("image/0", "image/1", "text"))
    assert (space.cells, space.steps, space.cell_outputs, space.step_outputs) == (2, 1, 2, 1)
    assert space.modalities == ("image", "text")
    assert space.modality_of("a/b/2") == "a/b"
    assert space.candidates(1) == ("image/0", "image/1", "text", "cell0")
    assert space.pairs(1)[-1] == ("text", "cell0")
    assert FusionSpace(inputs=("text",)).pairs(0) == [("text", "text")]
    assert hash(space) == hash(FusionSpace(inputs=("image/0", "image/1", "text")))


def test_variants_of_a_pair() -> None:
    space = FusionSpace(inputs=("a", "b"), primitives=("sum", "attention", "my.own.Primitive"))
    assert space.variants(("x", "step0")) == [
        (("x", "step0"), "sum"),
        (("x", "step0"), "attention"),
        (("step0", "x"), "attention"),
        (("x", "step0"), "my.own.Primitive"),
        (("step0", "x"), "my.own.Primitive"),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"inputs": ()}, "inputs: empty"),
        ({"inputs": ("a", "b", "a")}, "inputs: 'a' given more than once"),
        ({"inputs": ("a", "cell0")}, r"inputs\[1\]: 'cell0' is reserved"),
        ({"inputs": ("x",)}, r"inputs\[0\]: 'x' is reserved"),
        ({"inputs": ("step12",)}, "'step12' is reserved"),
        ({"inputs": ("",)}, r"inputs\[0\]: '' is not"),
        ({"inputs": ("image/",)}, "'image/' is not '<modality>/<level>'"),
        ({"inputs": ("/0",)}, "'/0' is not"),
        ({"inputs": (" a",)}, "' a' is not"),
        ({"inputs": ("a\nb",)}, "do not print"),
        ({"inputs": (3,)}, r"inputs\[0\]: input should be a valid string, but 3 was given"),
        ({"cells": 0}, "cells: 0 is not a whole number of at least 1"),
        ({"steps": 1.0}, "steps: 1.0 is not a whole number"),
        ({"length": True}, "length: True is not a whole number"),
        ({"channels": "32"}, "channels: '32' is not a whole number"),
        ({"channels": None}, "channels: None is not a whole number"),
        ({"cell_outputs": 3}, r"cell_outputs: 3 is more than cells \(2\)"),
        ({"step_outputs": 0}, "step_outputs: 0 is not"),
        ({"primitives": ()}, "primitives: empty"),
        ({"primitives": ("sum", "sum")}, "primitives: 'sum' given more than once"),
        ({"primitives": ("summ",)}, r"primitives\[0\]: 'summ' is unknown; accepted: zero, sum"),
        ({"primitives": ("os.system('x')",)}, "is unknown"),
        ({"cell": 2}, "cell: unknown key"),
    ],
)
def test_bad_spaces(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(GenotypeError, match=message):
        FusionSpace(**{"inputs": ("a", "b"), **arguments})  # type: ignore[arg-type]


def test_class_paths_are_not_imported() -> None:
    space = FusionSpace(inputs=("a", "b"), primitives=("no_such_module.Primitive",))
    assert space.size() == 2 * 3 // 2 + 2 * 4  # two like cells, or the second reads the first
    assert space.sample(torch.Generator()).cells[0].steps[0].primitive == "no_such_module.Primitive"


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(small_spaces())
def test_size_enumerate_and_brute_force_agree(space: FusionSpace) -> None:
    listed = list(space.enumerate())
    assert len(listed) == len(set(listed)) == space.size()
    assert set(listed) == set(written(space))
    assert space.size() <= space.raw_size()
    for genotype in listed:
        assert genotype.canonical().cells == genotype.cells
        space.validate(genotype)


@pytest.mark.parametrize("count", [2, 3, 6])
@pytest.mark.parametrize("steps", [1, 2])
def test_one_cell_in_closed_form(count: int, steps: int) -> None:
    space = FusionSpace(inputs=inputs(count), cells=1, steps=steps, primitives=PUBLISHED)
    pairs, ways = count * (count - 1) // 2, 3 + 2
    # The second of two steps reads one of three pairs; two steps that both read (x, y) may swap.
    programs = ways if steps == 1 else ways * (ways + 1) // 2 + 2 * ways * ways
    assert space.size() == pairs * programs


def test_two_cells_in_closed_form() -> None:
    space = FusionSpace(inputs=inputs(6), primitives=PUBLISHED)
    ways = 5
    apart = 15 * ways  # a cell that reads two inputs
    assert space.size() == apart * (apart + 1) // 2 + apart * 6 * ways
    assert space.raw_size() == 15 * 21 * ways**2


def test_only_the_last_cell_is_an_output() -> None:
    space = FusionSpace(inputs=inputs(4), cells=2, cell_outputs=1, primitives=("sum",))
    assert space.size() == 6 * 4  # the second cell must read the first


@pytest.mark.parametrize(
    ("arguments", "size"),
    [  # the settings published with BM-NAS
        ({"inputs": inputs(6)}, 5_100),
        ({"inputs": inputs(8), "steps": 2}, 2_603_510),
        ({"inputs": inputs(8), "steps": 3}, 1_173_129_720),
    ],
)
def test_published_spaces_are_counted_quickly(arguments: dict[str, object], size: int) -> None:
    begin = time.perf_counter()
    space = FusionSpace(**arguments, primitives=PUBLISHED, channels=7)  # type: ignore[arg-type]
    assert space.size() == size
    assert time.perf_counter() - begin < 2
    genotype = space.sample(torch.Generator().manual_seed(0))
    assert genotype == space.sample(torch.Generator().manual_seed(0))
    space.validate(genotype)


def test_too_large_spaces_say_so() -> None:
    space = FusionSpace(inputs=inputs(3), cells=12, cell_outputs=1)
    with pytest.raises(GenotypeError, match=r"too large .* at most [\d,]+ \(raw_size\)"):
        space.size()
    with pytest.raises(GenotypeError, match="too large"):
        space.sample(torch.Generator())


def test_empty_spaces_say_so() -> None:
    space = FusionSpace(inputs=("a", "b"), cell_outputs=1, primitives=("zero",))
    assert space.size() == 0
    assert list(space.enumerate()) == []
    with pytest.raises(GenotypeError, match="holds no network at all"):
        space.sample(torch.Generator())


@pytest.mark.parametrize(
    "space",
    [
        FusionSpace(inputs=("a", "b"), primitives=("sum", "attention")),
        FusionSpace(inputs=("a", "b"), cells=3, primitives=("sum",)),
        FusionSpace(inputs=("a",), cells=1, steps=3, step_outputs=2, primitives=("sum",)),
        FusionSpace(inputs=("a", "b"), cells=2, primitives=("zero", "concat_fc")),
    ],
)
def test_samples_are_uniform(space: FusionSpace) -> None:
    generator = torch.Generator().manual_seed(1)
    draws = 60 * space.size()
    counts = Counter(space.sample(generator) for _ in range(draws))
    expected = draws / space.size()
    assert set(counts) == set(space.enumerate())
    chi_square = sum((count - expected) ** 2 / expected for count in counts.values())
    freedom = space.size() - 1  # chi square has mean `freedom` and variance twice that
    assert abs(chi_square - freedom) < 4.5 * (2 * freedom) ** 0.5


@settings(max_examples=40, deadline=None)
@given(small_spaces(most=3000), st.integers(0, 2**32))
def test_samples_are_legal(space: FusionSpace, seed: int) -> None:
    if space.size():
        genotype = space.sample(torch.Generator().manual_seed(seed))
        space.validate(genotype)
        assert genotype.canonical().cells == genotype.cells
