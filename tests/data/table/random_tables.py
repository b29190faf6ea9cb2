"""Random tables, read by `mmnas init` and the data module it writes, and compared with what was put into them.

`python -m tests.data.table.random_tables --count 2000` tries many and prints how they ended.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from rich.console import Console
from torch import Tensor

from lightning_mmnas import ColumnSpec, TableDataModule
from lightning_mmnas.commands.init.command import init
from lightning_mmnas.errors import MMNASError
from tests.data.table.random_columns import (
    RATE,
    Array,
    Truth,
    lists,
    motions,
    numbers,
    pictures,
    sounds,
    texts,
    vectors,
)

Ending = Literal["equal", "stopped"]

_NAMES = ["view 1", "view-1", "Größe", "type", "keys", "on", "No", "null", "2nd", "training", "a,b", "x;y", 'say "hi"']


@dataclass
class RandomTable:
    """A table on the disk and what is in it.

    Attributes:
        path: Its file.
        columns: Of the table, in order.
        missing: The option of `mmnas init`.
        fault: What is wrong with the table on purpose; None: nothing.
        clue: A text that the message about the fault must hold.
    """

    path: Path
    columns: list[Truth]
    missing: str
    fault: str | None = None
    clue: str = ""
    how: dict[str, str] = field(default_factory=dict)

    @property
    def is_ambiguous(self) -> bool:
        """Whether commas part its rows as well as its separator: one in a name above decimal commas."""
        return self.how.get("decimal") == "," and any("," in truth.name for truth in self.columns)


def make_random_table(folder: Path, seed: int) -> RandomTable:
    """Writes a table of two or more modalities with its files."""
    random = np.random.default_rng(seed)
    rows = int(random.integers(18, 30))
    names = [*random.permutation(_NAMES)[: int(random.integers(0, 4))], *(f"column{i}" for i in range(8))]
    makers: list[Callable[[str, Path, int, np.random.Generator], list[Truth]]] = [
        numbers, numbers, texts, pictures, sounds, vectors, motions, lists
    ]  # fmt: skip
    chosen = [makers[i] for i in random.permutation(len(makers))[: int(random.integers(2, 5))]]
    columns: list[Truth] = []
    for make in chosen:
        columns += make(names[len(columns)], folder, rows, random)
    # Another order of the classes than of the rows, so that no column of numbers follows it.
    classes = [f"class{int(i)}" for i in random.permutation(np.arange(rows) % 2)]
    columns.insert(int(random.integers(0, len(columns) + 1)), Truth("label", "label", list(classes), classes))
    if random.random() < 0.5:
        columns.insert(0, Truth("id", "id", [f"r{i}" for i in range(rows)], []))
    missing = str(random.choice(["error", "drop", "mask"]))
    table = RandomTable(folder / "table", columns, missing)
    if random.random() < 0.3:
        _empty_some(table, random)
    if random.random() < 0.3:
        _spoil(table, random)
    _write(table, random)
    return table


def try_table(table: RandomTable, folder: Path) -> Ending:
    """Proposes configurations for a table and reads all samples as they say.

    Returns:
        Whether all samples were equal to what was written, or the command stopped in a line that names the place.

    Raises:
        AssertionError: Anything else.
    """
    said = io.StringIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            init(str(table.path), str(folder), missing=table.missing, console=Console(file=said, width=1000))
            data = _built(folder)
            for split in ("train", "val", "test"):
                data.build(split)
    except MMNASError as error:
        stopped = str(error)
        if table.is_ambiguous and "--separator" in stopped:
            return "stopped"
    else:
        assert table.fault is None, f"read in spite of {table.fault}"
        _compare(table, data)
        return "equal"
    assert table.fault is not None, f"stopped without a fault: {stopped}"
    assert table.clue in stopped, f"{table.fault}: {table.clue!r} is not in {stopped}"
    return "stopped"


def _built(folder: Path) -> TableDataModule:
    arguments = yaml.safe_load((folder / "common.yaml").read_text(encoding="utf-8"))["data"]["init_args"]
    columns = {}
    for name, spec in arguments.pop("columns").items():
        spec["size"] = tuple(spec.get("size", (64, 64)))
        columns[name] = ColumnSpec(**spec)
    return TableDataModule(**arguments, columns=columns, batch_size=2)


def _compare(table: RandomTable, data: TableDataModule) -> None:
    truths = {truth.name: truth for truth in table.columns}
    read = {column for spec in data.declared.values() for column in spec.columns}
    expected = {truth.name for truth in table.columns if truth.kind not in ("label", "id")}
    assert read == expected, f"modalities of {sorted(read)} instead of {sorted(expected)}"
    # A modality is there where all of its columns are.
    rows = range(len(truths["label"].cells))
    modalities = [[truths[column].cells for column in spec.columns] for spec in data.declared.values()]
    enough = all if table.missing == "drop" else any
    there = [i for i in rows if enough(all(cells[i] is not None for cells in several) for several in modalities)]
    found = sorted(row for rows in data.rows.values() for row in rows)
    assert found == there, f"rows {found} instead of {there}"
    for split in ("train", "val", "test"):
        samples = data.source(split)
        for index, row in enumerate(data.rows[split]):
            sample = samples[index]
            assert data.class_names[int(sample["label"])] == truths["label"].values[row], f"label of row {row}"
            for name, spec in data.declared.items():
                columns = [truths[column] for column in spec.columns]
                _compare_one(name, spec, columns, row, sample[name], data)


def _compare_one(
    name: str, spec: ColumnSpec, truths: list[Truth], row: int, found: Tensor, data: TableDataModule
) -> None:
    where = f"modality {name!r} ({spec.kind}), row {row}"
    train, kind = data.rows["train"], truths[0].kind
    assert spec.kind == {"vector": "features", "number": "features", "list": "features"}.get(kind, kind), (
        f"{where} of {kind}"
    )
    if any(truth.cells[row] is None for truth in truths):
        if kind == "text":
            assert not found.any(), f"{where}: an empty text"
        elif kind in ("number", "vector", "list", "motion"):
            assert not found.any(), f"{where}: an empty cell is not the mean"
        return
    if kind == "text":
        known = {word for i in train if truths[0].cells[i] is not None for word in truths[0].values[i]}
        words = [word if word in known else "[UNK]" for word in truths[0].values[row]][: spec.length]
        assert (data.words(name, found) or "").split() == words, where
        return
    if kind in ("number", "vector", "list", "motion"):

        def whole(i: int) -> Array:
            parts = [np.atleast_1d(np.asarray(truth.values[i], np.float64)) for truth in truths]
            return np.stack(parts) if kind == "motion" else np.concatenate(parts)

        rows = np.stack([whole(i) for i in train if all(t.cells[i] is not None for t in truths)])
        axes = (0, 3) if kind == "motion" else (0,)
        expected = (whole(row) - rows.mean(axes, keepdims=True)[0]) / _or_one(rows.std(axes, keepdims=True)[0])
        expected = expected[0] if kind == "motion" else expected
        np.testing.assert_allclose(found.numpy(), expected, atol=2e-4, err_msg=where)
        return
    value = truths[0].values[row]
    if kind == "audio":
        length = round(spec.rate * spec.seconds)
        expected = np.zeros(length)
        expected[: len(value)] = value[:length]
        assert spec.rate == RATE, f"{where}: {spec.rate} Hz"
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6, err_msg=where)
        return
    image = value / (spec.maximum or 255) * 255 if kind == "image" and value.max() > 255 else value
    shown = found.permute(1, 2, 0).numpy().astype(np.float64)
    np.testing.assert_allclose(shown, np.broadcast_to(image, shown.shape), atol=1, err_msg=where)


def _or_one(deviation: Array) -> Array:
    return np.where(deviation > 0, deviation, 1.0)


def _empty_some(table: RandomTable, random: np.random.Generator) -> None:
    inputs = [truth for truth in table.columns if truth.kind not in ("label", "id")]
    truth = inputs[int(random.integers(0, len(inputs)))]
    row = int(random.integers(0, len(truth.cells)))
    truth.cells[row] = None
    if table.missing == "error":
        table.fault, table.clue = "an empty cell", "lack a modality: "


def _spoil(table: RandomTable, random: np.random.Generator) -> None:
    if table.fault is not None:
        return
    inputs = [t for t in table.columns if t.kind not in ("label", "text")]
    truth = inputs[int(random.integers(0, len(inputs)))]
    whole = [i for i in range(len(truth.cells)) if all(t.cells[i] is not None for t in table.columns)]
    row = int(random.choice(whole))  # others may be left out before they are read
    cell = truth.cells[row]
    if truth.kind == "id":
        other = (row + 1) % len(truth.cells)
        truth.cells[row] = truth.cells[other]
        table.fault, table.clue = "an id twice", f"id {truth.cells[other]!r}"
    elif truth.kind == "number":
        truth.cells[row] = str(random.choice(["1_11", "abc", "inf", "--1", "1e400", "0x10"]))
        table.fault, table.clue = f"no number: {truth.cells[row]}", truth.name
    elif truth.kind == "list":
        whole = cell if isinstance(cell, list) else cell.strip("[]").replace(",", " ").split()
        short = list(map(float, whole[:-1]))
        truth.cells[row] = short if isinstance(cell, list) else str(short)
        table.fault, table.clue = "a list that is too short", truth.name
    elif random.random() < 0.5:
        (table.path.parent / cell).unlink()
        table.fault, table.clue = "a file that is missing", Path(cell).name
    else:
        path = table.path.parent / cell
        path.write_bytes(path.read_bytes()[: 40 if truth.kind != "audio" else 20])
        table.fault, table.clue = "a file cut short", path.name


def _write(table: RandomTable, random: np.random.Generator) -> None:
    names = [truth.name for truth in table.columns]
    rows = [list(row) for row in zip(*(truth.cells for truth in table.columns), strict=True)]
    form = str(random.choice(["csv", "csv", "csv", "tsv", "jsonl", "json", "parquet"]))
    table.path = table.path.with_suffix(f".{form}")
    table.how["form"] = form
    if form in ("csv", "tsv"):
        separator = "\t" if form == "tsv" else str(random.choice([",", ",", ";", "\t", "|"]))
        numeric = [place for place, truth in enumerate(table.columns) if truth.kind == "number"]
        if form == "csv" and separator == ";" and random.random() < 0.5:
            for row in rows:
                for place in numeric:
                    row[place] = None if row[place] is None else row[place].replace(".", ",")
            table.how["decimal"] = ","
        encoding = str(random.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16"]))
        ends = str(random.choice(["\n", "\r\n"]))
        quoting: Literal[0, 1] = csv.QUOTE_ALL if random.random() < 0.3 else csv.QUOTE_MINIMAL
        table.how |= {"separator": separator, "encoding": encoding}
        with table.path.open("w", newline="", encoding=encoding) as file:
            writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=ends)
            writer.writerow(names)
            writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
        return
    for place, truth in enumerate(table.columns):
        for row in rows:
            if truth.kind == "number" and row[place] is not None:
                row[place] = _as_number(row[place])
    records = [dict(zip(names, row, strict=True)) for row in rows]
    if form == "json":
        table.path.write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    elif form == "jsonl":
        table.path.write_text("".join(f"{json.dumps(record)}\n" for record in records), encoding="utf-8")
    else:
        import pyarrow
        import pyarrow.parquet

        columns = {}
        for place, name in enumerate(names):
            cells = [row[place] for row in rows]
            mixed = len({type(cell) for cell in cells if cell is not None}) > 1
            columns[name] = [None if cell is None else str(cell) for cell in cells] if mixed else cells
        pyarrow.parquet.write_table(pyarrow.table(columns), table.path)


def _as_number(text: str) -> float | str:
    try:
        value = float(text)
    except ValueError:
        return text
    return text if "_" in text or not np.isfinite(value) else value


def main() -> None:
    """Tries tables and prints how they ended, and every one that is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first table")
    options = parser.parse_args()
    endings: Counter[str] = Counter()
    for seed in range(options.first, options.first + options.count):
        folder = Path(tempfile.mkdtemp())
        try:
            table = make_random_table(folder, seed)
            try:
                endings[try_table(table, folder / "configs")] += 1
            except Exception as error:  # whatever it is, it is a finding
                endings["wrong"] += 1
                kinds = [truth.kind for truth in table.columns]
                print(f"seed {seed}: {table.how} {kinds}: {type(error).__name__}: {str(error)[:600]}", flush=True)
        finally:
            shutil.rmtree(folder)
    print(dict(endings))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
