"""What the columns of a user's table are: proposals of `mmnas init`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lightning_mmnas.commands.init.arrays import read_arrays
from lightning_mmnas.commands.init.leaks import gives_label_away, gives_row_away, reads_as_code
from lightning_mmnas.commands.init.lists import find_lists
from lightning_mmnas.commands.init.media import Files, find_files, is_media_name
from lightning_mmnas.commands.init.sampling import spread
from lightning_mmnas.commands.init.sizes import Measured, measure
from lightning_mmnas.commands.init.special import Special
from lightning_mmnas.data.names import safe_name
from lightning_mmnas.data.spec import Kind
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.reading import Cell, Table, number_share
from lightning_mmnas.errors import DataError

_WORDS = 3
"""Mean number of words from which a column is text."""
_COMPARED = 20_000
"""Rows in which a column is compared with the label."""
_MANY = 4
"""Number columns of one prefix that are a modality of their own beside others."""
_DATE = re.compile(r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}\b|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}\b|\d{1,2}:\d{2}(:\d{2})?\b")
_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""Scripts whose words are not parted; two characters count as a word."""

Numbers = np.ndarray[Any, np.dtype[np.float64]]


@dataclass
class Proposal:
    """What the columns of a table are.

    Attributes:
        table: The table.
        folder: What paths are relative to.
        special: Columns of label, split, group and id.
        columns: The modalities.
        left: Columns that are left out, with the reason.
        told: What to tell the user of what was inferred.
    """

    table: Table
    folder: Path
    special: dict[str, str] = field(default_factory=dict)
    columns: dict[str, Measured] = field(default_factory=dict)
    left: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    @property
    def specs(self) -> dict[str, ColumnSpec]:
        """How each modality is read."""
        return {name: measured.spec for name, measured in self.columns.items()}

    def add(self, spec: ColumnSpec, called: str) -> None:
        """Takes a modality under a safe name made from what it is called."""
        name = safe_name(called, spec.kind, self.columns)
        if name != called and called in spec.columns:
            self.told.append(f"column {called!r} is the modality {name!r}: a name that is safe wherever it is written")
        self.columns[name] = measure(
            self.table, spec, self.folder, [n for n in ("axes", "key") if getattr(spec, n, None)]
        )


def propose(table: Table, special: Special, without: Collection[str], folder: Path) -> Proposal:
    """Proposes the modalities of a table.

    Args:
        table: The table.
        special: Columns that are something else: label, split, group, id.
        without: Columns to be left out.
        folder: What paths are relative to.

    Raises:
        DataError: A column is doubtful; names it and the way out.
    """
    found = Proposal(table, folder)
    taken = set(special.columns.values())
    rows = spread(range(len(table)), _COMPARED)
    label = special.columns.get("label")
    labels = None if label is None else _some(table.cells(label), rows)
    numbers: list[str] = []
    for name in (name for name in table.names if name not in taken):
        reason = "--without" if name in without else special.aside.get(name)
        listed = None if reason is not None else find_lists(table, name)
        if isinstance(listed, ColumnSpec):
            found.add(listed, name)
            continue
        cells = [cell for cell in table.cells(name) if cell is not None] if reason is None else []
        reason = reason or listed or _useless(cells)
        if reason is not None:
            found.left[name] = reason
            continue
        files = None if number_share(table, name) == 1 else find_files(table, name, folder)
        if isinstance(files, str):
            found.left[name] = files
        elif isinstance(files, Files):
            spec = _of_files(table, name, files)
            if isinstance(spec, str):
                found.left[name] = spec
            else:
                found.add(spec, name)
        elif (as_numbers := _numbers(table, name)) is not None:
            reason = gives_row_away(name, cells, as_numbers) or reads_as_code(cells, as_numbers)
            reason = reason or _leak(table, name, rows, labels, label)
            if reason is None:
                numbers.append(name)
            else:
                found.left[name] = f"{reason}; --modality makes it an input"
        else:
            reason = gives_row_away(name, cells, None) or _leak(table, name, rows, labels, label)
            if reason is not None:
                found.left[name] = f"{reason}; --modality makes it an input"
            elif _is_text(cells):
                found.add(ColumnSpec("text", [name]), name)
            else:
                found.left[name] = _short(name, cells)
    for called, columns in _parted(numbers):
        found.add(ColumnSpec("features", columns), called)
    return found


def check_proposal(found: Proposal) -> None:
    """Raises `DataError` where nothing is left to learn from, or a name cannot be written in a configuration."""
    used = [*found.special.values(), *(column for spec in found.specs.values() for column in spec.columns)]
    if odd := [column for column in used if "${" in column]:
        raise DataError(
            f"{found.table.path}: column {odd[0]!r} cannot be named in a configuration, where '${{' begins a "
            f"reference; rename it, or leave it out: --without {odd[0]!r}"
        )
    if not found.columns:
        others = {name: f"it is the {role}" for role, name in found.special.items()}
        reasons = "; ".join(f"{name}: {reason}" for name, reason in (found.left | others).items())
        raise DataError(f"{found.table.path} has no column that is a modality ({reasons}); name some with --modality")


def _of_files(table: Table, name: str, files: Files) -> ColumnSpec | str:
    if files.media == "array":
        return read_arrays(table, name, files.paths)
    kind: Kind = files.media if files.flat else "video"
    return ColumnSpec(kind, [name])


def _useless(cells: Sequence[Cell]) -> str | None:
    if not cells:
        return "it is empty"
    if (listed := next((cell for cell in cells if isinstance(cell, list) and cell), None)) is not None:
        if isinstance(listed[0], str) and is_media_name(listed[0]):
            return f"lists of files such as {listed[0]!r} are not read; make a row, or a column, of each file"
        if isinstance(listed[0], str):
            return "lists of texts are labels only; give it with --label"
        return f"lists such as {str(listed)[:40]} are not read; make a column of each part"
    if any(isinstance(cell, list) for cell in cells):
        return "its lists are all empty"
    if all(isinstance(cell, dict) and not {"bytes", "path", "array"} & cell.keys() for cell in cells):
        return f"its cells are structures of {sorted(map(str, cells[0]))[:5]}; make a column of each part"
    first = cells[0]
    if all(cell == first for cell in cells):
        return f"it is constant: {str(first)[:40]!r}"
    return None


def _numbers(table: Table, name: str) -> Numbers | None:
    """The cells that are not empty as numbers, where most of them are; None: it is no column of numbers."""
    if number_share(table, name) <= 0.5:
        return None
    try:
        found = table.numbers(name)
    except DataError as error:
        raise DataError(
            f"{error}; most cells of the column are numbers: mend the others or empty them, or leave the column out: "
            f"--without {name!r}"
        ) from None
    there: Numbers = found[~np.isnan(found)]
    return there


def _leak(table: Table, name: str, rows: Sequence[int], labels: Sequence[Cell] | None, label: str | None) -> str | None:
    if labels is None:
        return None
    reason = gives_label_away(_some(table.cells(name), rows), labels)
    return None if reason is None else f"{reason} ({label!r})"


def _some(cells: Sequence[Cell], rows: Sequence[int]) -> list[Cell]:
    return [cells[row] for row in rows]


def _is_text(cells: Sequence[Cell]) -> bool:
    some = spread(cells)
    texts = [cell for cell in some if isinstance(cell, str)]
    return len(texts) > len(some) / 2 and sum(map(_words, texts)) / len(texts) >= _WORDS


def _words(text: str) -> float:
    """Words of a text, about."""
    dense = sum(unicodedata.name(c, "").startswith(_WITHOUT_SPACES) for c in text[:200] if ord(c) > 0xDFF)
    return len(text.split()) + dense / 2


def _short(name: str, cells: Sequence[Cell]) -> str:
    different = {str(cell): None for cell in cells}
    if all(map(_DATE.match, different)):
        return f"dates such as {next(iter(different))!r} are not read; make numbers of them, such as the month, or days"
    first = ", ".join(ascii(text[:20]) if not text.isprintable() else repr(text[:20]) for text in [*different][:2])
    return (
        f"short texts, {len(different)} different ones such as {first}, and not numbers in most cells, nor files that "
        f"exist; give it with --label, --group or --modality {safe_name(name, 'text')}=text:{name}"
    )


def _parted(numbers: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Number columns by what their names begin with: v1_*, v2_*; together where that tells nothing."""
    groups: dict[str, list[str]] = {}
    for name in numbers:
        groups.setdefault(_prefix(name), []).append(name)
    whole = "" not in groups and len(groups) > 1 and all(len(group) > 1 for group in groups.values())
    alone = {prefix: group for prefix, group in groups.items() if prefix and (whole or len(group) >= _MANY)}
    yield from alone.items()
    rest = [name for name in numbers if not any(name in group for group in alone.values())]
    if rest:
        yield "numbers", rest


def _prefix(name: str) -> str:
    """What a name begins with, up to a number at its end, or else up to a sign or a change from lower to upper case."""
    counted = re.fullmatch(r"(.*?[^\d\s_.\-\[(])[\s_.\-\[(]*\d+[\])]?", name)
    parted = re.match(r"([^\s_.\-:/]+)[\s_.\-:/]+\S", name)
    if counted is not None and re.search(r"[\s_.\-:/\[(]|\d", name[len(counted[1]) :]) is not None:
        return counted[1]
    return parted[1] if parted is not None else ""
