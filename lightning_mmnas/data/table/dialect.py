"""How a table is written as text: its separator, quotes and header, recognised from its first rows."""

import csv
import io
import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lightning_mmnas.data.table.numbers import EMPTY, WORDS, Decimal, is_empty, looks_like_number, numbers_of
from lightning_mmnas.errors import ConfigError, DataError

SEPARATORS = (",", ";", "\t", "|")
"""Those that are recognised; others must be given."""
_NAMES = {",": "','", ";": "';'", "\t": "tab", "|": "'|'", " ": "space"}
_ROWS = 500
"""Rows that are looked at."""


@dataclass(frozen=True)
class Reading:
    """What the user says of a table; None: it is recognised.

    Args:
        separator: Between the cells of a row, one character; tab may be called "tab".
        decimal: The decimal mark of texts that are numbers.
        header: Whether the first row names the columns.
        empty: Spellings of an empty cell; None: the usual ones, of which "None" and "-" count among numbers and paths
            only. White space is always empty.
        files_from: Folder that files are named relative to; None: that of the table.
        likely: Separator and decimal mark where nothing speaks against them, such as those of training.
        numbers: Columns that are known to hold numbers, in which more spellings are empty than in texts; of the others
            the cells tell.
    """

    separator: str | None = None
    decimal: Decimal | None = None
    header: bool | None = None
    empty: Sequence[str] | None = None
    files_from: str | None = None
    likely: tuple[str | None, Decimal | None] = (None, None)
    numbers: Collection[str] = ()

    def __post_init__(self) -> None:
        if self.separator in ("tab", "\\t"):
            object.__setattr__(self, "separator", "\t")
        for mark in (self.separator, self.likely[0]):
            if mark is not None and (len(mark) != 1 or mark in '"\r\n' or not mark.isascii()):
                raise ConfigError(f"separator {mark!r} is no single character that parts cells; check separator")
        if self.decimal not in (None, ".", ","):
            raise ConfigError(f"decimal {self.decimal!r} is not in ['.', ',']; check decimal")

    def spellings(self, numbers: bool) -> Sequence[str]:
        """Spellings of an empty cell, among numbers and paths or among texts."""
        if self.empty is not None:
            return [
                *self.empty,
                *(f"{n:.0f}{end}" for n in numbers_of(self.empty) if n == int(n) for end in (".0", ",0")),
            ]
        return EMPTY if numbers else [spelling for spelling in EMPTY if spelling not in WORDS]


@dataclass(frozen=True)
class Dialect:
    """How the rows of a text are written.

    Attributes:
        separator: Between cells.
        quote: Around cells that hold separators or line breaks.
        names: Of the columns, without those that are dropped.
        header: Whether the first row holds the names.
        width: Cells of a row, those included that are dropped.
        dropped: Whether the last cell of each row is dropped: it is empty, after a separator too many.
        spaced: Whether there are spaces between separators and quotes.
        told: What was recognised, where it is not the usual.
    """

    separator: str
    quote: str
    names: list[str]
    header: bool
    width: int
    dropped: bool = False
    spaced: bool = False
    told: tuple[str, ...] = ()


def recognise(path: Path, text: str, reading: Reading) -> Dialect:
    """Recognises how a table is written.

    Args:
        path: The file, for messages and its suffix.
        text: Its first rows, whole.
        reading: What the user says.

    Raises:
        DataError: It is doubtful, or the names cannot be used; says what to give.
    """
    told = []
    quote = "'" if re.match(r"'[^'\r\n]*'\s*[,;\t|]\s*'", text) else '"'
    separator = reading.separator
    if separator is None:
        separator = _separator(path, text, quote, reading.likely[0])
        told += [f"separator {_NAMES.get(separator, repr(separator))} (--separator)"] if separator != "," else []
    told += ["quotes '"] if quote == "'" else []
    records = read_records(text, separator, quote)
    if not records:
        raise DataError(f"{path} is empty; its first line names the columns")
    if separator == reading.separator != ",":
        _check_given(path, text, quote, separator, records)
    spaced = _is_spaced(records, quote)
    if spaced:
        records = read_records(text, separator, quote, spaced)
        told.append("spaces before quotes")
    header = reading.header
    if header is None:
        _check_header(path, records)
        header = True
    width = len(records[0])
    body = records[1:] if header else records
    names = [name.strip() for name in records[0]] if header else [f"column{i + 1}" for i in range(width)]
    dropped = False
    if header and body and all(len(row) == width + 1 and not row[-1].strip() for row in body):
        width, dropped = width + 1, True  # a separator too many in every row, but not in the header
    elif header and width > 1 and not names[-1] and all(len(row) < width or not row[-1].strip() for row in body):
        names, dropped = names[:-1], True
        told.append("a separator too many at the end of the first row")
        if body and all(len(row) == width - 1 for row in body):
            width, dropped = width - 1, False
    told += ["a separator too many at the end of the other rows"] if dropped else []
    if len(names) > 1 and not names[0] and any(row and row[0].strip() for row in body) and all(names[1:]):
        names[0] = next(n for n in ("Unnamed: 0", "Unnamed: 0.1", "Unnamed: 0.2") if n not in names)
        told.append(f"the first column has no name and is called {names[0]!r}")
    if not header:
        told.append(f"no header: the columns are called {names[0]} to {names[-1]}")
    check_names(path, names)
    return Dialect(separator, quote, names, header, width, dropped, spaced, tuple(told))


def check_names(path: Path, names: Sequence[str]) -> None:
    """Raises `DataError` for names of columns that are missing or occur twice."""
    if not names:
        raise DataError(f"{path} is empty; its first line names the columns")
    if "" in names:
        raise DataError(f"{path}: column {list(names).index('') + 1} has no name")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(f"{path}: several columns have the names {twice}; each needs its own")


def read_records(text: str, separator: str, quote: str = '"', spaced: bool = False) -> list[list[str]]:
    """The cells of the first rows; lenient, and without empty lines."""
    found: list[list[str]] = []
    lines = io.StringIO(text, newline="")
    with long_cells():
        for row in csv.reader(lines, delimiter=separator, quotechar=quote, skipinitialspace=spaced):
            if row:
                found.append(row)
            if len(found) > _ROWS:
                break
    return found


@contextmanager
def long_cells() -> Iterator[None]:
    """Lets Python's reader take cells of any length meanwhile."""
    before = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _separator(path: Path, text: str, quote: str, likely: str | None) -> str:
    for preferred in ("\t" if path.suffix.lower() in (".tsv", ".tab") else None, likely):
        if preferred is not None and _share_of(text, preferred, quote) == 1:
            return preferred
    shares = {one: share for one in SEPARATORS if (share := _share_of(text, one, quote)) is not None}
    whole = [separator for separator, share in shares.items() if share == 1]
    if len(whole) > 1:
        # A separator that comes with every decimal comma, or in every text, parts rows as evenly as the true one.
        shown = " and ".join(_NAMES[separator] for separator in whole)
        raise DataError(f"{path}: {shown} part all rows alike; say which one it is with --separator")
    if whole:
        return whole[0]
    if shares:
        best = max(shares.values())
        first = [separator for separator, share in shares.items() if share == best]
        return first[0]
    _check_single(path, text, quote)
    return ","


def _check_given(path: Path, text: str, quote: str, given: str, records: Sequence[Sequence[str]]) -> None:
    """Raises `DataError` where the separator that was given parts nothing, and another one all rows."""
    better = [other for other in SEPARATORS if _share_of(text, other, quote) == 1]
    if len(records[0]) == 1 and len(records) > 1 and better:
        cell, other = records[0][0].strip()[:60], _NAMES[better[0]]
        raise DataError(
            f"{path}, line 1: {cell!r} is one cell with the separator {_NAMES.get(given, given)}, but {other} parts "
            f"all rows; give --separator {other}"
        )


def _is_spaced(records: Sequence[Sequence[str]], quote: str) -> bool:
    """Whether all names, or all cells of a column, seem to begin with a space and a quote."""
    rows = [records[0][1:], *zip(*(row for row in records[1:] if len(row) >= len(records[0])), strict=False)]
    marked = [[cell[:1] == " " and cell.lstrip(" ")[:1] == quote for cell in row if cell.strip()] for row in rows]
    return any(row and all(row) for row in marked)


def _share_of(text: str, separator: str, quote: str) -> float | None:
    """Share of the rows that a separator parts as it does the header; None where it does not part that."""
    records = read_records(text, separator, quote)
    return _share(records) if records and len(records[0]) > 1 else None


def _share(records: Sequence[Sequence[str]]) -> float:
    """Share of the rows that have as many cells as the header; one empty cell more or less at the end is no fault."""
    width, body = len(records[0]), records[1:]
    if body and all(len(row) == width + 1 and not row[-1].strip() for row in body):
        return 1.0
    if body and not records[0][-1].strip() and all(len(row) == width - 1 for row in body):
        return 1.0
    return sum(len(row) == width for row in body) / len(body) if body else 1.0


def _check_single(path: Path, text: str, quote: str) -> None:
    """Raises `DataError` where what looks like one column is several."""
    records = read_records(text, "\n", quote)
    if not records:
        return
    lines = [row[0] for row in records]
    first = lines[0].strip()
    inner = [c for c in SEPARATORS if c in first and len({line.count(c) for line in lines}) == 1]
    if inner:
        raise DataError(
            f"{path}, line 1: {first[:60]!r} is one quoted cell, as is every row; write the table without quotes "
            "around whole rows"
        )
    if len(lines) < 3:
        return
    others = sorted({c for c in first if not c.isalnum() and c not in "_-./()[]#\"'" + quote}, key=first.index)
    for other in others:
        parts = [line.split() if other == " " else line.split(other) for line in lines]
        if len(parts[0]) > 1 and len({len(part) for part in parts}) == 1:
            single = other != " " or all(
                line.count(" ") == len(part) - 1 for line, part in zip(lines, parts, strict=True)
            )
            way = f"give --separator {other!r}" if single else "write it with commas"
            raise DataError(
                f"{path}, line 1: one column {first[:60]!r}, but {_NAMES.get(other, repr(other))} parts every row into "
                f"{len(parts[0])}; {way}, or --separator , if it is one column"
            )


def _check_header(path: Path, records: Sequence[Sequence[str]]) -> None:
    """Raises `DataError` where the first row looks like the others."""
    first = records[0]
    names = [cell.strip() for cell in first]  # which may come again, where files were joined
    body = [row for row in records[1:] if len(row) == len(first)]
    body = [row for row in body if len(row) == 1 or [cell.strip() for cell in row] != names]
    if not body:
        return
    data: list[str] = []
    for place, cell in enumerate(cell.strip() for cell in first):
        column = [row[place].strip() for row in body if not is_empty(row[place])]
        if not column or not cell:
            continue
        if sum(map(looks_like_number, column)) >= 0.9 * len(column):
            if not looks_like_number(cell):
                if not is_empty(cell):
                    return  # a name above numbers
                continue
            data.append(cell)
        else:
            suffix = Path(cell).suffix.lower() if len(cell) < 200 else ""
            named = 1 < len(suffix) < 6 and sum(c.lower().endswith(suffix) for c in column) > 0.5 * len(column)
            again = column.count(cell)
            if named or again > 1 or (again and len(column) < 50):
                data.append(cell)
    counted = [cell.strip() for cell in first if cell.strip().isdecimal()]
    if not data or (len(counted) > 1 and counted == [str(i) for i in range(len(counted))]):
        return  # pandas numbers columns without names from 0
    raise DataError(
        f"{path}, line 1: {', '.join(repr(cell[:40]) for cell in data[:3])} look like cells, not like names of "
        "columns; put a line of names first, or say --no-header (the columns are then column1, column2, ...) or "
        "--header (data.init_args.header)"
    )
