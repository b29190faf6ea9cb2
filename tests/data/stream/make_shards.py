"""A small table of photos, sounds and numbers, some rows without a label or a number, as shards."""

import csv
from pathlib import Path
from typing import Any

from lightning_mmnas import ColumnSpec, StreamDataModule, TableDataModule
from lightning_mmnas.data.stream.writing import Written, write_shards
from tests.data.table.make_table import make_table

COLUMNS = {
    "photo": ColumnSpec("image", ["photo"], size=(8, 8)),
    "song": ColumnSpec("audio", ["song"], rate=8000, seconds=0.25),
    "body": ColumnSpec("features", ["mass", "wing"]),
}


def make_rows(root: Path, rows: int = 48) -> Path:
    """The table of `make_table`; every fifth row has no label, and row 7 no wing."""
    path = make_table(root, rows)
    with path.open(newline="", encoding="utf-8") as file:
        lines = list(csv.reader(file))
    for number, line in enumerate(lines[1:]):
        line[6] = "" if number % 5 == 4 else line[6]
        line[4] = "" if number == 7 else line[4]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(lines)
    return path


def table_of(path: Path, **changes: Any) -> TableDataModule:
    settings: dict[str, Any] = {"label": "label", "group": "site", "id": "id", "missing": "mask", "labels": False}
    return TableDataModule(str(path), COLUMNS, **{**settings, **changes})


def shards_of(table: Path, folder: Path, shard_bytes: int = 20_000, **changes: Any) -> Written:
    return write_shards(table_of(table, **changes), folder, shard_bytes=shard_bytes)


def data_of(folder: Path, **changes: Any) -> StreamDataModule:
    settings: dict[str, Any] = {"batch_size": 4, "labels": False, "shuffle_shards": 3}
    return StreamDataModule(str(folder), **{**settings, **changes})


def make_numbers(root: Path, rows: int = 120, shard_bytes: int = 1000) -> Path:
    """Shards of numbers alone, which tell the row: 5 samples in each, no groups and no labels."""
    root.mkdir(parents=True, exist_ok=True)
    lines = ["north,east,split"] + [
        f"{i},{i * i % 101},{'train' if i < rows else 'val' if i < rows + 8 else 'test'}" for i in range(rows + 16)
    ]
    (root / "numbers.csv").write_text("\n".join(lines))
    columns = {"north": ColumnSpec("features", ["north"]), "east": ColumnSpec("features", ["east"])}
    data = TableDataModule(str(root / "numbers.csv"), columns, split="split", labels=False)
    write_shards(data, root / "shards", shard_bytes=shard_bytes)
    return root / "shards"
