"""Classes out of the cells of a label column, the same way in training and of a delivered model."""

import ast
import math
import re
import unicodedata
import warnings
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any

import torch
from torch import Tensor

from lightning_mmnas.data.table.reading import Cell, Table
from lightning_mmnas.errors import DataError
from lightning_mmnas.parsing import parse_json

Classes = tuple[str, ...]

_LONGEST = 100_000
"""Characters of a cell that is read as a list."""
_REAL = 20
"""Different numbers, not all of them whole, up to which they may be classes even if there are few rows of each."""
_ROWS = 10
"""Rows of a class, on average, from which it may be any number."""
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ITEM = rf"(?:{_QUOTED}|[-+]?\d+(?:\.\d*)?|[Tt]rue|[Ff]alse)"
_LISTS = [
    re.compile(rf"\s*{_ITEM}(?:{part}{_ITEM})*\s*{end}", re.S) for part, end in ((r"\s*,\s*", ",?"), (r"\s+", ""))
]
"""Between the brackets: with commas, as Python writes a list, or with spaces, as numpy does."""
_LIKE_A_LIST = re.compile(
    r"""\[\s*\]|[\[({]\s*['"].*[\])}]|[\[{].*,.*[\]}]|\[[-+\d.\s]+\]|(?:array|set|list)\(.*\)""", re.S
)
_WHOLE = re.compile(r"(-?\d+)\.0*", re.ASCII)
_INTEGER = re.compile(r"-?\d{1,18}")
_NUMBER = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)


def read_classes(table: Table, column: str, separator: str | None) -> tuple[list[Classes | None], bool]:
    """The classes of each row, None where it is unlabelled, and whether a row may have several.

    Args:
        table: The table.
        column: The label column.
        separator: What parts the classes of a cell; None: a cell is one class, unless cells are lists.

    Raises:
        DataError: A cell is neither a text, a number nor a list of these (names the line), none is labelled, or they
            are amounts and no classes.
    """
    keys = [_key(cell) for cell in table.cells(column)]
    first: dict[Any, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    lists = {key: as_list(table.cell(row, column), table.place(row, column)) for key, row in first.items()}
    several = separator is not None or any(found is not None for found in lists.values())
    _check_vectors(table, column, {first[key]: found for key, found in lists.items() if found})
    classes = {
        key: cell_classes(table.cell(row, column), separator, several, table.place(row, column))
        for key, row in first.items()
    }
    found = [classes[key] for key in keys]
    if all(row is None for row in found):
        raise DataError(
            f"{table.path}: no row has a label in column {column!r}; leave label out, or set data.init_args.label to "
            "another column"
        )
    if not several:
        _check_amounts(table, column, found)
    return found, several


def cell_classes(
    cell: Cell, separator: str | None, several: bool, place: str, known: Mapping[str, str] | None = None
) -> Classes | None:
    """The classes in one cell, None where it is empty.

    Texts lose white space at their ends and take one Unicode form (NFC); whole numbers have no fraction, so that 1, 1.0
    and "1.0" are the class "1"; truth values are "True" and "False" however they are spelt. A text that is a list, as
    JSON, Python or numpy write it, is one.

    Args:
        cell: The cell.
        separator: What parts several classes; None: lists do.
        several: Whether there may be several.
        place: Of the cell, for messages.
        known: The classes of a model, see `known_classes`; their spelling comes first.

    Raises:
        DataError: It holds no classes.
    """
    known = known or {}
    cell = _plain(cell)
    if isinstance(cell, str) and not several and cell.strip() in known:
        return (known[cell.strip()],)
    if is_unlabelled(cell):
        return None
    parts = as_list(cell, place)
    if parts is None and several and separator is None:
        raise DataError(
            f"{place}: {shown(cell)} is no list, as other labels are; write it as one, or all with a separator "
            "(data.init_args.label_separator)"
        )
    if parts is not None and not several:
        raise DataError(f"{place}: {shown(cell)} is a list, and a row has one class only")
    if parts is None:
        parts = cell.split(separator) if separator is not None and isinstance(cell, str) else [cell]
    names = [_known_name(_plain(part), place, known) for part in parts]
    if len(set(names)) < len(names):
        raise DataError(f"{place}: a class occurs twice in {names}")
    return tuple(names)


def known_classes(names: Sequence[str]) -> dict[str, str]:
    """Spellings of a model's classes, with the class: as they are named, and as `cell_classes` names them now."""
    return {**{class_name(name, "the model"): name for name in names}, **{name: name for name in names}}


def class_name(part: Cell, place: str) -> str:
    """The name of a class or group in one spelling; see `cell_classes`.

    Raises:
        DataError: It is neither a text, a number nor a date.
    """
    if isinstance(part, date | time):
        return part.isoformat()
    if isinstance(part, float | Decimal) and math.isfinite(part):
        return str(int(part)) if part == int(part) else str(part)
    if isinstance(part, int):
        return str(part)
    if isinstance(part, str) and part.strip():
        text = unicodedata.normalize("NFC", part.strip())
        if (whole := _WHOLE.fullmatch(text)) is not None:
            return "0" if whole[1] == "-0" else whole[1]
        return text.capitalize() if text.lower() in ("true", "false") else text
    raise DataError(f"{place}: {shown(part)} is no class or group; these are texts or numbers")


def is_unlabelled(cell: Cell) -> bool:
    """Whether a cell is empty: None, NaN or white space; which texts are is known to its table."""
    if cell is None or isinstance(cell, float | Decimal):
        return cell is None or math.isnan(cell)
    return isinstance(cell, str) and not cell.strip()


def class_names(classes: Iterable[Classes | None]) -> list[str]:
    """All classes, sorted; whole numbers by their value."""
    names = {name for row in classes for name in row or ()}
    whole = all(_INTEGER.fullmatch(name) for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if whole else sorted(names)


def encode_classes(classes: Sequence[Classes | None], names: Sequence[str], several: bool) -> Tensor:
    """Labels of rows, shape (n,), or (n, num_classes) where there are several; -1 where a row is unlabelled."""
    place = {name: index for index, name in enumerate(names)}
    if not several:
        return torch.tensor([-1 if row is None else place[row[0]] for row in classes], dtype=torch.long)
    labels = torch.zeros(len(classes), len(names), dtype=torch.long)
    ones = [(index, place[name]) for index, row in enumerate(classes) for name in row or ()]
    if ones:
        labels[tuple(torch.tensor(ones).T)] = 1
    labels[torch.tensor([row is None for row in classes], dtype=torch.bool)] = -1
    return labels


def as_list(cell: Cell, place: str) -> list[Cell] | None:
    """The items of a cell that is a list, or a text that is one; None: it is none.

    Raises:
        DataError: It looks like a list, and cannot be read as one.
    """
    if isinstance(cell, list | tuple):
        return list(cell)
    if hasattr(cell, "tolist") and getattr(cell, "ndim", 0) > 0:
        return list(cell.tolist())
    text = cell.strip() if isinstance(cell, str) else ""
    if not _LIKE_A_LIST.fullmatch(text):
        return None
    if len(text) > _LONGEST:
        raise DataError(f"{place}: a list of {len(text)} characters is too long for a label")
    try:
        found: Any = parse_json(text)
    except ValueError:
        found = None
    if isinstance(found, list):
        return found
    if any(pattern.fullmatch(text[1:-1]) for pattern in _LISTS):
        # One item at a time: Python would take 'cat' 'dog' for 'catdog'.
        return [_literal(item, place) for item in re.findall(_ITEM, text[1:-1], re.S)]
    raise DataError(
        f'{place}: {shown(text)} looks like a list, but is none; write ["cat", "dog"], or cat|dog with '
        "--label-separator '|'"
    )


def shown(cell: Cell) -> str:
    """A cell as a message names it."""
    text = repr(cell)
    return text if len(text) <= 60 else f"{text[:60]}..."


def is_number(name: str) -> bool:
    """Whether a class is spelt as a number."""
    return _NUMBER.fullmatch(name) is not None


def _check_amounts(table: Table, column: str, classes: Sequence[Classes | None]) -> None:
    """Refuses numbers that nobody would call classes."""
    names = {row[0] for row in classes if row}
    rows = sum(row is not None for row in classes)
    fractions = {name for name in names if not re.fullmatch(r"-?\d+", name)}
    if not fractions or not all(map(is_number, names)):
        return
    if 2 * len(names) > rows or (len(names) > _REAL and rows < _ROWS * len(names)):
        raise DataError(
            f"{table.path}: column {column!r} holds {len(names)} different numbers in {rows} rows, such as "
            f"{shown(min(fractions))}: amounts, not classes. To predict them "
            "set data.init_args.task to regression; otherwise set data.init_args.label to another column, or leave "
            "label out"
        )


def _check_vectors(table: Table, column: str, lists: Mapping[int, Sequence[Cell]]) -> None:
    """Refuses lists that do not name classes: a zero or a one for each class, or amounts."""
    numbers = {row: [_as_number(item) for item in found] for row, found in lists.items()}
    known = [number for found in numbers.values() for number in found if number is not None]
    if not known or len(known) < sum(map(len, numbers.values())):
        return
    place, cell = table.place(min(lists), column), shown(table.cell(min(lists), column))
    row, amount = next(((r, n) for r, found in numbers.items() for n in found if n and n % 1), (0, None))
    if amount is not None:
        place, cell = table.place(row, column), shown(table.cell(row, column))
        raise DataError(
            f"{place}: {cell} is a list of amounts, and names no classes; write the names of a row's classes, or one "
            "number per row for a regression"
        )
    lengths = {len(found) for found in numbers.values()}
    if len(lengths) == 1 and min(lengths) > 1 and {0, 1}.issuperset(known):
        raise DataError(
            f"{place}: {cell} is a zero or a one for each class, and would be read as the classes '0' and '1'; write "
            'the names (or numbers) of a row\'s classes, such as ["cat", "dog"]'
        )


def _as_number(item: Cell) -> float | None:
    text = str(_plain(item)).strip()
    if text in ("True", "False", "true", "false"):
        return float(text in ("True", "true"))
    return float(text) if is_number(text) else None


def _key(cell: Cell) -> Any:
    """Equal for equal cells; 1, 1.0 and True are different ones."""
    return (type(cell), cell if isinstance(cell, str | int | float) else repr(cell))


def _plain(cell: Cell) -> Cell:
    """What numpy and pandas have for one value, as Python has it."""
    if type(cell).__name__ in ("NaTType", "NAType"):
        return None
    return cell.item() if hasattr(cell, "item") and getattr(cell, "ndim", 0) == 0 else cell


def _known_name(part: Cell, place: str, known: Mapping[str, str]) -> str:
    if isinstance(part, str) and part.strip() in known:
        return known[part.strip()]
    name = class_name(part, place)
    return known.get(name, name)


def _literal(item: str, place: str) -> Cell:
    if item[0] not in "'\"":
        return item
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # escapes that Python does not know
            return ast.literal_eval(item)
    except (ValueError, SyntaxError):
        raise DataError(f'{place}: {shown(item)} cannot be read; write the label as ["cat", "dog"]') from None
