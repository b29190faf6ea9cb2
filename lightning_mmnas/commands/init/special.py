"""Columns that are no inputs: label, split, group and id, by their names."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from lightning_mmnas.commands.init.leaks import determines, in_several_rows
from lightning_mmnas.data.table.labels import is_unlabelled
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.data.table.splits import split_of
from lightning_mmnas.errors import ConfigError, DataError

ROLES = ("label", "split", "group", "id")

_NAMES: dict[str, tuple[str, ...]] = {
    "label": (
        *("label", "labels", "class", "classes", "target", "targets", "category", "categories", "y"),
        *("classname", "labelname", "categoryname", "targetname", "classlabel", "truelabel", "groundtruth"),
        *("labelid", "classid", "targetid", "categoryid", "labelidx", "classidx", "labelindex", "classindex"),
        *("labelno", "classno", "labelnumber", "classnumber"),
    ),
    "split": ("split", "splits", "fold", "folds", "set", "partition", "subset", "datasplit"),
    "group": (
        *("group", "groups", "subject", "subjects", "person", "patient", "participant", "user", "speaker"),
        *("groupid", "subjectid", "personid", "patientid", "participantid", "userid", "speakerid"),
    ),
    "id": (
        *("id", "ids", "uid", "uuid", "guid", "index", "idx", "rowid", "sampleid", "rowindex", "rownumber", "rowno"),
        *("row", "key"),
    ),
}
"""Names of columns in lower case, letters and digits alone; the more usual ones first."""
_NUMBERED = re.compile(r"(indexlevel|unnamed|level)\d+")
"""What pandas and others call an index without a name."""
_COUNTED = re.compile(r"(label|target|class)s?\d+")
"""Names of several labels: label1, label2."""
_PER_CLASS = re.compile(r"(is[\s_.-]*)?(label|target|class|category|gt|y)(s|es)?[^a-z0-9]+\S", re.IGNORECASE)
"""Names of columns that have a class each: label_cat, label_dog."""
_MEMBER = re.compile(
    r"(is|in)(train|training|val|valid|validation|test|testing|holdout)(set|split)?|train(ingset|set)?"
)
"""Names of columns that say whether a row is in a split."""
_OPTION = {"label": "a label", "split": "a split", "group": "a group", "id": "an id"}


@dataclass
class Special:
    """What was found.

    Attributes:
        columns: The column of each role that there is.
        told: What to tell the user.
        aside: Columns that are called like one of these without being taken, with the reason why they are no input.
    """

    columns: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)
    aside: dict[str, str] = field(default_factory=dict)


def role_of(name: str) -> str | None:
    """What a column is by its name: "label", "split", "group" or "id"; None: nothing of these."""
    plain = plain_name(name)
    if _NUMBERED.fullmatch(plain):
        return "id"
    if _COUNTED.fullmatch(plain):
        return "label"
    return next((role for role, names in _NAMES.items() if plain in names), None)


def plain_name(name: str) -> str:
    """A name in lower case, letters and digits alone."""
    return re.sub(r"[^a-z0-9]", "", unicodedata.normalize("NFKC", name).casefold())


def find_special(
    table: Table, given: Mapping[str, str | None], without: Collection[str], claimed: Collection[str]
) -> Special:
    """Finds the columns of label, split, group and id.

    Args:
        table: The table.
        given: The columns that options name, by role.
        without: Roles that there are not to be.
        claimed: Columns that are something else already.

    Raises:
        DataError: A given column does not exist, or several columns may be the same.
        ConfigError: A role is given and ruled out at once.
    """
    found = Special()
    for role in ROLES:
        column = given.get(role)
        if column is not None:
            if role in without:
                raise ConfigError(f"--{role} and --no-{role} exclude each other")
            table.need(column, f"--{role}")
            found.columns[role] = column
    taken = {*claimed, *found.columns.values()}
    for role in ROLES:
        called = [name for name in table.names if name not in taken and role_of(name) == role]
        called.sort(key=lambda name: _rank(role, name))
        if role == "label":
            called = [name for name in called if not _is_coordinate(table, name)]
        if not called:
            continue
        chosen = None
        if role not in found.columns and role not in without:
            chosen = _CHOICES[role](table, called, found)
        if chosen is not None:
            found.columns[role] = chosen
            found.told.append(
                f"{role}: column {chosen!r}, by its name; --{role} COLUMN takes another, --no-{role} none"
            )
        for name in called:
            if name != chosen:
                reason = (
                    f"it is called like {_OPTION[role]} and is no input; --{role} {shlex.quote(name)} takes it as such"
                )
                if role == "id" and not _is_unique(table, name):
                    cells = [cell for cell in table.cells(name) if cell is not None]
                    reason = f"it is called like an id and is no input{in_several_rows(name, cells)}"
                found.aside.setdefault(name, f"{reason}, --modality as an input")
    others = [name for name in table.names if name not in {*claimed, *found.columns.values(), *found.aside}]
    found.aside |= _alike(table, others)
    return found


def _alike(table: Table, names: list[str]) -> dict[str, str]:
    """Columns that are no inputs by their names and cells together, with the reason."""
    found = {}
    per_class = [name for name in names if _PER_CLASS.match(name) and _is_flag(table, name)]
    for name in per_class if len(per_class) > 1 else []:
        found[name] = (
            f"it is one of {len(per_class)} columns of zeros and ones that are called like labels, and is no input; "
            "for labels write the classes of a row into one column (--label), as a list if there may be several; "
            "--modality takes it as an input"
        )
    for name in names:
        if _MEMBER.fullmatch(plain_name(name)) and _is_flag(table, name):
            found[name] = (
                "it says which rows are in a split, and is no input; write train, val or test into one column "
                "(--split); --modality takes it as an input"
            )
        elif _names_splits_only(table, name):
            found[name] = f"its cells name splits, and it is no input; --split {shlex.quote(name)} takes it as such"
    return found


def _is_flag(table: Table, name: str) -> bool:
    """Whether a column is zeros and ones, or truth values."""
    values = table.parsed(name).values[table.filled(name)]
    return len(values) > 0 and bool(np.isin(values, (0, 1)).all())


def _names_splits_only(table: Table, name: str) -> bool:
    """Whether the cells of a column name several splits; most columns show by one cell that they do not."""
    first = int(np.argmax(table.filled(name)))
    cell = table.cell(first, name) if len(table) else None
    if not isinstance(cell, str) or split_of(cell) is None:
        return False
    splits = {split_of(cell) for cell in set(map(str, filter(None, table.cells(name))))}
    return len(splits) > 1 and None not in splits


def _rank(role: str, name: str) -> int:
    plain = plain_name(name)
    return _NAMES[role].index(plain) if plain in _NAMES[role] else len(_NAMES[role])


def _label(table: Table, called: list[str], found: Special) -> str | None:
    usable = [name for name in called if not _is_empty(table, name, found, "label")]
    if not usable:
        return None
    first, *others = usable
    different = [name for name in others if not _same(table, first, name)]
    if different:
        options = " or ".join(f"--label {shlex.quote(name)}" for name in [first, *different])
        raise DataError(
            f"{table.path}: the columns {[first, *different]} are all called like a label, and they differ; say which "
            f"one is to be learnt: {options}, or --no-label (the others are then no inputs unless --modality names "
            "them)"
        )
    return first


def _split(table: Table, called: list[str], found: Special) -> str | None:
    called = [name for name in called if not _is_empty(table, name, found, "split")]
    literal = [name for name in called if plain_name(name) == "split"]
    usable = literal or [name for name in called if _names_splits(table, name)]
    return _one_of(table, "split", usable)


def _group(table: Table, called: list[str], found: Special) -> str | None:
    called = [name for name in called if not _is_empty(table, name, found, "group")]
    usable = [name for name in called if plain_name(name) == "group"] or called
    return _one_of(table, "group", usable)


def _id(table: Table, called: list[str], found: Special) -> str | None:
    literal = [name for name in called if plain_name(name) == "id"]
    usable = literal or [name for name in called if _is_unique(table, name)]
    return usable[0] if usable else None


_CHOICES = {"label": _label, "split": _split, "group": _group, "id": _id}


def _one_of(table: Table, role: str, usable: list[str]) -> str | None:
    if len(usable) > 1 and not all(_same(table, usable[0], name) for name in usable[1:]):
        options = " or ".join(f"--{role} {shlex.quote(name)}" for name in usable)
        raise DataError(f"{table.path}: the columns {usable} are all called like a {role}: {options}, or --no-{role}")
    return usable[0] if usable else None


def _same(table: Table, first: str, second: str) -> bool:
    """Whether two columns tell the same: each value of one goes with one value of the other."""
    one, other = table.cells(first), table.cells(second)
    return determines(one, other) and determines(other, one)


def _is_empty(table: Table, name: str, found: Special, role: str) -> bool:
    """Whether a column has nothing in it; then that is told."""
    if not all(map(is_unlabelled, table.cells(name))):
        return False
    found.aside[name] = f"it is called like {_OPTION[role]}, and is empty"
    return True


def _names_splits(table: Table, name: str) -> bool:
    cells = {cell if isinstance(cell, str) else str(cell) for cell in table.cells(name) if not is_unlabelled(cell)}
    return bool(cells) and all(split_of(cell) is not None for cell in cells)


def _is_unique(table: Table, name: str) -> bool:
    return bool(table.filled(name).all()) and not table.repeated([name])


def _is_coordinate(table: Table, name: str) -> bool:
    """Whether a column y stands beside a column x, and has as many values as a measurement has."""
    if plain_name(name) != "y" or not any(plain_name(other) == "x" for other in table.names):
        return False
    cells = [cell for cell in table.cells(name) if cell is not None]
    return len(set(map(repr, cells))) > max(20, len(cells) / 3)
