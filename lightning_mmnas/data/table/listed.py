"""Arrays that lie in the cells of a table: lists of numbers, and texts that spell them."""

import re
from typing import Any

import numpy as np

from lightning_mmnas.parsing import parse_json

Array = np.ndarray[Any, np.dtype[Any]]

_NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9]\d*)\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf)", re.IGNORECASE | re.ASCII)
_PARTS = re.compile(r"[\s,;|]+")
_LAST = re.compile(r"[^\s,;|]*$")
"""What may be cut."""
_SCALAR = re.compile(r"np\.\w+\(([^()]*)\)")
_CALLED = re.compile(r"(?:array|tensor)\((.*?)(?:,\s*\w+=[^\[\]]*)?\)?$", re.DOTALL)
_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_LOOKED_AT = 200
"""Characters of a text that tell whether it spells a list."""
_BARE = 4
"""Whole numbers without brackets that are a list; fewer are a date, or a telephone number."""


def holds_array(cell: Any) -> bool:
    """Whether a cell is a list of numbers, or a text that spells one.

    Examples:
        >>> [holds_array(cell) for cell in ([0.5, 2], "[0.5, 2]", "[0.5 2. ]", "70 80 82 72", "0.5;2")]
        [True, True, True, True, True]
        >>> [holds_array(cell) for cell in ("2024 01 31", "12", "[a, b]", ["a"], [], 2.5, "(2.5)")]
        [False, False, False, False, False, False, False]
    """
    if isinstance(cell, str):
        return _spells_array(cell)
    if isinstance(cell, np.ndarray):
        return cell.dtype.kind in "buif"
    if not isinstance(cell, list | tuple):
        return False
    while isinstance(cell, list | tuple):
        cell = next((part for part in cell if part is not None), None)
    return isinstance(cell, int | float | np.number | np.bool_)


def _spells_array(text: str) -> bool:
    start = _plain(text if len(text) <= _LOOKED_AT else _LAST.sub("", text[:_LOOKED_AT]))
    bracketed = start[:1] in ("[", "(")
    if not bracketed and start[:1] not in set("+-.0123456789"):
        return False
    parts = [part for part in _PARTS.split(start.translate(str.maketrans("[]()", "    "))) if part]
    if not parts or not all(_NUMBER.fullmatch(part) or (bracketed and part == "...") for part in parts):
        return False
    if start[0] == "(" and len(parts) == 1 and "," not in start:
        return False  # so accounts write what is negative
    fractions = len(parts) > 1 and any("." in part for part in parts)
    return bracketed or fractions or len(parts) >= _BARE


def array_of(cell: Any) -> Array:
    r"""The array that a cell holds.

    Args:
        cell: One of which `holds_array` is true: a list, of lists too; or a text of numbers in brackets, as JSON and
            numpy write them, or without, parted by white space, commas, semicolons or bars.

    Returns:
        Its numbers, whole ones as int64.

    Raises:
        ValueError: Its lists have different lengths, or hold what is no number.

    Examples:
        >>> array_of("[[1 2]\n [3 4]]").tolist()
        [[1, 2], [3, 4]]
        >>> array_of("[np.float64(0.5), 1.5]").tolist(), array_of("array([2, 3], dtype=int16)").tolist()
        ([0.5, 1.5], [2, 3])
    """
    if isinstance(cell, str):
        cell = _spelt(cell)
    try:
        found = np.asarray(cell)
        if found.dtype == object:  # None among numbers
            found = found.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError("its lists have different lengths, or hold what is no number") from None
    if found.dtype.kind not in "buif":
        raise ValueError("its list holds what is no number")
    return found


def _plain(text: str) -> str:
    """A text without what Python prints around numbers: np.float64(0.5), array([0.5], dtype=float32), tensor([0.5])."""
    text = text.strip()
    called = _CALLED.match(text)
    return _SCALAR.sub(r"\1", called[1] if called else text)


def _spelt(text: str) -> Any:
    text = _plain(text)
    if "..." in text:
        raise ValueError("numbers were left out where it says '...'; print arrays as a whole")
    try:
        return parse_json(text)
    except ValueError:
        pass
    if text.startswith("[["):
        if text.startswith("[[["):
            raise ValueError("lists of lists of lists are read as JSON only, with commas")
        return [_numbers(row) for row in _INNERMOST.findall(text)]
    return _numbers(text.strip("[]()"))


def _numbers(text: str) -> list[float]:
    parts = [part for part in _PARTS.split(text) if part]
    if wrong := [part for part in parts if not _NUMBER.fullmatch(part)]:
        raise ValueError(f"{wrong[0][:40]!r} is no number")
    if re.search(r"\d,\d", text) and re.search(r"[;|]|\d\s+[\d.+-]", text):
        raise ValueError("commas and other separators part its numbers; if these are decimal commas, write points")
    whole = all(part.lstrip("+-").isdigit() for part in parts)
    return [int(part) if whole else float(part) for part in parts]
