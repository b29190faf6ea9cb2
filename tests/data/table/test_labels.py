"""Classes out of cells, whatever their spelling."""

import datetime
import json
import random
import unicodedata
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mmnas.data.table.label_notes import label_notes
from lightning_mmnas.data.table.labels import (
    Classes,
    cell_classes,
    class_names,
    encode_classes,
    known_classes,
    read_classes,
)
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.errors import DataError
from tests.data.table.test_table import built, numbers, write

NFC, NFD = unicodedata.normalize("NFC", "caf\u00e9"), unicodedata.normalize("NFD", "caf\u00e9")


def table(cells: list[Any]) -> Table:
    return Table(Path("t.csv"), {"y": cells}, range(2, 2 + len(cells)))


def read(cells: list[Any], separator: str | None = None) -> list[Classes | None]:
    return read_classes(table(cells), "y", separator)[0]


def notes(cells: list[Any], separator: str | None = None) -> list[str]:
    return label_notes(table(cells), "y", *read_classes(table(cells), "y", separator))


@pytest.mark.parametrize(
    ("cell", "name"),
    [
        ("1", "1"),
        ("1.0", "1"),
        (1, "1"),
        (1.0, "1"),
        (Decimal("1.00"), "1"),
        (np.int64(1), "1"),
        (np.float32(1), "1"),
        ("-0.0", "0"),
        ("-3.0", "-3"),
        ("01", "01"),
        ("01.0", "01"),
        ("--1", "--1"),
        ("1.5", "1.5"),
        (1.5, "1.5"),
        ("\u00b2", "\u00b2"),
        ("\u0661", "\u0661"),
        (NFD, NFC),
        ("  cat\t", "cat"),
        ("\u00a0cat", "cat"),
        (True, "True"),
        ("true", "True"),
        ("FALSE", "False"),
        (np.bool_(False), "False"),
        ("None", "None"),
        ("none", "none"),
        ("Na", "Na"),
        ("[/b]", "[/b]"),
        ("[b]cat", "[b]cat"),
        ("[cat]", "[cat]"),
        ("(a)", "(a)"),
        ("{x}", "{x}"),
        (datetime.date(2024, 1, 31), "2024-01-31"),
        ("2024-01-31", "2024-01-31"),
    ],
)
def test_one_class(cell: Any, name: str) -> None:
    assert cell_classes(cell, None, False, "here") == (name,)


def test_spellings_of_missing_are_no_classes() -> None:
    spelt = ["", " ", "?", "nan", "NaN", "NA", "N/A", "n/a", "#N/A", "<NA>", "null", "NULL", "NaT"]
    words = [None, "-", "None", "none", "cat"]
    assert read([*spelt, *words]) == [None] * len(spelt) + [None, ("-",), ("None",), ("none",), ("cat",)]


@pytest.mark.parametrize("cell", [None, "", " ", float("nan"), np.float32("nan"), Decimal("NaN")])
def test_what_is_missing_is_no_class(cell: Any) -> None:
    assert cell_classes(cell, None, False, "here") is None
    assert cell_classes(cell, "|", True, "here") is None


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("['cat', 'dog']", ("cat", "dog")),
        ('["cat", "dog"]', ("cat", "dog")),
        ("['cat' 'dog']", ("cat", "dog")),
        ("['cat'\n 'dog']", ("cat", "dog")),
        ("('cat', 'dog')", ("cat", "dog")),
        ("{'cat', 'dog'}", ("cat", "dog")),
        ("['cat',]", ("cat",)),
        ("['it\\'s', \"o'k\", 'a, b', 'x]']", ("it's", "o'k", "a, b", "x]")),
        ("['\\u00e9', 'e\u0301a']", ("\u00e9", "\u00e9a")),
        ("[1, 2.0]", ("1", "2")),
        ("[1 2]", ("1", "2")),
        ("[1. 2.]", ("1", "2")),
        ("[True, False]", ("True", "False")),
        ("[]", ()),
        (["cat", 1.0], ("cat", "1")),
        (("cat",), ("cat",)),
        (np.array(["cat", "dog"]), ("cat", "dog")),
        (np.array([1.0, 2.0]), ("1", "2")),
    ],
)
def test_lists(cell: Any, names: Classes) -> None:
    assert cell_classes(cell, None, True, "here") == names
    assert cell_classes(cell, "|", True, "here") == names  # a list needs no separator


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("['cat', dog]", "looks like a list, but is none"),
        ("[cat, dog]", "looks like a list, but is none"),
        ("['cat''dog']", "looks like a list, but is none"),
        ("['cat' 'dog', 'bird']", "looks like a list, but is none"),
        ("array(['cat'], dtype=object)", "looks like a list, but is none"),
        ("['cat' ... 'dog']", "looks like a list, but is none"),
        ("[__import__('os').system('x'), 1]", "looks like a list, but is none"),
        ('{"cat": 1, "dog": 2}', "looks like a list, but is none"),
        ("['\\x', 'a']", "cannot be read"),
        ('["cat", null]', "None is no class or group"),
        ('["cat", ["dog"]]', r"\['dog'\] is no class or group"),
        ("['cat', '']", "'' is no class or group"),
        ("[1, 1.0]", r"a class occurs twice in \['1', '1'\]"),
        ("['" + "a" * 100_001 + "']", "a list of 100005 characters is too long"),
        ("cat", "'cat' is no list, as other labels are"),
    ],
)
def test_lists_that_cannot_be_read_are_named(cell: str, message: str) -> None:
    with pytest.raises(DataError, match=f"here: .*{message}") as caught:
        cell_classes(cell, None, True, "here")
    assert len(str(caught.value)) < 250


def test_cells_that_are_no_class() -> None:
    for cell in (b"cat", {"a": 1}, float("inf"), object()):
        with pytest.raises(DataError, match=r"line 4, column 'y': .* is no class or group"):
            read(["a", "b", cell])
    with pytest.raises(DataError, match="'' is no class or group"):
        read(["a|b", "a|"], "|")
    with pytest.raises(DataError, match=r"no row has a label in column 'y'; leave label out"):
        read([None, "nan", "NA"])


def test_classes_are_one_whatever_the_type() -> None:
    assert read(["1", "1.0", 1, 1.0, "2", None]) == [("1",)] * 4 + [("2",), None]
    assert read([True, "true", "TRUE", "no"]) == [("True",)] * 3 + [("no",)]
    assert read(["['cat', 'dog']", '["cat"]', "nan"]) == [("cat", "dog"), ("cat",), None]
    assert read(["a| b", "b"], "|") == [("a", "b"), ("b",)]


def test_whole_numbers_are_sorted_by_value() -> None:
    rows: list[Classes | None] = [(name,) for name in ("10", "9", "-1", "09")]
    assert class_names(rows) == ["-1", "09", "9", "10"]
    assert class_names([*rows, ("--1",)]) == ["--1", "-1", "09", "10", "9"]
    assert class_names([("\u00b2",), ("1" * 5000,), ("3",)]) == ["1" * 5000, "3", "\u00b2"]
    labels = encode_classes([("9",), None, ("-1",)], class_names(rows), False)
    assert labels.tolist() == [2, -1, 0]
    several = encode_classes([("a", "c"), None, (), ("b",)], ["a", "b", "c"], True)
    assert several.tolist() == [[1, 0, 1], [-1, -1, -1], [0, 0, 0], [0, 1, 0]]
    assert encode_classes([None, ()], ["a"], True).tolist() == [[-1], [0]]


def test_values_against_plain_python(tmp_path: Path) -> None:
    """Random spellings of known classes; the label of every row is that of its class."""
    draw = random.Random(0)
    spellings: dict[str, list[Any]] = {
        "1": ["1", "1.0", " 1", 1, 1.0],
        "True": ["true", "True", True],
        NFC: [NFC, NFD, f"{NFC} "],
        "dog": ["dog", "dog\n"],
    }
    names = sorted(spellings)
    truth = [draw.choice([*names, None]) for _ in range(120)]
    place: dict[str | None, int] = {None: -1, **{name: index for index, name in enumerate(names)}}
    missing = [None, "nan", "NA", "?", ""]
    rows = [
        row | {"y": draw.choice(missing) if name is None else draw.choice(spellings[name])}
        for row, name in zip(numbers(120), truth, strict=True)
    ]
    data = built(write(tmp_path / "t.jsonl", rows), label="y", labels=False)
    assert data.class_names == names
    for split in data.rows:
        labels = data.source(split).labels
        assert labels is not None
        assert labels.tolist() == [place[truth[row]] for row in data.rows[split]]


def test_amounts_are_no_classes() -> None:
    draw = random.Random(0)
    with pytest.raises(
        DataError,
        match=r"'y' holds \d+ different numbers in 300 rows.*set data.init_args.task to regression.*leave label out",
    ):
        read([f"{draw.uniform(0, 10):.1f}" for _ in range(300)])
    with pytest.raises(DataError, match="amounts, not classes"):
        read([0.5, 1.5, 2.0, 2.5])
    stars = [str(draw.randint(1, 10) / 2) for _ in range(300)]
    assert class_names(read(stars)) == ["0.5", "1", "1.5", "2", "2.5", "3", "3.5", "4", "4.5", "5"]
    assert len(class_names(read(list(range(300))))) == 300
    quarters = [i % 40 / 4 for i in range(400)]  # ten rows of each
    assert len(class_names(read(quarters))) == 40
    with pytest.raises(DataError, match="amounts, not classes"):
        read(quarters[:399])


def test_long_numbers_take_no_time_and_little_room() -> None:
    digits = "9" * 100_000
    with pytest.raises(DataError, match=r"such as '9+\.\.\.: amounts") as caught:
        read([f"{digits}.5", f"{digits}.5"[1:], "2"])
    assert len(str(caught.value)) < 400
    assert read([f"{digits}x"]) == [(f"{digits}x",)]
    assert class_names(read([digits, "2"])) == ["2", digits]


def test_what_is_told() -> None:
    cells = ["Cat"] * 3 + ["cat"] * 2 + ["1", "1.0", "01", "none", "nan", "NA", "NA", "ca\u200bt"]
    told = notes(cells)
    assert all(note.startswith("t.csv, column 'y': ") for note in told)
    text = "\n".join(told)
    assert "'nan' (1 row), 'NA' (2 rows) is read as no label" in text
    assert "'none' (1 row) is a class as any other" in text
    assert "'1' (1 row), '1.0' (1 row) are one class, '1'" in text
    assert "'Cat' (3 rows), 'cat' (2 rows), 'ca\\u200bt' (1 row)" in text
    assert "'01' (1 row), '1' (2 rows)" in text
    assert "'caf\\xe9' (1 row)" not in text
    assert notes([NFC, NFD, "x"]) == [
        f"t.csv, column 'y': {NFC!r} (1 row), 'cafe\\u0301' (1 row) are one class, {NFC!r}"
    ]
    assert notes(["a", "b", " a", None, 3, "-3", "new-york"]) == []


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["cat|dog", "bird", "fish"], "|"),
        (["cat, dog", "cat", "dog"], ","),
        (["a;b", "b;c", "x"], ";"),
        (["Paris, France", "Berlin, Germany"], None),
        (["and/or", "n/m"], None),
        (["C++", "C"], None),
    ],
)
def test_separators_are_noticed(cells: list[str], separator: str | None) -> None:
    told = [note for note in notes(cells) if "label_separator" in note]
    assert len(told) == (separator is not None)
    assert all(f"set data.init_args.label_separator to {separator!r}" in note for note in told)


def test_a_model_reads_labels_as_training_did() -> None:
    known = known_classes(["1", "True", NFC, "cat"])
    for cell, name in ((1.0, "1"), ("1.0", "1"), ("TRUE", "True"), (NFD, NFC), (" cat", "cat")):
        assert cell_classes(cell, None, False, "here", known) == (name,)
    assert cell_classes(None, None, False, "here", known) is None
    assert cell_classes("dog", None, False, "here", known) == ("dog",)
    # Classes of a model from when spellings were not yet one.
    old = known_classes(["1", "1.0", "nan", "true", "['cat', 'dog']", NFD])
    for name in ("1", "1.0", "nan", "true", "['cat', 'dog']", NFD):
        assert cell_classes(name, None, False, "here", old) == (name,)
    assert cell_classes(True, None, False, "here", old) == ("true",)
    assert cell_classes(["1.0", "true"], None, True, "here", old) == ("1.0", "true")


def test_a_million_rows_are_read_in_linear_time() -> None:
    cells = [f"class {i % 1000}" for i in range(200_000)]
    found = read(cells)
    assert Counter(found) == {(f"class {i}",): 200 for i in range(1000)}
    assert json.dumps(class_names(found)) == json.dumps(sorted(set(cells)))
    labels = encode_classes(found, class_names(found), False)
    assert torch.equal(labels.bincount(), torch.full((1000,), 200))


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([[0, 1], [1, 0], None], r"row 2.*\[0, 1\] is a zero or a one for each class.*\[\"cat\", \"dog\"\]"),
        (["[1, 0, 0]", "[0 1 0]", ""], "is a zero or a one for each class"),
        ([[True, False], [False, True]], "is a zero or a one for each class"),
        ([[0.25, 0.75], [1, 0]], r"\[0\.25, 0\.75\] is a list of amounts, and names no classes"),
        ([[1, 0], [14.5]], r"row 3.*\[14\.5\] is a list of amounts"),
    ],
)
def test_lists_of_numbers_that_name_no_classes(cells: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message.replace("row", "line")):
        read(cells)


def test_lists_of_class_numbers_are_classes() -> None:
    assert read([[0], [1], [], None]) == [("0",), ("1",), (), None]
    assert read([[0, 2], [1, 0]]) == [("0", "2"), ("1", "0")]
    assert read([[0, 1], [1]]) == [("0", "1"), ("1",)]


def test_truth_values_beside_numbers_are_told() -> None:
    assert "'0' (1 row), 'False' (1 row); '1' (1 row), 'True' (1 row)" in notes([True, 0, 1, False])[0]
