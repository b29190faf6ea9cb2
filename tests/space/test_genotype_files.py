"""Genotypes outside: immutable values, JSON, files that are damaged."""

import json
import pickle
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.space.genotype import FusionSpace, Genotype
from tests.space.test_genotype import GENOTYPE, drawn, make
from tests.space.test_space import small_spaces


def test_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        GENOTYPE.cells = ()
    assert pickle.loads(pickle.dumps(GENOTYPE)) == GENOTYPE


@settings(max_examples=30, deadline=None)
@given(small_spaces(most=3000), st.integers(0, 2**32))
def test_json_round_trip(space: FusionSpace, seed: int) -> None:
    genotype = drawn(space, seed)
    copy = Genotype.from_json(genotype.to_json(indent=None))
    assert (copy.space, copy.cells) == (genotype.space, genotype.cells)
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(json.loads(genotype.to_json()), Genotype.json_schema())


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "new" / "genotype.json"
    GENOTYPE.save(path)
    assert Genotype.load(path) == GENOTYPE
    GENOTYPE.canonical().save(str(path))
    assert [file.name for file in path.parent.iterdir()] == ["genotype.json"]
    data = json.loads(path.read_text(encoding="utf-8"))
    assert list(data) == ["schema_version", "space", "cells"]
    with pytest.raises(GenotypeError, match="cannot be written"):
        GENOTYPE.save(path / "below_a_file.json")


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "genotype.json"
    GENOTYPE.save(path)
    before = path.read_bytes()

    def full(self: Path, *_: object, **__: object) -> None:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(GenotypeError, match=r"genotype\.json: cannot be written: No space left"):
        GENOTYPE.canonical().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def edited(**changes: object) -> str:
    return json.dumps(json.loads(GENOTYPE.to_json()) | changes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON: Expecting value at line 1, column 1"),
        ('{"schema_version": 1,\n  "space": }', "not JSON: Expecting value at line 2, column 12"),
        ("[" * 100_000, "not JSON"),
        ("9" * 10_000, "not JSON"),
        ("[]", "a list where an object is needed"),
        ('{"schema_version": 1, "schema_version": 1}', "the key 'schema_version' appears twice"),
        ("{}", "schema_version: None is unknown; accepted: 1"),
        (edited(schema_version=2), "schema_version: 2 is unknown; accepted: 1 .*newer"),
        (edited(schema_version=True), "schema_version: True is unknown"),
        (edited(cellz=[]), "cellz: unknown key"),
        (edited(cells=None), "cells: input should be a valid tuple, but None was given"),
        (edited(cells=[{"inputs": ["text"]}]), r"cells\[0\].inputs\[1\]: missing"),
        (edited(compatibility="darts"), "compatibility: input should be 'bmnas'"),
        (edited(space={"inputs": ["a", 1]}), r"space.inputs\[1\]: input should be a valid string"),
        (edited(space={"inputs": ["a", "a"]}), "space: inputs: 'a' given more than once"),
        (edited(space={"inputs": ["a"], "cells": "2"}), "space: cells: '2' is not a whole number"),
        (edited(cells=[]), "cells: 0 given, but the space has 2"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(GenotypeError, match=message) as caught:
        Genotype.load(path)
    assert str(caught.value).startswith(f"{path}: ")
    with pytest.raises(GenotypeError, match=f"^genotype: .*{message}"):
        Genotype.from_json(text)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(GenotypeError, match=r"none\.json: no such file; .* search stage"):
        Genotype.load(tmp_path / "none.json")
    with pytest.raises(GenotypeError, match="cannot be read"):
        Genotype.load(tmp_path)
    (tmp_path / "latin.json").write_bytes(b'{"inputs": "\xe9"}')
    with pytest.raises(GenotypeError, match=r"latin\.json: not UTF-8 at byte 12"):
        Genotype.load(tmp_path / "latin.json")


def test_reading_a_genotype_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap_module.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(tmp_path)
    space = FusionSpace(inputs=("a", "b"), cells=1, primitives=("trap_module.Primitive",))
    genotype = make(space, (("a", "b"), [("trap_module.Primitive", "x", "y")]))
    copy = Genotype.from_json(genotype.to_json())
    assert copy == genotype.canonical()
    assert space.size() == 2
    assert "trap_module" not in sys.modules
