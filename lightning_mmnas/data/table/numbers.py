"""Cells as numbers: how they are spelt, and which spellings mean that a cell is empty."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal as ExactNumber
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightning_mmnas.errors import DataError

Cell = Any
"""Text, number, truth value, bytes, list or dict; None where the cell is empty."""
Decimal = Literal[".", ","]

EMPTY = (
    *("NaN", "nan", "NAN", "-NaN", "-nan", "NaT", "NA", "N/A", "n/a", "#NA", "#N/A", "#N/A N/A", "<NA>"),
    *("NULL", "Null", "null", "#NULL!", "None", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN", "?", "-"),
)
"""Spellings of an empty cell: those of pandas, a question mark, a dash. A cell of white space is always empty."""
WORDS = ("None", "-")
"""Those of them that are words among other texts than numbers and paths, such as a class "None"."""

_SENTINEL = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]*)?")
_LARGEST = 1e30
_MOST = 0.5
"""Share of numbers among a column's cells from which their decimal mark counts."""
_EXPONENT = r"(?:[eE][+-]?[0-9]+)?"
_MARKS = "'\u2019 \u00a0\u2007\u2009\u202f"
"""Marks between thousands that are no decimal marks: apostrophes, and spaces of several widths."""
_PLAIN = rf"^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+){_EXPONENT}$"
_COMMA = rf"^[+-]?(?:[0-9]+,?[0-9]*|,[0-9]+){_EXPONENT}$"
_GROUPS = r"^[+-]?[1-9][0-9]{0,2}(?:[%s][0-9]{3})+(?:%s[0-9]+)?$"
_THOUSANDS: dict[Decimal, str] = {
    ".": _GROUPS % ("," + _MARKS, r"\."),
    ",": _GROUPS % ("." + _MARKS, ","),
}
_LAKHS = r"^[+-]?[1-9][0-9]?(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?$"
"""As in India: 12,34,567.5; these also look like lists, so a column needs some of other lengths, and nothing else."""
_EITHER = r"^[+-]?[1-9][0-9]{0,2},[0-9]{3}$"
_POINT_ONLY = rf"^[+-]?[0-9]*\.[0-9]+{_EXPONENT}$"
_POINT_GROUPS = r"^[+-]?[1-9][0-9]{0,2}(?:\.[0-9]{3})+$"
_COMMA_GROUPS = r"^[+-]?[1-9][0-9]{0,2}(?:(?:,[0-9]{3})+\.[0-9]+|(?:,[0-9]{3}){2,})$"
_VALUE = "|".join(
    (
        *(pattern.removesuffix("$") + r"\s?%?$" for pattern in (_PLAIN, _COMMA, *_THOUSANDS.values())),
        r"(?i:^(?:true|false)$)",
        r"\.[A-Za-z0-9]{2,5}$",  # of a path
    )
)
_NUMBER = re.compile(rf"{_PLAIN}|{_COMMA}|{_THOUSANDS['.']}|{_THOUSANDS[',']}")


@dataclass(frozen=True)
class Numbers:
    """A column as numbers.

    Attributes:
        values: Shape (n,); NaN where a cell is empty or no number.
        wrong: Rows whose cells are no numbers, ascending.
        note: What was made of unusual spellings; None: nothing.
    """

    values: np.ndarray[Any, np.dtype[np.float64]]
    wrong: np.ndarray[Any, np.dtype[np.int64]]
    note: str | None = None


@dataclass(frozen=True)
class Marks:
    """Cells that tell the decimal mark of a table, by example; None: there is none such.

    Attributes:
        comma: One that is a number only if the comma is the decimal mark, such as 1,5.
        point: One that is a number only if the point is, such as 1.5 or 1,234.5.
        either: One that is a number in both ways, such as 1,234.
    """

    comma: str | None = None
    point: str | None = None
    either: str | None = None

    def __or__(self, other: "Marks") -> "Marks":
        return Marks(self.comma or other.comma, self.point or other.point, self.either or other.either)


def is_empty(cell: Cell, empty: Sequence[str] = EMPTY) -> bool:
    """Whether a cell is empty: None, NaN, NaT, white space, or one of the spellings."""
    if isinstance(cell, str):
        return not cell.strip() or cell.strip() in empty
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(cell, ExactNumber):
        return cell.is_nan()
    if isinstance(cell, int | float | np.number) and not isinstance(cell, bool) and float(cell) in numbers_of(empty):
        return True
    return isinstance(cell, float | np.floating) and bool(cell != cell)


def numbers_of(empty: Sequence[str]) -> frozenset[float]:
    """The numbers among spellings of an empty cell, such as -999: of numbers in numeric columns, however written."""
    return frozenset(float(text) for text in empty if _SENTINEL.fullmatch(text))


def are_values(cells: pa.ChunkedArray) -> bool:
    """Whether most of the texts are no words: numbers with either decimal mark, shares, truth values or paths."""
    count = pc.sum(_matches(cells, _VALUE)).as_py() or 0
    return len(cells) > 0 and count >= _MOST * len(cells)


def looks_like_number(text: str) -> bool:
    """Whether a text is a number with either decimal mark."""
    return _NUMBER.match(text.strip().removesuffix("%").rstrip()) is not None


def number(cell: Cell, decimal: Decimal = ".") -> float:
    """A cell as a number.

    Raises:
        ValueError: It is none, or NaN or infinity.
    """
    if isinstance(cell, str):
        found = parse_numbers(pa.array([cell], pa.string()), decimal)
        if len(found.wrong) or math.isnan(found.values[0]):
            raise ValueError(why_wrong(cell, decimal))
        return float(found.values[0])
    cell = cell.total_seconds() if isinstance(cell, timedelta) else cell
    if not isinstance(cell, bool | int | float | ExactNumber | np.number | np.bool_):
        raise ValueError(f"{cell!r} is not a number")
    try:
        value = float(cell)
    except OverflowError:
        raise ValueError(f"{str(cell)[:40]!r} is not a number") from None
    if not math.isfinite(value) or abs(value) > _LARGEST:
        raise ValueError(f"{value} is not a usable number")
    return value


def why_wrong(cell: Cell, decimal: Decimal) -> str:
    """Why a cell is no number, for messages."""
    if not isinstance(cell, str | int | float):
        return f"{str(cell)[:40]} is not a number"
    try:
        value = 0.0 if "_" in str(cell) else float(cell)
    except (ValueError, OverflowError):
        value = 0.0
    if not math.isfinite(value) or abs(value) > _LARGEST:
        return f"{value} is not a usable number"
    return f"{str(cell)[:40]!r} is not a number{' with a decimal comma' if decimal == ',' else ''}"


def parse_numbers(column: pa.ChunkedArray | pa.Array | list[Cell], decimal: Decimal = ".") -> Numbers:
    """Reads a whole column as numbers: booleans are 0 and 1, texts may have marks between thousands.

    "12%" is 0.12 where all cells are per cent, "true" is 1 where all are true or false.

    Args:
        column: Its cells.
        decimal: The decimal mark of texts.
    """
    if isinstance(column, list):
        return _parse_mixed(column, decimal)
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
        if isinstance(column, pa.ChunkedArray):  # older versions, and columns without a chunk
            column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _parse_texts(column, decimal)
    if pa.types.is_null(kind):
        return Numbers(np.full(len(column), np.nan), np.empty(0, np.int64))
    if pa.types.is_boolean(kind):
        column = pc.cast(column, pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return Numbers(np.full(len(column), np.nan), np.flatnonzero(_array(column.is_valid())))
    return _checked(_floats(column), column, None)


def marks_of(column: pa.ChunkedArray | pa.Array | list[Cell]) -> Marks:
    """Which decimal marks the texts of a column have; nothing unless most of its cells are numbers."""
    if isinstance(column, list):
        column = pa.array([cell if isinstance(cell, str) else None for cell in column], pa.string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return Marks()
    comma = bool(pc.any(pc.match_substring(column, ",")).as_py())
    if not comma and not bool(pc.any(pc.match_substring(column, ".")).as_py()):
        return Marks()
    cells = pc.utf8_trim_whitespace(column.drop_null())
    point = pc.and_(_matches(cells, _POINT_ONLY), pc.invert(_matches(cells, _POINT_GROUPS)))
    if not comma:
        count = pc.sum(_matches(cells, _PLAIN)).as_py() or 0
        return Marks(point=_example(cells, point)) if count >= _MOST * len(cells) else Marks()
    either = _matches(cells, _EITHER)
    grouped = _matches(cells, _COMMA_GROUPS)
    commas = pc.or_(_matches(cells, _COMMA), _matches(cells, _THOUSANDS[","]))
    commas = pc.and_(pc.and_(commas, pc.match_substring(cells, ",")), pc.invert(pc.or_(either, grouped)))
    every = pc.or_(pc.or_(pc.or_(commas, either), grouped), _matches(cells, _PLAIN))
    if (pc.sum(every).as_py() or 0) < _MOST * len(cells):
        return Marks()
    return Marks(_example(cells, commas), _example(cells, pc.or_(point, grouped)), _example(cells, either))


def decimal_mark(path: Path, marks: Mapping[str, Marks], comma_separated: bool, likely: Decimal | None) -> Decimal:
    """The decimal mark of a table's texts.

    Args:
        path: The table, for messages.
        marks: Of its columns.
        comma_separated: Whether commas part its cells, so that one in a cell stands between thousands.
        likely: What to take where the cells do not tell.

    Raises:
        DataError: Cells tell both, or it is doubtful.
    """
    comma = next(((name, found.comma) for name, found in marks.items() if found.comma), None)
    point = next(((name, found.point) for name, found in marks.items() if found.point), None)
    either = next(((name, found.either) for name, found in marks.items() if found.either), None)
    if comma and point and likely is None:
        raise DataError(
            f"{path}: {comma[1]!r} in column {comma[0]!r} has a decimal comma, {point[1]!r} in column {point[0]!r} a "
            "decimal point; say which one is meant with --decimal (data.init_args.decimal)"
        )
    if bool(comma) != bool(point):
        return "," if comma else "."
    if either and likely is None and not comma_separated:
        raise DataError(
            f"{path}: {either[1]!r} in column {either[0]!r} has a decimal comma, or one between thousands; say which "
            "with --decimal , or --decimal . (data.init_args.decimal)"
        )
    return likely or "."


def _parse_texts(column: pa.Array, decimal: Decimal, alone: bool = True) -> Numbers:
    """Texts as numbers; beside other cells, not `alone`, shares and truth values are none."""
    there = np.flatnonzero(_array(column.is_valid()))
    values = np.full(len(column), np.nan)
    cells = pc.utf8_trim_whitespace(column.drop_null())
    if decimal == ".":
        try:  # the usual case in one step
            found = _floats(pc.cast(cells, pa.float64()))
            if np.isfinite(found).all():
                values[there] = found
                return _checked(values, column, None)
        except pa.ArrowInvalid:
            pass
    lower = pc.utf8_lower(cells)
    if alone and pc.all(pc.is_in(lower, pa.array(["true", "false"], lower.type))).as_py():
        values[there] = _array(pc.equal(lower, "true"))
        return Numbers(values, np.empty(0, np.int64), "true is 1, false is 0" if len(there) else None)
    cells = pc.replace_substring(cells, "\u2212", "-")
    notes, scale = [], 1.0
    if alone and pc.all(pc.ends_with(cells, "%")).as_py():
        notes, scale = ["per cent: 12% is 0.12"], 100.0
        cells = pc.utf8_rtrim_whitespace(pc.utf8_slice_codeunits(cells, 0, -1))
    plain = _matches(cells, _PLAIN if decimal == "." else _COMMA)
    grouped = pc.and_(_matches(cells, _THOUSANDS[decimal]), pc.invert(plain))
    if decimal == "." and pc.any(lakhs := _matches(cells, _LAKHS)).as_py():
        every = pc.or_(grouped, lakhs)
        varied = len(pc.unique(pc.count_substring(cells, ","))) > 1 or pc.any(pc.match_substring(cells, ".")).as_py()
        grouped = every if varied and pc.all(pc.or_(plain, every)).as_py() else grouped
    if (example := _example(cells, grouped)) is not None:
        count = pc.sum(grouped).as_py()
        bare = re.sub(f"[{'.' if decimal == ',' else ','}{_MARKS}]", "", example)
        notes.append(f"marks between thousands in {count} cells: {example} is {bare}")
        without = pc.replace_substring_regex(cells, f"[{'.' if decimal == ',' else ','}{_MARKS}]", "")
        cells = pc.if_else(grouped, without, cells)
    usable = pc.or_(plain, grouped)
    cells = pc.utf8_ltrim(pc.replace_substring(cells, ",", ".") if decimal == "," else cells, "+")
    found = _floats(pc.cast(pc.if_else(usable, cells, None), pa.float64())) / scale
    values[there] = found
    return _checked(values, column, "; ".join(notes) or None)


def _parse_mixed(cells: list[Cell], decimal: Decimal) -> Numbers:
    """Cells of several types, as JSON has them."""
    alone = all(cell is None or isinstance(cell, str) for cell in cells)
    column = pa.array([cell if isinstance(cell, str) else None for cell in cells], pa.string())
    texts = _parse_texts(column, decimal, alone)
    values, wrong = texts.values.copy(), set(texts.wrong.tolist())
    for row, cell in enumerate(cells):
        if cell is not None and not isinstance(cell, str):
            try:
                values[row] = number(cell)
            except ValueError:
                wrong.add(row)
    return Numbers(values, np.array(sorted(wrong), np.int64), texts.note)


def _checked(values: np.ndarray[Any, np.dtype[np.float64]], column: pa.Array, note: str | None) -> Numbers:
    """The numbers, without those that are not finite or too large for single precision."""
    with np.errstate(invalid="ignore"):
        good = np.abs(values) <= _LARGEST
    values = np.where(good, values, np.nan)
    return Numbers(values, np.flatnonzero(~good & _array(column.is_valid())), note)


def _matches(cells: pa.Array, pattern: str) -> pa.Array:
    return pc.match_substring_regex(cells, pattern)


def _example(cells: pa.Array, mask: pa.Array) -> str | None:
    place = pc.index(mask, True).as_py()
    return None if place < 0 else str(cells[place].as_py())


def _floats(column: pa.Array) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers as float64, NaN where there is none."""
    found: np.ndarray[Any, np.dtype[np.float64]] = pc.cast(column, pa.float64(), safe=False).to_numpy(
        zero_copy_only=False
    )
    return found


def _array(column: pa.Array | pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    found: np.ndarray[Any, np.dtype[np.bool_]] = column.to_numpy(zero_copy_only=False)
    return found
