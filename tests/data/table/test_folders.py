"""Folders of Parquet files: what the names of their files and folders say, classes by name, differing columns."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_mmnas.data.table.reading import read_table
from lightning_mmnas.data.table.splits import split_of
from lightning_mmnas.errors import DataError


def write(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> None:
    """Writes a Parquet file, with what `datasets` notes of its columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = pa.table(columns)
    if features is not None:
        found = found.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(found, path)


def test_folders_named_after_values(tmp_path: Path) -> None:
    write(tmp_path / "year=2023" / "city=New%20York" / "a.parquet", {"x": [1.0, 2.0]})
    write(tmp_path / "year=2024" / "city=__HIVE_DEFAULT_PARTITION__" / "a.parquet", {"x": [3.0]})
    found = read_table(tmp_path)
    assert found.cells("city") == ["New York", "New York", None]
    assert found.numbers("year").tolist() == [2023, 2023, 2024]


@pytest.mark.parametrize("older", [False, True])
def test_classes_in_lists_have_their_names(tmp_path: Path, older: bool) -> None:
    one = {"_type": "ClassLabel", "names": ["cat", "dog", "cow"]}
    features = {"tags": [one] if older else {"_type": "List", "feature": one}, "label": one, "x": {"_type": "Value"}}
    write(tmp_path / "a.parquet", {"tags": [[0, 2], [], None, [1, -1]], "label": [2, -1, 0, 1], "x": [1] * 4}, features)
    found = read_table(tmp_path)
    assert found.cells("tags") == [["cat", "cow"], [], None, ["dog", None]]
    assert found.cells("label") == ["cow", None, "cat", "dog"]
    assert found.cells("x") == [1] * 4


def test_a_file_without_a_split_beside_others_that_have_one(tmp_path: Path) -> None:
    for name in ("train-0.parquet", "test-0.parquet", "unsupervised-0.parquet"):
        write(tmp_path / name, {"x": [1.0]})
    assert [split_of(cell) for cell in read_table(tmp_path).cells("split")] == ["test", "train", "train"]
    write(tmp_path / "more.parquet", {"x": [1.0]})
    with pytest.raises(
        DataError, match=r"more\.parquet is called after no split, while other files are after \['test'"
    ):
        read_table(tmp_path)
    for name in ("train-0.parquet", "test-0.parquet", "unsupervised-0.parquet", "more.parquet"):
        write(tmp_path / name, {"x": [1.0], "split": ["test"]})
    assert read_table(tmp_path).cells("split") == ["test"] * 4


def test_files_of_other_columns_are_told_by_what_differs(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", {f"x{i}": [1.0] for i in range(50)})
    write(tmp_path / "b.parquet", {f"x{i}": [1.0] for i in range(1, 50)})
    with pytest.raises(
        DataError, match=r"b\.parquet lacks the columns \['x0'\], compared with .*a\.parquet; the files"
    ):
        read_table(tmp_path)
    write(tmp_path / "b.parquet", {f"x{i}": [1.0] for i in range(51)})
    with pytest.raises(DataError, match=r"b\.parquet has the further columns \['x50'\], compared"):
        read_table(tmp_path)


def test_splits_of_faces() -> None:
    """FER2013 calls validation PublicTest, and test PrivateTest."""
    assert [split_of(cell) for cell in ("Training", "PublicTest", "PrivateTest")] == ["train", "val", "test"]
