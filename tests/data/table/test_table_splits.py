"""Splits of a table: named by a column, or drawn."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mmnas.data.table.labels import Classes, class_names
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.data.table.splits import drawn_splits, given_splits, split_of
from lightning_mmnas.errors import DataError
from tests.data.table.test_table import built, numbers, write


def table(cells: list[Any]) -> Table:
    return Table(Path("t.csv"), {"s": cells}, range(2, 2 + len(cells)))


@pytest.mark.parametrize(
    ("cell", "split"),
    [
        ("train", "train"),
        (" TRAINING ", "train"),
        ("Train_Set", "train"),
        ("valid", "val"),
        ("Validate", "val"),
        ("validation split", "val"),
        ("dev", "val"),
        ("eval", "val"),
        ("Testing", "test"),
        ("test-data", "test"),
        ("hold-out", "test"),
        ("train2", None),
        ("", None),
        (None, None),
        (1, None),
        (True, None),
    ],
)
def test_names_of_splits(cell: Any, split: str | None) -> None:
    assert split_of(cell) == split


def test_usual_names_in_a_table(tmp_path: Path) -> None:
    names = ["Train", "TRAINING", "validate", "testing", "holdout"]
    rows = [row | {"s": names[i % 5]} for i, row in enumerate(numbers())]
    data = built(write(tmp_path / "t.csv", rows), split="s", label="y")
    assert data.rows == {split: [i for i in range(30) if i % 5 in which] for split, which in SPLITS.items()}


SPLITS = {"train": (0, 1), "val": (2,), "test": (3, 4)}


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (
            ["0", "1", "2", "3"],
            r"column 's': numbers from 0 to 3 are folds .*leave split out .*set data.init_args.group to 's'",
        ),
        ([0, 1, 10, 2], "numbers from 0 to 10 are folds"),
        (["train", None, "test", "nan"], r"column 's': 2 cell\(s\) are empty \(line 3, 5\).*leave split out"),
        ([None, None, None, ""], r"all cells are empty .*leave split out"),
        (["train", "test", "later", "later"], r"line 4, column 's': 'later' is not in .*\(2 such cell"),
        (
            ["train", "train", "val", "eval"],
            r"is test \('eval' is val, 'train' is train, 'val' is val\).*leave split out",
        ),
        (["train", "test", "test", "test"], r"no row of column 's' is val, and the training rows \(one row\)"),
        (["test"] * 4, "no row of column 's' is train "),
    ],
)
def test_split_columns_that_cannot_be_used(cells: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        given_splits(table(cells), "s", None, 0)


def test_groups_and_given_splits() -> None:
    with pytest.raises(DataError, match=r"group 'a' is in the splits train and test \(lines 2 and 4\)"):
        given_splits(table(["train", "train", "test"]), "s", ["a", "b", "a"], 0)
    with pytest.raises(DataError, match="2 rows of one group"):
        given_splits(table(["train", "train", "test"]), "s", ["a", "a", "b"], 0)
    rows = given_splits(table(["train", "train", "train", "test"]), "s", ["a", "b", "a", "c"], 0)
    assert sorted([*rows["train"], *rows["val"]]) == [0, 1, 2]
    assert 1 in (rows["train"] if 0 in rows["val"] else rows["val"])


def stratified_before(kept: list[int], classes: list[Classes | None], seed: int) -> dict[str, list[int]]:
    """How splits were drawn while it took time by classes times rows."""
    generator = torch.Generator().manual_seed(seed)
    rows: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for name in [None, *class_names([classes[row] for row in kept])]:
        members = [row for row in kept if classes[row] == (None if name is None else (name,))]
        order = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
        share = 0 if name is None or len(members) < 3 else max(1, round(0.15 * len(members)))
        rows["val"] += order[:share]
        rows["test"] += order[share : 2 * share]
        rows["train"] += order[2 * share :]
    return {split: sorted(members) for split, members in rows.items()}


@pytest.mark.parametrize("seed", range(5))
def test_drawn_splits_are_what_they_were(seed: int) -> None:
    draw = random.Random(seed)
    classes: list[Classes | None] = [
        draw.choice([None, ("a",), ("b",), ("10",), (f"x{draw.randrange(20)}",)]) for _ in range(300)
    ]
    kept = sorted(draw.sample(range(300), 250))
    assert drawn_splits(kept, classes, False, None, seed) == stratified_before(kept, classes, seed)


def test_a_hundred_thousand_rows_of_many_classes_are_split_in_linear_time() -> None:
    classes: list[Classes | None] = [(f"c{i % 20_000}",) for i in range(100_000)]
    start = time.process_time()
    rows = drawn_splits(range(100_000), classes, False, None, 0)
    assert time.process_time() - start < 5  # about 0.5 s; it was minutes
    assert {split: len(members) for split, members in rows.items()} == {"train": 60_000, "val": 20_000, "test": 20_000}


def test_tables_that_cannot_be_divided() -> None:
    classes: list[Classes | None] = [(name,) for name in "abcdabcd"]
    with pytest.raises(
        DataError, match=r"here: 4 classes in 8 labelled rows, and none has the three rows .*leave label out"
    ):
        drawn_splits(range(8), classes, False, None, 0, "here")
    with pytest.raises(DataError, match=r"to predict amounts set data.init_args.task to regression"):
        drawn_splits(range(8), [(str(i),) for i in range(8)], False, None, 0, "here")
    with pytest.raises(DataError, match=r"here: there are 2 groups for 8 rows, and train, val and test need one each"):
        drawn_splits(range(8), None, False, ["a", "b"] * 4, 0, "here")
    with pytest.raises(DataError, match=r"here: there are 2 labelled rows"):
        drawn_splits(range(4), [("a",), ("b",), None, None], True, None, 0, "here")
    with pytest.raises(DataError, match=r"here: no draw leaves rows for the \w+ split"):
        drawn_splits(range(3), [("a",), ("b",), ("c",)], True, None, 0, "here")


def test_what_alone_has_a_class_goes_to_training() -> None:
    rows: list[Classes | None] = [("common", f"rare {i}") if i % 3 == 0 else ("common",) for i in range(200)]
    found = drawn_splits(range(200), rows, True, None, 0)
    assert sorted(row for members in found.values() for row in members) == list(range(200))
    assert set(range(0, 200, 3)) <= set(found["train"])
    assert found["train"] == sorted(found["train"])
    groups = [f"g{i // 4}" for i in range(200)]
    single: list[Classes | None] = [(f"rare {i // 4}",) if i // 4 % 2 else ("common",) for i in range(200)]
    found = drawn_splits(range(200), single, False, groups, 0)
    homes = {split: {groups[row] for row in members} for split, members in found.items()}
    assert not homes["train"] & (homes["val"] | homes["test"])
    assert all(single[row] == ("common",) for split in ("val", "test") for row in found[split])


def test_messages_of_small_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: 2 of 2 row\(s\) can be used; train, val and test need one each"):
        built(write(tmp_path / "t.csv", numbers(2)), labels=False)
    rows = [row | {"s": ["train", "train", "val", "test"][i % 4]} for i, row in enumerate(numbers(12))]
    for row in rows[2::4]:
        row["a"] = ""
    with pytest.raises(DataError, match=r"every row of the val split lacks a modality; .*missing to mask"):
        built(write(tmp_path / "t.csv", rows), labels=False, split="s", missing="drop")
    with pytest.raises(DataError, match=r"every row of the val split lacks all modalities$"):
        built(write(tmp_path / "t.csv", rows), labels=False, split="s", missing="mask")
    unique = [row | {"y": f"name {i}"} for i, row in enumerate(numbers(12))]
    with pytest.raises(DataError, match=r"t\.csv, column 'y': 12 classes in 12 labelled rows"):
        built(write(tmp_path / "t.csv", unique), label="y")
    many = [row | {"y": i / 7} for i, row in enumerate(numbers(12))]
    with pytest.raises(DataError, match=r"column 'y' holds 12 different numbers"):
        built(write(tmp_path / "t.csv", many), label="y")


def test_notes_of_a_data_module(tmp_path: Path) -> None:
    rows = numbers()
    rows[4]["y"], rows[5]["y"] = "NA", "A"
    data = built(write(tmp_path / "t.csv", rows), label="y")
    place = f"{tmp_path / 't.csv'}, column 'y': "
    assert data.notes[0] == f"{place}'NA' (1 row) is read as no label; --empty says otherwise"
    assert "'A' (1 row), 'a' (14 rows)" in data.notes[1]
    assert len(data.notes) == 2
    assert built(tmp_path / "t.csv", labels=False).notes == []


def test_groups_are_one_whatever_their_spelling(tmp_path: Path) -> None:
    spellings = [["1", "1.0", " 1"], ["caf\u00e9", "cafe\u0301"], ["2"], ["3"], ["4"], ["5"]]
    truth, draw = [i % 6 for i in range(60)], random.Random(0)
    rows = [row | {"g": draw.choice(spellings[k])} for row, k in zip(numbers(60), truth, strict=True)]
    data = built(write(tmp_path / "t.csv", rows), label="y", group="g")
    homes = [{truth[row] for row in members} for members in data.rows.values()]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 6
    rows[7]["g"] = "nan"
    with pytest.raises(
        DataError,
        match=r"line 9, column 'g': an empty cell \('nan' is read as empty, .*\) is no group .*leave group out",
    ):
        built(write(tmp_path / "t.csv", rows), label="y", group="g")


def test_cells_that_are_no_groups_or_ids_say_how_they_were_spelt(tmp_path: Path) -> None:
    rows = [{"a": f"{i / 7:.3f}", "b": i, "y": "ab"[i % 2], "g": f"g{i % 9}", "i": f"r{i}"} for i in range(45)]
    rows[3]["g"] = rows[4]["g"] = "-"
    with pytest.raises(DataError, match=r"line 5, column 'g': '-' is no group \(2 such"):
        _ = built(write(tmp_path / "t.csv", rows), label="y", group="g").rows
    rows[3]["g"] = rows[4]["g"] = "g0"
    rows[5]["i"], rows[6]["i"] = "NA", "?"
    with pytest.raises(DataError, match=r"line 8, column 'i': an empty id \('\?', 'NA' is read as empty, .*line 7"):
        _ = built(write(tmp_path / "t.csv", rows), label="y", id="i").rows
