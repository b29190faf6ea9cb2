"""Genotypes as parameters and back."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mmnas import FusionSpace, Genotype
from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.sampling.encoding import ChoiceEncoding, NumberEncoding

SPACES = [
    FusionSpace(inputs=("a", "b"), cells=2, primitives=("sum", "attention")),
    FusionSpace(inputs=("a/0", "a/1", "b"), cells=2, cell_outputs=1, primitives=("sum",)),
    FusionSpace(inputs=("a", "b"), cells=1, steps=2, step_outputs=1, primitives=("sum", "attention")),
    FusionSpace(inputs=("a", "b"), cells=2, steps=2, step_outputs=1, cell_outputs=1, primitives=("concat_fc",)),
    FusionSpace(inputs=("a",), cells=2, primitives=("zero", "attention")),
    FusionSpace(inputs=("a", "b"), cells=2, cell_outputs=1, primitives=("zero", "sum")),
]


def every(encoding: ChoiceEncoding) -> list[dict[str, str]]:
    names = list(encoding.choices)
    return [dict(zip(names, values, strict=True)) for values in product(*encoding.choices.values())]


@pytest.mark.parametrize("space", SPACES)
def test_every_network_has_parameters_that_give_it_back(space: FusionSpace) -> None:
    encoding = ChoiceEncoding(space)
    networks = list(space.enumerate())
    assert [encoding.decode(encoding.encode(genotype)) for genotype in networks] == networks
    for genotype in networks:
        assert set(encoding.encode(genotype)) == set(encoding.choices)
    assert {encoding.decode(values) for values in every(encoding)} == set(networks)


def test_number_of_ways_to_write() -> None:
    # Two cells over a, b: 1 and 3 pairs; a step is sum, or attention either way round.
    encoding = ChoiceEncoding(SPACES[0])
    assert len(every(encoding)) == SPACES[0].raw_size() == 1 * 3 * 3 * 3


def test_written_order_does_not_matter() -> None:
    space = SPACES[0]
    genotype = Genotype(
        space=space,
        cells=[
            {"inputs": ("a", "b"), "steps": [{"inputs": ("y", "x"), "primitive": "sum"}]},
            {"inputs": ("a", "cell0"), "steps": [{"inputs": ("y", "x"), "primitive": "attention"}]},
        ],  # type: ignore[arg-type]
    )
    values = ChoiceEncoding(space).encode(genotype)
    assert values["cell0.step0.primitive"] == "sum"
    assert values["cell1.step0.primitive"] == "attention swapped"
    assert ChoiceEncoding(space).decode(values) == genotype


def differences(first: dict[str, str], second: dict[str, str]) -> int:
    return sum(first[name] != second[name] for name in first)


@pytest.mark.parametrize("space", SPACES[1:4])
def test_dead_code_becomes_the_nearest_network(space: FusionSpace) -> None:
    encoding = ChoiceEncoding(space)
    legal = []
    for values in every(encoding):
        found = encoding.decode(values)
        if encoding.encode(found) == values:
            legal.append(values)
    assert len(legal) < len(every(encoding))
    for values in every(encoding):
        spelled = encoding.encode(encoding.decode(values))
        assert differences(values, spelled) == min(differences(values, other) for other in legal)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 3), st.data())
def test_larger_spaces(seed: int, cells: int, steps: int, data: st.DataObject) -> None:
    space = FusionSpace(
        inputs=("a/0", "a/1", "b c", "d"),
        cells=cells,
        steps=steps,
        cell_outputs=data.draw(st.integers(1, cells)),
        step_outputs=data.draw(st.integers(1, steps)),
        primitives=("sum", "attention", "zero", "my.Own"),
    )
    encoding = ChoiceEncoding(space)
    values = {name: data.draw(st.sampled_from(choices)) for name, choices in encoding.choices.items()}
    assert space.problem(encoding.decode(values)) is None
    genotype = space.sample(torch.Generator().manual_seed(seed))
    assert encoding.decode(encoding.encode(genotype)) == genotype


def test_names_that_could_be_mixed_up() -> None:
    space = FusionSpace(inputs=("a", "a, b", "b", "b, b"), cells=1, primitives=("sum",))
    assert len(set(ChoiceEncoding(space).choices["cell0.inputs"])) == 6


def test_wrong_values_are_named() -> None:
    encoding = ChoiceEncoding(SPACES[0])
    values = encoding.encode(next(SPACES[0].enumerate()))
    with pytest.raises(GenotypeError, match=r"cell0\.step0\.primitive: 'glue' is not in \['sum', 'attention'"):
        encoding.decode({**values, "cell0.step0.primitive": "glue"})
    with pytest.raises(GenotypeError, match=r"cell1\.inputs: None is not in"):
        encoding.decode({name: value for name, value in values.items() if name != "cell1.inputs"})
    with pytest.raises(GenotypeError, match="another space"):
        encoding.encode(next(SPACES[2].enumerate()))


def test_numbers_count_every_network_once() -> None:
    encoding = NumberEncoding(SPACES[0])
    found = [encoding.decode({"network": number}) for number in range(SPACES[0].size())]
    assert len(set(found)) == len(found) == len(encoding.networks)


def test_spaces_too_large_to_list_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumberEncoding, "LIMIT", 3)
    with pytest.raises(GenotypeError, match=r"has \d+ networks; up to 3 can be tried one by one"):
        NumberEncoding(SPACES[0])
