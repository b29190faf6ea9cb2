"""Files of predictions: their columns' types."""

from pathlib import Path
from typing import Any

import pytest

from lightning_mmnas.delivery.outputs import open_output
from lightning_mmnas.errors import DataError

parquet = pytest.importorskip("pyarrow.parquet")


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([[None], [None, 1], [2]], "int64"),
        ([[None], [1, None], [None]], "int64"),
        ([[None], [None]], "string"),
        ([[None]] * 63 + [["a"]] + [[None]], "string"),
        ([[None]] * 70 + [["a"]], "string"),
        ([[None], [0.5]], "double"),
        ([["a"], [None]], "string"),
    ],
)
def test_a_column_may_begin_empty(chunks: list[list[Any]], kind: str, tmp_path: Path) -> None:
    with open_output(tmp_path / "t.parquet", [".parquet"]) as output:
        for chunk in chunks:
            output.write({"id": chunk, "class": ["x"] * len(chunk)})
    table = parquet.read_table(tmp_path / "t.parquet")
    assert str(table.schema.field("id").type) == kind
    assert table["id"].to_pylist() == [cell for chunk in chunks for cell in chunk]


def test_several_types_leave_no_file(tmp_path: Path) -> None:
    def write() -> None:
        with open_output(tmp_path / "t.parquet", [".parquet"]) as output:
            output.write({"id": [1]})
            output.write({"id": ["a"]})

    with pytest.raises(DataError, match=r"a column has values of several types: .*; write a .csv file"):
        write()
    assert list(tmp_path.iterdir()) == []
