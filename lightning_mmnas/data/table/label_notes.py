"""What is odd about the classes of a table, and is told."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from lightning_mmnas.data.table.labels import Classes, is_number
from lightning_mmnas.data.table.reading import Table

_NAMED = 5
"""Classes, or pairs of them, that a note names."""
_LIKE_NOTHING = {"none", "na", "n.a.", "nil", "missing", "unknown", "undefined", "unlabeled", "unlabelled", "-", "--"}
_SEPARATORS = ("|", ";", ",", "/", "+", "&")


def label_notes(table: Table, column: str, classes: Sequence[Classes | None], separated: bool) -> list[str]:
    """Sentences about what was read in a way that somebody may not expect; each names the column.

    Args:
        table: The table.
        column: The label column.
        classes: Of each row, as `read_classes` gives them.
        separated: Whether a separator was given, or cells are lists.
    """
    counts = Counter(name for row in classes for name in row or ())
    notes = []
    if empty := table.emptied(column):
        notes.append(f"{_listed(empty)} is read as no label; --empty says otherwise")
    if nothing := {name: count for name, count in counts.items() if name.casefold() in _LIKE_NOTHING}:
        notes.append(f"{_listed(nothing)} is a class as any other; leave the cell empty where there is no label")
    if not separated:
        notes += _merged(table, column, classes)
        notes += _separators(counts)
    alike = defaultdict(list)
    for name in sorted(counts):
        alike[_loose(name)].append(name)
    pairs = [_listed({name: counts[name] for name in names}) for names in alike.values() if len(names) > 1]
    if pairs:
        notes.append(
            f"classes that differ only in case, zeros, white space, Unicode, invisible characters or as true and 1: "
            f"{_some(pairs, '; ')}; mend the table if they are one"
        )
    return [f"{table.path}, column {column!r}: {note}" for note in notes]


def _merged(table: Table, column: str, classes: Sequence[Classes | None]) -> list[str]:
    spelt = [None if row is None else str(cell).strip() for cell, row in zip(table.cells(column), classes, strict=True)]
    named = {text: row[0] for text, row in zip(spelt, classes, strict=True) if text is not None and row}
    if len(named) == len(set(named.values())):
        return []
    counts = Counter(spelt)
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for text, name in named.items():
        found[name][text] = counts[text]
    several = [(name, texts) for name, texts in found.items() if len(texts) > 1]
    return [f"{_listed(texts)} are one class, {name!r}" for name, texts in several[:_NAMED]]


def _separators(counts: Mapping[str, int]) -> list[str]:
    """Classes that look like several in one cell."""
    for separator in _SEPARATORS:
        joined = [name for name in counts if all(part.strip() for part in name.split(separator)) and separator in name]
        parts = Counter(part.strip() for name in joined for part in name.split(separator))
        shared = [part for part, count in parts.items() if count > 1 or part in counts]
        if joined and (separator == "|" or shared):
            return [
                f"{len(joined)} of {len(counts)} classes hold {separator!r}, such as {joined[0]!r}, and are one class "
                f"each; if they are several, set data.init_args.label_separator to {separator!r}"
            ]
    return []


def _loose(name: str) -> str:
    """The same for classes that may be one."""
    text = unicodedata.normalize("NFKC", name)
    text = "".join(c for c in text if unicodedata.category(c) not in ("Cf", "Cc") or c.isspace()).casefold()
    text = " ".join(text.split()) or name
    text = {"true": "1", "false": "0"}.get(text, text)
    return repr(float(text)) if is_number(text) and len(text) < 16 else text


def _listed(counts: Mapping[str, int]) -> str:
    shown = []
    for name, count in counts.items():
        plain = name.isprintable() and unicodedata.is_normalized("NFC", name)
        shown.append(f"{repr(name) if plain else ascii(name)} ({count} row{'s' * (count != 1)})")
    return _some(shown, ", ")


def _some(texts: Sequence[str], joined: str) -> str:
    more = f" and {len(texts) - _NAMED} more" if len(texts) > _NAMED else ""
    return joined.join(texts[:_NAMED]) + more
