"""Splits of a table's rows: those that a column names, or drawn ones."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.splits import split_groups
from lightning_mmnas.data.table.labels import Classes, class_name, class_names, is_number, is_unlabelled, shown
from lightning_mmnas.data.table.numbers import is_empty
from lightning_mmnas.data.table.reading import Cell, Table
from lightning_mmnas.errors import DataError

_SPLIT_NAMES: dict[Split, tuple[str, ...]] = {
    "train": ("train", "training", "trn", "unsupervised", "unlabeled", "unlabelled"),
    "val": (
        "val",
        "valid",
        "validate",
        "validation",
        "dev",
        "devel",
        "development",
        "eval",
        "evaluation",
        "publictest",
    ),
    "test": ("test", "testing", "tst", "holdout", "privatetest"),
}
_SPLITS: dict[str, Split] = {name: split for split, names in _SPLIT_NAMES.items() for name in names}
_SHARE = 0.15
"""Share of validation and of test where the table names no splits."""
_DRAWS = 50
"""Draws of whole groups that are tried until every class is in the training split."""
_NAMED = 5
_DRAWN = "leave split out to have it drawn"


def split_of(cell: Cell) -> Split | None:
    """The split that a cell names, whatever its case, "Training set" and "hold-out" included; None: none."""
    text = re.sub(r"[\s_-]", "", cell.casefold()) if isinstance(cell, str) else ""
    return _SPLITS.get(re.sub(r"(set|split|data)$", "", text))


def read_groups(table: Table, column: str) -> list[Cell]:
    """The group of each row, in one spelling.

    Raises:
        DataError: A cell names none; names the line.
    """
    cells = table.cells(column)
    empty = table.reading.spellings(True)
    wrong = [row for row, cell in enumerate(cells) if is_empty(cell, empty) or isinstance(cell, list | dict)]
    if wrong:
        cell = cells[wrong[0]]
        what = f"an empty cell{table.spelt_empty([column])}" if cell is None else shown(cell)
        raise DataError(
            f"{table.place(wrong[0], column)}: {what} is no group ({len(wrong)} such "
            "cell(s)); name a group in every row, or leave group out"
        )
    first = {cell: row for row, cell in reversed(list(enumerate(cells)))}
    names = {cell: class_name(cell, table.place(row, column)) for cell, row in first.items()}
    return [names[cell] for cell in cells]


def given_splits(table: Table, column: str, groups: Sequence[Cell] | None, seed: int) -> dict[Split, list[int]]:
    """The splits that a column names; without validation rows, some are drawn from the training rows.

    Raises:
        DataError: A cell names no split, there is no training or test row, or a group is in two splits.
    """
    cells = table.cells(column)
    known = {text: split_of(text) for text in {cell for cell in cells if isinstance(cell, str)}}
    found = [known.get(cell) if isinstance(cell, str) else None for cell in cells]
    _check_names(table, column, found)
    rows: dict[Split, list[int]] = {"train": [], "val": [], "test": []}
    for index, split in enumerate(found):
        if split is not None:
            rows[split].append(index)
    needed: tuple[Split, ...] = ("train", "test")
    for name in needed:
        if not rows[name]:
            there = ", ".join(f"{shown(text)} is {of}" for text, of in sorted(known.items()))
            raise DataError(f"{table.path}: no row of column {column!r} is {name} ({there}); name some, or {_DRAWN}")
    if groups is not None:
        _check_groups(table, column, rows, groups)
    if not rows["val"]:
        members = rows["train"]
        numbers = None if groups is None else group_numbers([groups[index] for index in members])
        units = len(members) if numbers is None else int(numbers.max()) + 1
        if units < 2:
            what = "one row" if len(members) == 1 else f"{len(members)} rows of one group"
            raise DataError(
                f"{table.path}: no row of column {column!r} is val, and the training rows ({what}) cannot be divided; "
                "name some rows val"
            )
        train, val = split_groups(len(members), numbers, _SHARE, seed)
        rows["train"], rows["val"] = [members[i] for i in train.tolist()], [members[i] for i in val.tolist()]
    return rows


def _check_names(table: Table, column: str, found: Sequence[Split | None]) -> None:
    """Refuses a column in which a cell names no split."""
    cells = table.cells(column)
    wrong = [row for row, split in enumerate(found) if split is None]
    if not wrong:
        return
    lines = ", ".join(str(table.line(row)) for row in wrong[:_NAMED]) + (", ..." if len(wrong) > _NAMED else "")
    if all(is_unlabelled(cells[row]) for row in wrong):
        what = "all cells are" if len(wrong) == len(cells) else f"{len(wrong)} cell(s) are"
        raise DataError(
            f"{table.path}, column {column!r}: {what} empty (line {lines}); name a split in every row, or {_DRAWN}"
        )
    names = sorted({str(cells[row]) for row in wrong if not is_unlabelled(cells[row])})
    if len(wrong) == len(cells) and all(map(is_number, names)):
        low, high = (name if len(name) < 20 else shown(name) for name in (min(names, key=float), max(names, key=float)))
        raise DataError(
            f"{table.path}, column {column!r}: numbers from {low} to {high} are folds and no splits; write train, val "
            f"or test in their place, or {_DRAWN} (by whole folds: set data.init_args.group to {column!r})"
        )
    first = next(row for row in wrong if not is_unlabelled(cells[row]))
    raise DataError(
        f"{table.place(first, column)}: {shown(cells[first])} is not in {list(_SPLITS)} ({len(wrong)} such cell(s)); "
        f"mend it, or {_DRAWN}"
    )


def _check_groups(table: Table, column: str, rows: dict[Split, list[int]], groups: Sequence[Cell]) -> None:
    home: dict[Cell, tuple[Split, int]] = {}
    for split, members in rows.items():
        for index in members:
            other, where = home.setdefault(groups[index], (split, index))
            if other != split:
                raise DataError(
                    f"{table.path}: group {groups[index]!r} is in the splits {other} and {split} (lines "
                    f"{table.line(where)} and {table.line(index)}); a group must not straddle splits: mend them, or "
                    f"{_DRAWN}"
                )


def drawn_splits(
    kept: Sequence[int],
    classes: Sequence[Classes | None] | None,
    several: bool,
    groups: Sequence[Cell] | None,
    seed: int,
    place: str = "the table",
) -> dict[Split, list[int]]:
    """Draws 70 % for training, 15 % for validation, 15 % for test, with a seed.

    Whole groups where there are any; otherwise each class by itself, where a row has one. Unlabelled rows without
    a group go to training, if any row is labelled. What alone has a class goes to training too.

    Args:
        kept: The rows that are divided.
        classes: Of all rows; None: there are no labels.
        several: Whether a row may have several classes.
        groups: Of all rows.
        seed: Same seed, same splits.
        place: What to call the table in messages.

    Raises:
        DataError: There are too few rows or groups, or too few of each class.
    """
    if groups is None and classes is not None and not several:
        return _stratified(kept, classes, seed, place)
    labelled = [row for row in kept if classes is None or groups is not None or classes[row] is not None]
    free = sorted(set(kept) - set(labelled))
    every = {name for row in kept for name in (classes[row] or () if classes else ())}
    numbers = None if groups is None else group_numbers([groups[row] for row in labelled])
    units = len(labelled) if numbers is None else int(numbers.max()) + 1
    if units < 3:
        what = "labelled rows" if groups is None else f"groups for {len(labelled)} rows"
        more = "" if groups is None else ", or leave group out"
        raise DataError(
            f"{place}: there are {units} {what}, and train, val and test need one each; name them in a column "
            f"(data.init_args.split){more}"
        )
    for draw in range(_DRAWS):
        rest, test = split_groups(len(labelled), numbers, _SHARE, seed + draw * 1_000_003)
        inner = None if numbers is None else numbers[rest]
        train, val = split_groups(len(rest), inner, _SHARE / (1 - _SHARE), seed + draw * 1_000_003)
        parts: dict[Split, list[int]] = {
            "train": sorted([labelled[i] for i in rest[train].tolist()] + free),
            "val": [labelled[i] for i in rest[val].tolist()],
            "test": [labelled[i] for i in test.tolist()],
        }
        if classes is None or every == {name for row in parts["train"] for name in classes[row] or ()}:
            return parts
    assert classes is not None  # the loop has returned otherwise
    return _with_every_class(parts, classes, (lambda row: row) if groups is None else groups.__getitem__, place)


def _with_every_class(
    parts: dict[Split, list[int]], classes: Sequence[Classes | None], unit: Callable[[int], Cell], place: str
) -> dict[Split, list[int]]:
    """Moves rows, or whole groups, of classes that training lacks to it."""
    known = {name for row in parts["train"] for name in classes[row] or ()}
    moved = {unit(row) for split in ("val", "test") for row in parts[split] if set(classes[row] or ()) - known}
    found: dict[Split, list[int]] = {"train": list(parts["train"])}
    for split in ("val", "test"):
        found[split] = [row for row in parts[split] if unit(row) not in moved]
        found["train"] += [row for row in parts[split] if unit(row) in moved]
        if not found[split]:
            raise DataError(
                f"{place}: no draw leaves rows for the {split} split and every class in training; too few rows or "
                "groups have each class. Name splits in a column (data.init_args.split), or drop the rarest classes"
            )
    return {**found, "train": sorted(found["train"])}


def check_classes(table: Table, column: str, classes: Sequence[Classes | None], rows: dict[Split, list[int]]) -> None:
    """Raises `DataError` for a class that is in validation or test, but never in training."""
    known = {name for row in rows["train"] for name in classes[row] or ()}
    for split in ("val", "test"):
        for row in rows[split]:
            for name in classes[row] or ():
                if name not in known:
                    raise DataError(
                        f"{table.place(row, column)}: class {name!r} is in the {split} split, but never in the train "
                        f"split; mend the label, or the splits, or {_DRAWN}"
                    )


def group_numbers(groups: Sequence[Cell]) -> Tensor:
    """Numbers of groups by order of appearance, shape (n,)."""
    place: dict[Cell, int] = {}
    return torch.tensor([place.setdefault(group, len(place)) for group in groups], dtype=torch.long)


def _stratified(
    kept: Sequence[int], classes: Sequence[Classes | None], seed: int, place: str
) -> dict[Split, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    members: dict[str | None, list[int]] = defaultdict(list)
    for row in kept:
        of = classes[row]
        members[None if of is None else of[0]].append(row)
    names = class_names([classes[row] for row in kept])
    rows: dict[Split, list[int]] = {"train": [], "val": [], "test": []}
    for name in [None, *names]:
        order = [members[name][i] for i in torch.randperm(len(members[name]), generator=generator).tolist()]
        # A class of one or two rows is for training only.
        share = 0 if name is None or len(order) < 3 else max(1, round(_SHARE * len(order)))
        rows["val"] += order[:share]
        rows["test"] += order[share : 2 * share]
        rows["train"] += order[2 * share :]
    if not rows["val"]:
        count = sum(len(found) for name, found in members.items() if name is not None)
        amounts = "to predict amounts set data.init_args.task to regression, " if all(map(is_number, names)) else ""
        raise DataError(
            f"{place}: {len(names)} classes in {count} labelled rows, and none has the three rows that train, val and "
            f"test need; {amounts}set data.init_args.label to another column, leave label out, or name splits in a "
            "column (data.init_args.split)"
        )
    return {split: sorted(found) for split, found in rows.items()}
