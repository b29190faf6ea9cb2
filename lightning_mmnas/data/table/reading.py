"""Tables as rows of cells: CSV, JSON lines and Parquet."""

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mmnas.errors import DataError, DatasetNotFoundError

_ROWS = 1024
"""Rows of a Parquet file that are read at once."""

Cell = Any
"""Text, number, truth value or list; None where the cell is empty."""


class Table:
    """A table in memory, by columns.

    Args:
        path: Its file.
        columns: The cells of each column; None where one is empty.
        lines: Where each row begins, for messages: line of the file, or number of the row from 1.
    """

    def __init__(self, path: Path, columns: Mapping[str, list[Cell]], lines: Sequence[int]) -> None:
        self.path = path
        self.names = list(columns)
        self._columns = dict(columns)
        self._lines = lines

    def __len__(self) -> int:
        return len(self._lines)

    def cells(self, name: str) -> list[Cell]:
        """The cells of a column; None where one is empty."""
        return self._columns[name]

    def cell(self, row: int, name: str) -> Cell:
        """One cell; None where it is empty."""
        return self._columns[name][row]

    def numbers(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """A column as numbers, shape (n,); NaN where a cell is empty.

        Raises:
            DataError: A cell is no number; names the first lines.
        """
        found = np.full(len(self), np.nan)
        for row, cell in enumerate(self._columns[name]):
            try:
                found[row] = np.nan if cell is None else number(cell)
            except ValueError as error:
                raise DataError(f"{self.place(row, name)}: {error}") from None
        return found

    def line(self, row: int) -> int:
        """Line of the file in which a row begins, or its number from 1."""
        return self._lines[row]

    def place(self, row: int, column: str) -> str:
        """Names a cell for a message."""
        return f"{self.path}, line {self.line(row)}, column {column!r}"

    def need(self, column: str, argument: str) -> None:
        """Raises `DataError` unless there is such a column."""
        if column not in self.names:
            raise DataError(f"{self.path} has no column {column!r}, but {self.names}; check {argument}")

    def repeated(self) -> list[int]:
        """Rows that are equal to an earlier one."""
        seen: set[str] = set()
        again = []
        for index, cells in enumerate(zip(*self._columns.values(), strict=True)):
            key = json.dumps([repr(cell) for cell in cells])
            if key in seen:
                again.append(index)
            seen.add(key)
        return again


def read_table(path: Path) -> Table:
    """Reads a `.csv`, `.jsonl` (`.ndjson`) or `.parquet` file.

    CSV is UTF-8 with or without a byte order mark, its first line names the columns, cells that hold commas or line
    breaks are quoted. A line of JSON lines is one object; a key that it lacks is an empty cell. Cells of white space
    are empty.

    Raises:
        DatasetNotFoundError: There is no such file.
        DataError: It cannot be read as what its suffix says, or has no rows; names the line.
    """
    known, stream = stream_table(path)
    rows, lines = [], []
    for line, row in stream:
        rows.append(row)
        lines.append(line)
    if not rows:
        raise DataError(f"{path} has no rows")
    names = list(known or dict.fromkeys(name for row in rows for name in row))
    _check_names(path, names)
    return Table(path, {name: [row.get(name) for row in rows] for name in names}, lines)


def stream_table(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, Cell]]]]:
    """Opens a table to be read row by row, whatever its size; see `read_table`.

    Returns:
        The names of its columns, none for JSON lines, whose rows have their own; and each row's line (or its number,
        from 1) and cells.

    Raises:
        DatasetNotFoundError: There is no such file.
        DataError: It cannot be read; errors of rows are raised while they are read.
    """
    readers: dict[str, Callable[[Path], tuple[list[str], Iterator[tuple[int, dict[str, Cell]]]]]] = {
        ".csv": _csv,
        ".jsonl": _json_lines,
        ".ndjson": _json_lines,
        ".parquet": _parquet,
    }
    if path.suffix.lower() not in readers:
        raise DataError(f"{path}: the suffix {path.suffix!r} is not in {list(readers)}")
    if not path.is_file():
        raise DatasetNotFoundError(f"there is no table {path}; check data.init_args.table")
    return readers[path.suffix.lower()](path)


def _csv(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, Cell]]]]:
    reader = csv.reader(_lines(path), strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from None
    _check_names(path, names)

    def rows() -> Iterator[tuple[int, dict[str, Cell]]]:
        before = reader.line_num
        try:
            for cells in reader:
                line, before = before + 1, reader.line_num
                if not cells:
                    continue
                if len(cells) != len(names):
                    raise DataError(
                        f"{path}, line {line}: {len(cells)} cells instead of {len(names)}, as the header has"
                    )
                yield line, dict(zip(names, map(_emptied, cells), strict=True))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from None

    return names, rows()


def _json_lines(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, Cell]]]]:
    def rows() -> Iterator[tuple[int, dict[str, Cell]]]:
        for line, text in enumerate(_lines(path, newline="\n"), start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text, object_pairs_hook=_once)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {line}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {line}: a {type(row).__name__} instead of an object")
            yield line, {name: _emptied(cell) for name, cell in row.items()}

    return [], rows()


def _parquet(path: Path) -> tuple[list[str], Iterator[tuple[int, dict[str, Cell]]]]:
    import pyarrow.parquet as parquet

    def unreadable(error: Exception) -> DataError:
        reason = str(error).strip().splitlines()
        return DataError(f"{path} is no readable Parquet file: {reason[0] if reason else type(error).__name__}")

    try:
        content = parquet.ParquetFile(path)
        names = list(content.schema_arrow.names)
    except Exception as error:  # pyarrow raises a dozen types for damaged files
        raise unreadable(error) from None
    _check_names(path, names)

    def rows() -> Iterator[tuple[int, dict[str, Cell]]]:
        line = 0
        batches = content.iter_batches(_ROWS)
        while True:
            try:
                batch = next(batches, None)
                cells = [] if batch is None else batch.to_pylist()
            except Exception as error:
                raise unreadable(error) from None
            if batch is None:
                return
            for row in cells:
                line += 1
                yield line, {name: _emptied(cell) for name, cell in row.items()}

    return names, rows()


def _lines(path: Path, newline: str = "") -> Iterator[str]:
    """The lines of a text in UTF-8, with their ends as they are.

    Raises:
        DataError: A byte is not UTF-8, or a character is NUL; names the line.
    """
    line = 0
    with open(path, encoding="utf-8-sig", newline=newline) as file:
        try:
            for line, text in enumerate(file, start=1):
                if "\0" in text:
                    raise DataError(f"{path}, line {line}: a NUL character")
                yield text
        except UnicodeDecodeError as error:
            line, byte = _first_wrong_byte(path)
            raise DataError(f"{path}, line {line}: byte {byte:#x} is not UTF-8; save the table as UTF-8") from error


def _first_wrong_byte(path: Path) -> tuple[int, int]:
    """Line and value of the first byte that is not UTF-8; a text is decoded in pieces, so the reader does not know."""
    with open(path, "rb") as file:
        for line, content in enumerate(file, start=1):
            try:
                content.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                return line, content[error.start]
    raise AssertionError(f"{path} is UTF-8")


def _check_names(path: Path, names: list[str]) -> None:
    if not names:
        raise DataError(f"{path} is empty; its first line names the columns")
    if "" in names:
        raise DataError(f"{path}: column {names.index('') + 1} has no name")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: several columns have the names {twice}; each needs its own")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"the keys {twice} occur twice")
    return dict(pairs)


def _emptied(cell: Cell) -> Cell:
    return None if isinstance(cell, str) and not cell.strip() else cell


def number(cell: Cell) -> float:
    """A cell as a number.

    Raises:
        ValueError: It is none, or NaN or infinity.
    """
    if isinstance(cell, bool) or not isinstance(cell, str | int | float):
        if isinstance(cell, bool):
            return float(cell)
        raise ValueError(f"{cell!r} is not a number")
    try:
        value = float(cell)
    except (ValueError, OverflowError):
        raise ValueError(f"{str(cell)[:40]!r} is not a number") from None
    if not math.isfinite(value) or abs(value) > 1e30:
        raise ValueError(f"{value} is not a usable number")
    return value


def values(table: Table, column: str) -> Iterator[Cell]:
    """The cells of a column that are not empty."""
    return (cell for cell in table.cells(column) if cell is not None)
