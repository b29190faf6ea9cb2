"""Tables whose cells have types: JSON as people write it, Parquet; numbers that stand for missing ones."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_mmnas.data.table.numbers import is_empty
from lightning_mmnas.data.table.reading import Reading, number, read_table
from lightning_mmnas.errors import DataError
from tests.data.table.test_reading import table

NAN = math.nan


def test_a_number_may_stand_for_a_missing_one(tmp_path: Path) -> None:
    columns = {
        "whole": [1, -999, 3],
        "real": [0.5, -999.0, NAN],
        "text": ["1.5", "-999.0", "-999"],
        "label": [0, 1, -1],
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    (tmp_path / "t.jsonl").write_text(
        '{"whole": 1, "real": 0.5, "text": "1.5", "label": 0}\n'
        '{"whole": -999, "real": -999.0, "text": "-999.0", "label": "b"}\n'
        '{"whole": 3, "real": null, "text": "-999", "label": -999}\n'
    )
    for name in ("t.parquet", "t.jsonl"):
        found = read_table(tmp_path / name, Reading(empty=["-999"]))
        np.testing.assert_array_equal(found.numbers("whole"), [1, NAN, 3])
        np.testing.assert_array_equal(found.numbers("real"), [0.5, NAN, NAN])
        np.testing.assert_array_equal(found.numbers("text"), [1.5, NAN, NAN])
        assert "column 'whole': read as empty: 1 '-999' (--empty)" in found.told
        assert read_table(tmp_path / name).numbers("whole")[1] == -999
    assert found.cells("label") == [0, "b", None]
    assert [is_empty(cell, ["-999"]) for cell in (-999, -999.0, np.float32(-999), "-999", 0, True, 1.5)] == [
        True
    ] * 4 + [False] * 3


def test_types_of_parquet(tmp_path: Path) -> None:
    import datetime
    import decimal

    day = datetime.date(2024, 1, 31)
    columns = {
        "category": pa.array(["a", "b", "a"]).dictionary_encode(),
        "decimal": pa.array([decimal.Decimal("1.50"), None, decimal.Decimal("2.25")]),
        "date": pa.array([day, None, day]),
        "time": pa.array([datetime.datetime(2024, 1, 31, 12, 30), None, None], pa.timestamp("us")),
        "flag": pa.array([True, False, None]),
        "float": pa.array([1.5, NAN, 2.5], pa.float32()),
        "half": pa.array(np.array([1, 2, 3], np.float16)),
        "whole": pa.array([1, 2, None], pa.int16()),
        "large": pa.array(["NA", "x", " "], pa.large_string()),
        "list": pa.array([["a"], [], None]),
        "pairs": pa.array([[[decimal.Decimal("1.5")], []], None, []], pa.list_(pa.list_(pa.decimal128(9, 2)))),
        "span": pa.array([datetime.timedelta(days=1, milliseconds=5), None, datetime.timedelta(0)], pa.duration("ms")),
        "infinite": pa.array([1.0, math.inf, 2.0]),
    }
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    found = read_table(tmp_path / "t.parquet")
    assert found.cells("category") == ["a", "b", "a"]
    assert found.cells("decimal") == [1.5, None, 2.25]
    assert found.cells("date") == ["2024-01-31", None, "2024-01-31"]
    assert found.cells("time") == ["2024-01-31 12:30:00", None, None]
    assert found.cells("large") == [None, "x", None]
    assert found.cells("list") == [["a"], [], None]
    assert found.cells("pairs") == [[[1.5], []], None, []]
    assert found.cells("span") == [86400.005, None, 0]  # seconds, whatever the unit
    assert number(datetime.timedelta(days=1, milliseconds=5)) == 86400.005
    for name, values in (
        ("flag", [1, 0, NAN]),
        ("float", [1.5, NAN, 2.5]),
        ("half", [1, 2, 3]),
        ("whole", [1, 2, NAN]),
    ):
        np.testing.assert_array_equal(found.numbers(name), values)
    with pytest.raises(DataError, match="row 2: inf is not a usable number"):
        found.numbers("infinite")


def test_json_of_all_forms(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"a": 1, "b": "x"}, {"a": 2.5, "c": [1]}, {"a": "NA"}]
    forms = {
        "t.jsonl": "\n\n".join(map(json.dumps, rows)),
        "t.json": json.dumps(rows),
        "u.json": json.dumps({"data": rows, "version": 1}),
        "v.json": "\n".join(map(json.dumps, rows)),
        "w.json": json.dumps({name: {str(i): row.get(name) for i, row in enumerate(rows)} for name in "abc"}),
        "x.json": json.dumps({name: [row.get(name) for row in rows] for name in "abc"}),
    }
    for name, content in forms.items():
        found = table(tmp_path, content, name)
        np.testing.assert_array_equal(found.numbers("a"), [1, 2.5, NAN])
        assert found.cells("b") == ["x", None, None]
        assert found.cells("c") == [None, [1], None]
    assert table(tmp_path, forms["t.jsonl"], "t.jsonl").place(1, "a").endswith("t.jsonl, line 3, column 'a'")
    for content, message in (
        ('{"a": 1}\n{"a": 1, "a": 2}', "line 2"),
        ('{"a": 1}\n3', "line 2: a int"),
        ("3", "a int"),
        ('{"a": 1}\n{"a": [{"b": "x\\ud83dy"}]}', r"line 2: '\\ud83d' is half of a character"),
    ):
        with pytest.raises(DataError, match=message):
            table(tmp_path, content, "t.json" if content == "3" else "t.jsonl")


@pytest.mark.parametrize(
    ("content", "index"),
    [
        ({"columns": ["a", "b"], "index": [4, 5, 6], "data": [[1, 2], [2.5, None], [3, 4]]}, None),
        ({"4": {"a": 1, "b": 2}, "5": {"a": 2.5, "b": None}, "6": {"a": 3, "b": 4}}, None),
        ({"a": {"4": 1, "5": 2.5, "6": 3}, "b": {"4": 2, "5": None, "6": 4}}, None),
        ({"p.png": {"a": 1, "b": 2}, "q.png": {"a": 2.5, "b": None}, "r": {"a": 3, "b": 4}}, ["p.png", "q.png", "r"]),
    ],
)
def test_json_as_pandas_orients_it(tmp_path: Path, content: Any, index: list[str] | None) -> None:
    found = table(tmp_path, json.dumps(content), "t.json")
    np.testing.assert_array_equal(found.numbers("a"), [1, 2.5, 3])
    np.testing.assert_array_equal(found.numbers("b"), [2, NAN, 4])
    assert found.names == (["a", "b"] if index is None else ["index", "a", "b"])
    assert index is None or found.cells("index") == index


def test_objects_of_mixed_cells_are_rows(tmp_path: Path) -> None:
    rows = {f"r{i}": {"text": f"some {i}", "size": i, "flag": True, "kind": "x"} for i in range(3)}
    found = table(tmp_path, json.dumps(rows), "t.json")
    assert (found.cells("text"), found.cells("size")) == (["some 0", "some 1", "some 2"], [0, 1, 2])
    with pytest.raises(DataError, match=r"row 2: no list of 2 cells, which is what columns names"):
        table(tmp_path, json.dumps({"columns": ["a", "b"], "data": [[1, 2], [3]]}), "u.json")
    with pytest.raises(DataError, match=r"row 1: '\\udc00' is half of a character"):
        table(tmp_path, '[{"a": "\\udc00"}]', "v.json")
