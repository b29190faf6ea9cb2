"""Tables as JSON: one object per line, or a list of objects."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from lightning_mmnas.data.table.numbers import Cell
from lightning_mmnas.errors import DataError
from lightning_mmnas.parsing import parse_json

_ROWS = 10_000
"""Rows that become columns at once."""

_HALF = re.compile(r"\\u[dD][89a-fA-F]")
"""Halves of characters, as JSON may spell them one by one."""

Column = Any
"""`pyarrow.Array`, or a list where cells are of several types."""


class JsonLines:
    """A `.jsonl` file: a line is one object; a key that it lacks is an empty cell.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []
        self.told: list[str] = []

    def blocks(self) -> Iterator[tuple[dict[str, Column], Sequence[int]]]:
        """Blocks of rows by column, and their lines.

        Raises:
            DataError: A line is no object, or no UTF-8; names it.
        """
        rows: list[dict[str, Cell]] = []
        lines: list[int] = []
        for line, text in enumerate(_text_lines(self.path), start=1):
            if not text.strip():
                continue
            try:
                row = parse_json(text, object_pairs_hook=_once)
            except ValueError as error:
                raise DataError(f"{self.path}, line {line}: not JSON: {error}") from None
            if not isinstance(row, dict):
                raise DataError(f"{self.path}, line {line}: a {type(row).__name__} instead of an object")
            if _HALF.search(text) is not None:
                _check_halves(row, f"{self.path}, line {line}")
            rows.append(row)
            lines.append(line)
            if len(rows) == _ROWS:
                yield _columns(rows), lines
                rows, lines = [], []
        if rows:
            yield _columns(rows), lines


class JsonList:
    """A `.json` file: a list of objects, or columns as pandas writes them.

    Args:
        path: The file.

    Raises:
        DataError: It is neither.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.names: list[str] = []
        self.told: list[str] = []
        try:
            text = "".join(_text_lines(path))
            content = parse_json(text, object_pairs_hook=_once)
        except ValueError as error:
            raise DataError(f"{path}: not JSON: {error}") from None
        self.rows = _rows(path, content)
        if _HALF.search(text) is not None:
            for place, row in enumerate(self.rows, start=1):
                _check_halves(row, f"{path}, row {place}")

    def blocks(self) -> Iterator[tuple[dict[str, Column], Sequence[int]]]:
        """Blocks of rows by column, and their numbers from 1."""
        for place in range(0, len(self.rows), _ROWS):
            some = self.rows[place : place + _ROWS]
            yield _columns(some), range(place + 1, place + 1 + len(some))


def open_json(path: Path) -> JsonLines | JsonList:
    """Opens a `.json` file, which may have one object per line all the same."""
    with open(path, "rb") as file:
        first = file.readline().removeprefix(b"\xef\xbb\xbf").strip()
        second = file.readline().strip()
    if first.startswith(b"{") and first.endswith(b"}") and second.startswith(b"{"):
        return JsonLines(path)
    return JsonList(path)


def as_column(cells: list[Cell]) -> Column:
    """Cells as an array of one type where they have one."""
    try:
        return pa.array(cells)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return cells


def joined(pieces: Sequence[Column]) -> Any:
    """The pieces of a column as one."""
    if all(isinstance(piece, pa.Array) for piece in pieces):
        kinds = {piece.type for piece in pieces if not pa.types.is_null(piece.type)}
        kind = next(iter(kinds)) if len(kinds) == 1 else pa.null() if not kinds else None
        if kinds == {pa.int64(), pa.float64()}:
            kind = pa.float64()
        if kind is not None:
            try:
                return pa.chunked_array([piece if piece.type == kind else piece.cast(kind) for piece in pieces], kind)
            except pa.ArrowInvalid:  # a whole number that no float64 is
                pass
    return [cell for piece in pieces for cell in (piece if isinstance(piece, list) else piece.to_pylist())]


def _columns(rows: Sequence[Mapping[str, Cell]]) -> dict[str, Column]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: as_column([row.get(name) for row in rows]) for name in names}


def _rows(path: Path, content: Any) -> list[dict[str, Cell]]:
    if isinstance(content, dict) and content:
        values = list(content.values())
        lists = [value for value in values if isinstance(value, list) and value and isinstance(value[0], dict)]
        even = all(isinstance(value, list) and len(value) == len(values[0]) for value in values)
        if all(isinstance(value, dict) and value.keys() == values[0].keys() for value in values):
            turned = [{name: column[key] for name, column in content.items()} for key in values[0]]
            content = _indexed(content) if _are_rows(content, turned) else turned
        elif _is_split(content):
            content = [_named(path, content["columns"], row, place) for place, row in enumerate(content["data"], 1)]
        elif even and (len(values) > 1 or not lists):
            content = [dict(zip(content, cells, strict=True)) for cells in zip(*values, strict=True)]
        elif len(lists) == 1:
            content = lists[0]
    if not isinstance(content, list):
        raise DataError(f"{path}: a {type(content).__name__} that is no list of objects, one per row")
    for place, row in enumerate(content, start=1):
        if not isinstance(row, dict):
            raise DataError(f"{path}, row {place}: a {type(row).__name__} instead of an object")
    return content


def _is_split(content: Mapping[str, Any]) -> bool:
    """Whether an object has names of columns, and lists of cells beside them."""
    names, rows = content.get("columns"), content.get("data")
    return isinstance(names, list) and isinstance(rows, list) and all(isinstance(row, list) for row in rows)


def _are_rows(content: Mapping[str, Mapping[str, Cell]], turned: Sequence[Mapping[str, Cell]]) -> bool:
    """Whether objects in an object are its rows, and not its columns: by types, by numbers for names, by how many."""
    alike, across = (
        all(len({_type(c) for c in one.values() if c is not None}) < 2 for one in many)
        for many in (list(content.values()), turned)
    )
    if alike != across:
        return across
    if all(map(str.isdecimal, inner := next(iter(content.values())))):
        return False
    return all(map(str.isdecimal, content)) or len(content) > len(inner)


def _indexed(content: Mapping[str, Mapping[str, Cell]]) -> list[dict[str, Cell]]:
    """Rows by name; the names are a column of their own, unless they are numbers."""
    if all(map(str.isdecimal, content)) or any("index" in row for row in content.values()):
        return [dict(row) for row in content.values()]
    return [{"index": name, **row} for name, row in content.items()]


def _type(cell: Cell) -> type:
    return float if type(cell) is int else type(cell)


def _named(path: Path, names: Sequence[Any], row: Any, place: int) -> dict[str, Cell]:
    if not isinstance(row, list) or len(row) != len(names):
        raise DataError(f"{path}, row {place}: no list of {len(names)} cells, which is what columns names")
    return dict(zip(map(str, names), row, strict=True))


def _check_halves(row: Mapping[str, Cell], place: str) -> None:
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start : error.end])
        raise DataError(f"{place}: {half} is half of a character, which no text may hold; write all of it") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = [name for name in found if names.count(name) > 1]
        raise ValueError(f"the keys {twice} occur twice")
    return found


def _text_lines(path: Path) -> Iterator[str]:
    """The lines of a file in UTF-8.

    Raises:
        DataError: A byte is not UTF-8, or a character is NUL; names the line.
    """
    with open(path, "rb") as file:
        for line, content in enumerate(file, start=1):
            content = content.removeprefix(b"\xef\xbb\xbf") if line == 1 else content
            if b"\0" in content:
                raise DataError(f"{path}, line {line}: a NUL character; if it is UTF-16, save the table as UTF-8")
            try:
                yield content.decode()
            except UnicodeDecodeError as error:
                byte = content[error.start]
                raise DataError(f"{path}, line {line}: byte {byte:#x} is not UTF-8; save the table as UTF-8") from None
