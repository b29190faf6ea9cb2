"""Tables as text with separators: read by Arrow, and row by row where Arrow would not say what is wrong."""

import csv
import io
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lightning_mmnas.data.table.dialect import Dialect, Reading, long_cells, recognise
from lightning_mmnas.errors import DataError

_PIECE = 1 << 25
"""Bytes that are searched for line breaks at once."""
_BLOCK = 1 << 20
"""Least size of the blocks that are parsed at once, in bytes."""
_SAMPLE = 1 << 20
"""Bytes of the first rows that the dialect is recognised from, if they are not longer."""
_SLOW_ROWS = 10_000

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Integers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Records:
    """Where the rows of a text are.

    Attributes:
        starts: Of each row, in bytes.
        ends: Likewise, before the line break.
        lines: In which line of the file each begins, from 1.
        strict: Whether every quote opens or closes a whole cell.
    """

    starts: Integers
    ends: Integers
    lines: Integers
    strict: bool


class DelimitedFile:
    """A `.csv` or `.tsv` file.

    Args:
        path: The file.
        reading: What the user says of it.

    Raises:
        DataError: It is not a text, or its dialect is doubtful.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = path
        self.content, before = _content(path)
        self.bytes = np.frombuffer(self.content, np.uint8)
        nul = self.content.find(b"\0")
        if nul >= 0:
            line = 1 + self.content[:nul].count(b"\n")
            raise DataError(f"{path}, line {line}: a NUL character; if it is UTF-16, save the table as UTF-8")
        start = 3 if self.content[:3] == b"\xef\xbb\xbf" else 0
        if (separator := _excel_line(self.content[start : start + 16])) is not None:
            start = self.content.find(b"\n") + 1
            before += (f"separator {separator!r}, as the first line says",)
            reading = replace(reading, separator=reading.separator or separator)
        self.start = start
        sample = self._sample()
        self.dialect: Dialect = recognise(path, sample, reading)
        self.told = (*before, *self.dialect.told)
        self.records = find_records(self.bytes, start, self.dialect.separator, self.dialect.quote)
        self.first = 1 if self.dialect.header else 0
        self.lines = self.records.lines[self.first :]
        if self.first:  # Arrow reads what comes after it
            for _ in _lines(path, self.content[start : int(self.records.ends[0])], start):
                pass

    @property
    def names(self) -> list[str]:
        """Of the columns."""
        return self.dialect.names

    def blocks(self) -> Iterator[tuple[dict[str, pa.Array], Integers]]:
        """Blocks of rows: the cells of each column as texts, and the lines in which the rows begin.

        Raises:
            DataError: A row cannot be read; names the line.
        """
        row = 0
        for columns in self._batches():
            count = len(next(iter(columns.values())))
            self._check_names_again(columns, row)
            yield columns, self.lines[row : row + count]
            row += count

    def _batches(self) -> Iterator[dict[str, pa.Array]]:
        if len(self.lines) == 0:
            return
        if not self.records.strict:
            yield from self._slowly()
            return
        import pyarrow.csv as pacsv

        dialect = self.dialect
        names = [*dialect.names, *(["dropped"] if dialect.dropped else [])]
        numbered = [str(place) for place in range(len(names))]  # names of the user's may be anything
        longest = int((self.records.ends - self.records.starts).max())
        quotes = bool(np.any(self.records.lines[1:] - self.records.lines[:-1] > 1))
        start = int(self.records.starts[self.first])
        source = pa.BufferReader(pa.py_buffer(self.content).slice(start))
        count = 0
        try:
            reader = pacsv.open_csv(
                source,
                read_options=pacsv.ReadOptions(column_names=numbered, block_size=max(_BLOCK, 2 * longest + 2)),
                parse_options=pacsv.ParseOptions(
                    delimiter=dialect.separator, quote_char=dialect.quote, newlines_in_values=quotes
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types=dict.fromkeys(numbered, pa.string()), strings_can_be_null=False
                ),
            )
            for batch in reader:
                count += batch.num_rows
                if batch.num_rows:
                    columns = batch.columns
                    if dialect.dropped:
                        self._check_dropped(columns[-1])
                    yield dict(zip(dialect.names, columns, strict=False))
        except pa.ArrowInvalid as error:
            for _ in self._slowly():  # names the line
                pass
            raise DataError(f"{self.path}: {str(error).splitlines()[0]}") from None
        if count != len(self.lines):
            raise DataError(
                f"{self.path}: {count} rows were read of {len(self.lines)} lines; quote all cells and try again"
            )

    def _sample(self) -> str:
        """The first rows."""
        end = min(len(self.content), self.start + _SAMPLE)
        if end < len(self.content):
            end = max(self.content.rfind(b"\n", self.start, end), self.content.rfind(b"\r", self.start, end)) + 1
            end = end if end > self.start else len(self.content)  # one line is longer
        return str(self.content[self.start : end], "utf-8", errors="replace")

    def _check_dropped(self, cells: pa.Array) -> None:
        import pyarrow.compute as pc

        if not pc.all(pc.equal(pc.utf8_trim_whitespace(cells), "")).as_py():
            for _ in self._slowly():
                pass

    def _check_names_again(self, columns: dict[str, pa.Array], row: int) -> None:
        """Refuses a row that is the names of the columns again, as joined files have it."""
        import pyarrow.compute as pc

        if not self.dialect.header or len(columns) < 2:
            return
        again: Any = None
        for name, cells in columns.items():
            equal = pc.equal(pc.utf8_trim_whitespace(cells), "" if name.startswith("Unnamed: ") else name)
            again = equal if again is None else pc.and_(again, equal)
            if not pc.any(again).as_py():
                return
        line = self.lines[row + pc.index(again, True).as_py()]
        raise DataError(
            f"{self.path}, line {line}: the names of the columns again; if files were joined, delete that line; if the "
            "first line names no columns: --no-header (data.init_args.header)"
        )

    def _slowly(self) -> Iterator[dict[str, pa.Array]]:
        """Row by row, with Python's reader, which is strict with quotes."""
        dialect = self.dialect
        reader = csv.reader(
            _lines(self.path, self.content[self.start :], self.start),
            delimiter=dialect.separator,
            quotechar=dialect.quote,
            strict=True,
            skipinitialspace=dialect.spaced,
        )
        offset = int(self.content[: self.start].count(b"\n"))
        rows: list[list[str]] = []
        lines: list[int] = []
        before, header = 0, dialect.header
        with long_cells():
            while True:
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    raise DataError(f"{self.path}, line {offset + reader.line_num}: {error}") from None
                line, before = offset + before + 1, reader.line_num
                if cells is None:
                    break
                if header or not cells:
                    header = header and not cells
                    continue
                if len(cells) != dialect.width or (dialect.dropped and cells[-1].strip()):
                    count = len(cells)
                    expected = len(dialect.names)
                    raise DataError(f"{self.path}, line {line}: {count} cells instead of {expected}, as the header has")
                rows.append(cells)
                lines.append(line)
        self.lines = np.array(lines, np.int64)
        for place in range(0, len(rows), _SLOW_ROWS):
            columns = zip(*rows[place : place + _SLOW_ROWS], strict=True)
            yield {name: pa.array(cells, pa.string()) for name, cells in zip(dialect.names, columns, strict=False)}


def find_records(content: Bytes, start: int, separator: str, quote: str) -> Records:
    """Finds the rows of a text: line breaks within quotes end none, and empty lines are none."""
    breaks, quoted = [], []
    quotes = [np.empty(0, np.int64)]
    for place in range(start, len(content), _PIECE):
        piece = content[place : place + _PIECE]
        ends = np.flatnonzero((piece == 10) | (piece == 13)) + place
        carriage = ends[content[ends] == 13]
        following = content[np.minimum(carriage + 1, len(content) - 1)]
        double = carriage[(following == 10) & (carriage + 1 < len(content))]
        breaks.append(ends[~np.isin(ends, double)] if len(double) else ends)
        marks = np.flatnonzero(piece == ord(quote)) + place
        seen = sum(map(len, quotes))
        inner = (np.searchsorted(marks, breaks[-1]) + seen) % 2 == 1
        quoted.append(inner)
        quotes.append(marks)
    ends = np.concatenate([np.empty(0, np.int64), *breaks])
    inner = np.concatenate([np.empty(0, bool), *quoted])
    marks = np.concatenate(quotes)
    strict = _well_quoted(content, start, marks, separator)
    line = np.flatnonzero(~inner) + 2  # of what follows the break
    outer = ends[~inner]
    starts = np.concatenate(([start], outer + 1))
    stops = np.concatenate((outer, [len(content)]))
    stops[:-1] -= (content[np.maximum(outer - 1, 0)] == 13) & (content[outer] == 10) & (outer > starts[:-1])
    lines = np.concatenate(([1], line)) + int(np.count_nonzero(content[:start] == 10))
    there = stops > starts
    return Records(starts[there], stops[there], lines[there], strict)


def _well_quoted(content: Bytes, start: int, marks: Integers, separator: str) -> bool:
    """Whether each opening quote begins a cell and each closing one ends it; two in a row are one in the text."""
    if len(marks) == 0:
        return True
    if len(marks) % 2:
        return False
    opens, closes = marks[::2], marks[1::2]
    around = np.zeros(256, bool)
    around[[ord(separator), 10, 13]] = True
    before = around[content[np.maximum(opens - 1, 0)]] | (opens == start)
    before[1:] |= opens[1:] == closes[:-1] + 1
    after = around[content[np.minimum(closes + 1, len(content) - 1)]] | (closes == len(content) - 1)
    after[:-1] |= closes[:-1] + 1 == opens[1:]
    return bool(before.all() and after.all())


def _content(path: Path) -> tuple[Any, tuple[str, ...]]:
    """The bytes of a file as UTF-8, and what was recognised."""
    with open(path, "rb") as file:
        head = file.read(4)
        if not head:
            raise DataError(f"{path} is empty; its first line names the columns")
        wide = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}.get(head[:2])
        if wide is None:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), ()
        try:
            text = (head + file.read()).decode(wide)
        except UnicodeDecodeError as error:
            raise DataError(f"{path}: not UTF-16, as its first bytes say: {error}; save the table as UTF-8") from None
    return text.encode(), ("UTF-16",)


def _excel_line(head: bytes) -> str | None:
    """The separator that a first line like "sep=;" names."""
    first = head.splitlines()[0] if head.splitlines() else b""
    if not first.lower().startswith(b"sep=") or len(first) != 5:
        return None
    return first[4:].decode("ascii", errors="replace")


def _lines(path: Path, content: bytes, start: int = 0) -> Iterator[str]:
    """The lines of a text in UTF-8, with their ends as they are; beyond byte 3 it begins in line 2.

    Raises:
        DataError: A byte is not UTF-8; names the line.
    """
    try:
        yield from io.StringIO(content.decode("utf-8"), newline="")
    except UnicodeDecodeError as error:
        line = 1 + content[: error.start].count(b"\n") + (start > 3)
        byte = content[error.start]
        raise DataError(f"{path}, line {line}: byte {byte:#x} is not UTF-8; save the table as UTF-8") from None
