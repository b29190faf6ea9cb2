"""Tables as columns of cells: CSV and its kin, JSON, Parquet, folders of files."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightning_mmnas.data.table.arrow_files import ArrowFiles, Vectors, is_list, list_rows, plain
from lightning_mmnas.data.table.delimited import DelimitedFile
from lightning_mmnas.data.table.dialect import Reading, check_names
from lightning_mmnas.data.table.numbers import (
    Cell,
    Decimal,
    Marks,
    Numbers,
    are_values,
    decimal_mark,
    is_empty,
    marks_of,
    number,
    numbers_of,
    parse_numbers,
    why_wrong,
)
from lightning_mmnas.data.table.records import JsonLines, JsonList, joined, open_json
from lightning_mmnas.errors import DataError, DatasetNotFoundError

__all__ = [
    "Cell",
    "Decimal",
    "Mask",
    "Reading",
    "Table",
    "number",
    "number_share",
    "read_table",
    "stream_table",
    "values",
]

DELIMITED = (".csv", ".tsv", ".tab")
SUFFIXES = (*DELIMITED, ".jsonl", ".ndjson", ".json", ".parquet", ".arrow")
"""Of the files that can be read."""

_NAMED = 5
"""Cells that a message names."""
_KEPT = 2
"""Columns whose cells are kept as Python's values, since they are asked for again and again."""

Column = Any
"""`pyarrow.ChunkedArray`, or a list where cells are of several types."""
Mask = np.ndarray[Any, np.dtype[np.bool_]]


class Table:
    """A table in memory, by columns.

    Args:
        path: Its file or folder.
        columns: The cells of each column, of one type or of several; those that mean nothing become empty.
        lines: Where each row begins, for messages: line of the file, or number of the row from 1.
        reading: What the user said of it.
        told: What was recognised in it.
        separated: What parts its cells; None: it is no text.
        files: Of a folder: each file, with the number of rows before it.
    """

    def __init__(
        self,
        path: Path,
        columns: Mapping[str, Column],
        lines: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]],
        reading: Reading | None = None,
        told: Sequence[str] = (),
        separated: str | None = None,
        files: Sequence[tuple[Path, int]] = (),
    ) -> None:
        self.path = path
        self.reading = reading or Reading()
        self.separated = separated
        self.names = list(columns)
        self._told = list(told)
        self._lines = lines
        self._files = list(files)
        self._columns: dict[str, Column] = {}
        self._emptied: dict[str, dict[str, int]] = {}
        for name, column in columns.items():
            self._columns[name], self._emptied[name] = _emptied(column, self.reading, name in self.reading.numbers)
        self._numbers: dict[str, Numbers] = {}
        self._cells: dict[str, list[Cell]] = {}
        self._vectors: dict[str, Vectors | None] = {}

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def folder(self) -> Path:
        """The folder that files are named relative to."""
        return self.path if self.path.is_dir() else self.path.parent

    @property
    def told(self) -> list[str]:
        """What was recognised so far, and the options that override it."""
        decimal = ["decimal comma (--decimal)"] if self.__dict__.get("decimal") == "," else []
        read = {name: ", ".join(f"{n} {text!r}" for text, n in found.items()) for name, found in self._emptied.items()}
        empty = [f"column {name!r}: read as empty: {found} (--empty)" for name, found in read.items() if found]
        noted = [f"column {name!r}: {found.note}" for name, found in self._numbers.items() if found.note]
        return [*self._told, *decimal, *empty, *noted]

    def cells(self, name: str) -> list[Cell]:
        """The cells of a column; None where one is empty."""
        column = self._columns[name]
        if isinstance(column, list):
            return column
        if name not in self._cells:
            if len(self._cells) >= _KEPT:
                del self._cells[next(iter(self._cells))]
            self._cells[name] = column.to_pylist()
        return self._cells[name]

    def cell(self, row: int, name: str) -> Cell:
        """One cell; None where it is empty."""
        column = self._columns[name]
        return column[row] if isinstance(column, list) else column[int(row)].as_py()

    def has_lists(self, name: str) -> bool:
        """Whether a column holds lists, which are too many numbers to have all of them as Python's values."""
        column = self._columns[name]
        return not isinstance(column, list) and is_list(column.type)

    def vectors(self, name: str) -> Vectors | None:
        """The lists of a column as rows, shape (n, d), float32 where that is exact; zero where a cell is empty.

        Returns:
            None: it holds no lists of numbers, lists of different lengths, or what is not finite.
        """
        if name not in self._vectors:
            column = self._columns[name]
            self._vectors[name] = None if isinstance(column, list) else list_rows(column)
        return self._vectors[name]

    def emptied(self, name: str) -> dict[str, int]:
        """How the cells of a column that are empty, and not white space, are spelt, and how many of each there are."""
        return self._emptied[name]

    def spelt_empty(self, names: Sequence[str]) -> str:
        """Which texts of some columns were read as empty, as the end of a message about an empty cell."""
        found = sorted({text for name in names for text in self._emptied[name]})
        return f" ({', '.join(map(repr, found))} is read as empty, unless empty says otherwise)" if found else ""

    def filled(self, name: str) -> Mask:
        """Which cells of a column are not empty, shape (n,)."""
        column = self._columns[name]
        if isinstance(column, list):
            return np.array([cell is not None for cell in column], bool)
        found: Mask = column.is_valid().to_numpy()
        return found

    @cached_property
    def decimal(self) -> Decimal:
        """The decimal mark of numbers that are texts.

        Raises:
            DataError: It is doubtful; says what to give.
        """
        if self.reading.decimal is not None:
            return self.reading.decimal
        marks = {name: marks_of(column) for name, column in self._columns.items()}
        likely = _likely_mark(self.reading, self.separated)
        return decimal_mark(self.path, marks, self.separated in (",", None), likely)

    def parsed(self, name: str) -> Numbers:
        """A column as numbers, and which of its cells are none."""
        if name not in self._numbers:
            self._numbers[name] = parse_numbers(self._columns[name], self.decimal)
        return self._numbers[name]

    def numbers(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """A column as numbers, shape (n,); NaN where a cell is empty.

        Raises:
            DataError: Cells are no numbers; names the first lines and the ways out.
        """
        found = self.parsed(name)
        if len(found.wrong):
            shown = "; ".join(f"{self._word} {self.line(row)}: {self.wrong(row, name)}" for row in found.wrong[:_NAMED])
            count = int(self.filled(name).sum())
            raise DataError(
                f"{self.path}, column {name!r}: {len(found.wrong)} of {count} cells are no numbers: {shown}; mend "
                "them, or give what means an empty cell (--empty)"
            )
        return found.values

    def wrong(self, row: int, name: str) -> str:
        """Why a cell is no number."""
        return why_wrong(self.cell(row, name), self.decimal)

    def line(self, row: int) -> int:
        """Line of the file in which a row begins, or its number from 1."""
        return int(self._lines[row])

    def lines(self, rows: Sequence[int]) -> str:
        """Names the first of some rows for a message."""
        return f"{self._word} {', '.join(str(self.line(row)) for row in rows[:_NAMED])}"

    def row(self, row: int) -> str:
        """Names a row for a message."""
        if not self._files:
            return f"{self.path}, {self._word} {self.line(row)}"
        path, before = self._files[bisect_right([before for _, before in self._files], row) - 1]
        return f"{path}, row {row - before + 1}"

    def place(self, row: int, column: str) -> str:
        """Names a cell for a message."""
        return f"{self.row(row)}, column {column!r}"

    def need(self, column: str, argument: str) -> None:
        """Raises `DataError` unless there is such a column."""
        if column not in self.names:
            raise DataError(f"{self.path} has no column {column!r}, but {self.names}; check {argument}")

    def repeated(self, names: Sequence[str] | None = None) -> list[int]:
        """Rows that are equal to an earlier one in some columns, or in all."""
        key = np.zeros(len(self), np.int64)
        for name in self.names if names is None else names:
            codes, count = _codes(self._columns[name])
            found, first, key = np.unique(key * (count + 1) + codes, return_index=True, return_inverse=True)
            if len(found) == len(self):
                return []
        again = np.ones(len(self), bool)
        again[first] = False
        return [int(row) for row in np.flatnonzero(again)]

    @property
    def _word(self) -> str:
        return "line" if self.path.suffix.lower() in (*DELIMITED, ".jsonl", ".ndjson") else "row"


def read_table(path: Path, reading: Reading | None = None) -> Table:
    """Reads a table: text with separators, JSON, Parquet, or a folder of Parquet files or of Hugging Face's `datasets`.

    Text is UTF-8, or UTF-16 with its mark; its first row names the columns; cells that hold separators or line breaks
    are quoted. A row of JSON is one object; a key that it lacks is an empty cell.

    Args:
        path: The file or folder.
        reading: What is known of it; the rest is recognised.

    Raises:
        DatasetNotFoundError: There is no such file.
        DataError: It cannot be read as what its suffix says, or has no rows; names the line.
    """
    reading = reading or Reading()
    source = _open(path, reading)
    pieces: dict[str, list[Any]] = {name: [] for name in source.names}
    lines: list[np.ndarray[Any, np.dtype[np.int64]]] = []
    for columns, places in source.blocks():
        for name in pieces | columns:
            if name not in pieces:  # JSON: earlier rows lack it
                pieces[name] = [pa.nulls(len(block)) for block in lines]
            pieces[name].append(columns[name] if name in columns else pa.nulls(len(places)))
        lines.append(np.asarray(places, np.int64))
    if not lines:
        raise DataError(f"{path} has no rows")
    check_names(path, list(pieces))
    whole = {name: joined(pieces.pop(name)) for name in list(pieces)}
    files = source.sizes if isinstance(source, ArrowFiles) and path.is_dir() else ()
    return Table(path, whole, np.concatenate(lines), reading, source.told, _separated(source), files)


def stream_table(path: Path, reading: Reading | None = None) -> Iterator[Table]:
    """Reads a table block by block, whatever its size; see `read_table`.

    Args:
        path: The file or folder.
        reading: What is known of it; the rest is recognised. The cells of its columns of numbers tell the decimal mark,
            which all blocks then share.

    Raises:
        DatasetNotFoundError: There is no such file.
        DataError: It cannot be read; errors of rows are raised while they are read.
    """
    reading = reading or Reading()
    source = _open(path, reading)
    if reading.decimal is None and reading.numbers:
        marks: dict[str, Marks] = dict.fromkeys(reading.numbers, Marks())
        for columns, _ in source.blocks():
            for name in set(columns).intersection(reading.numbers):
                marks[name] |= marks_of(_emptied(columns[name], reading, True)[0])
        found = decimal_mark(path, marks, _separated(source) in (",", None), _likely_mark(reading, _separated(source)))
        reading = replace(reading, decimal=found)
    some = False
    for columns, places in source.blocks():
        some = True
        yield Table(path, columns, places, reading, (), _separated(source))
    if not some and source.names:
        yield Table(path, {name: pa.array([], pa.string()) for name in source.names}, [], reading)


def number_share(table: Table, name: str) -> float:
    """Share of numbers among the cells of a column that are not empty; 0 where all are."""
    count = int(table.filled(name).sum())
    return 1 - len(table.parsed(name).wrong) / count if count else 0.0


def values(table: Table, column: str) -> Iterator[Cell]:
    """The cells of a column that are not empty."""
    return (cell for cell in table.cells(column) if cell is not None)


_Source = DelimitedFile | ArrowFiles | JsonLines | JsonList


def _open(path: Path, reading: Reading) -> _Source:
    suffix = path.suffix.lower()
    if path.is_dir():
        return ArrowFiles(path)
    if suffix not in SUFFIXES:
        raise DataError(f"{path}: the suffix {path.suffix!r} is not in {list(SUFFIXES)}")
    if not path.is_file():
        raise DatasetNotFoundError(f"there is no table {path}; check data.init_args.table")
    if suffix in DELIMITED:
        return DelimitedFile(path, reading)
    if suffix in (".parquet", ".arrow"):
        return ArrowFiles(path)
    return open_json(path) if suffix == ".json" else JsonLines(path)


def _separated(source: _Source) -> str | None:
    return source.dialect.separator if isinstance(source, DelimitedFile) else None


def _likely_mark(reading: Reading, separated: str | None) -> Decimal | None:
    """The decimal mark of a like table, where the separator is that table's, too."""
    separator, decimal = reading.likely
    return decimal if separated in (separator or ",", None) else None


def _emptied(column: Any, reading: Reading, numbers: bool) -> tuple[Column, dict[str, int]]:
    """A column whose cells that mean nothing are empty, and how many of them are spelt how, but for white space."""
    if isinstance(column, list):
        texts = pa.chunked_array([pa.array([c if isinstance(c, str) else None for c in column], pa.string())])
        numbers = numbers or sum(isinstance(c, int | float) for c in column) >= len(texts.drop_null())
        kept, counts = _emptied(texts, reading, numbers)
        there = [c is not None for c in kept] if isinstance(kept, list) else kept.is_valid().to_pylist()
        pairs = zip(column, there, strict=True)
        empty = reading.empty or ()
        cells = [c if t or not (isinstance(c, str) or is_empty(c, empty)) else None for c, t in pairs]
        gone = [c for c, d in zip(column, cells, strict=True) if d is None and isinstance(c, int | float) and c == c]
        return cells, {**counts, **Counter(f"{number:g}" for number in gone)}
    if isinstance(column, pa.Array):
        column = pa.chunked_array([column])
    if pa.types.is_floating(column.type):
        column = pa.chunked_array([plain(chunk) for chunk in column.chunks], column.type)
    if (known := numbers_of(reading.empty or ())) and (
        pa.types.is_floating(kind := column.type) or pa.types.is_integer(kind)
    ):
        gone = pc.is_in(column.cast(pa.float64(), safe=False), pa.array(list(known), pa.float64()))
        counts = {f"{number:g}": count for number, count in _counted(column.filter(gone)).items()}
        return pc.if_else(gone, pa.scalar(None, kind), column), counts
    if not pa.types.is_string(column.type):
        return column, {}
    trimmed = pc.utf8_trim_whitespace(column)
    gone = pc.is_in(trimmed, pa.array(["", *reading.spellings(True)], pa.string()))
    if not pc.any(gone).as_py():
        return column, {}
    if not numbers and not are_values(trimmed.filter(pc.invert(gone)).drop_null()):
        gone = pc.is_in(trimmed, pa.array(["", *reading.spellings(False)], pa.string()))
    counts = {text: count for text, count in _counted(trimmed.filter(gone)).items() if text}
    return pc.if_else(gone, pa.scalar(None, pa.string()), column), counts


def _counted(column: pa.ChunkedArray) -> dict[Any, int]:
    return {entry["values"]: int(entry["counts"]) for entry in pc.value_counts(column).to_pylist()}


def _codes(column: Column) -> tuple[np.ndarray[Any, np.dtype[np.int64]], int]:
    """Equal cells have equal numbers; and how many different ones there are."""
    if isinstance(column, list):
        column = pa.chunked_array([pa.array([None if cell is None else repr(cell) for cell in column], pa.string())])
    try:
        encoded = column.dictionary_encode().combine_chunks()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):  # lists and structures
        return _codes([None if cell is None else cell for cell in column.to_pylist()])
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], encoded.type)
    indices = pc.add(pc.fill_null(encoded.indices.cast(pa.int64()), -1), 1)
    return indices.to_numpy(), len(encoded.dictionary)
