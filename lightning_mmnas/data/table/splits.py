"""Labels, groups and splits of a table's rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_mmnas.data.spec import Split
from lightning_mmnas.data.splits import split_groups
from lightning_mmnas.data.table.reading import Cell, Table
from lightning_mmnas.errors import DataError

_SPLIT_NAMES: dict[str, Split] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
}
_SHARE = 0.15
"""Share of validation and of test where the table names no splits."""
_DRAWS = 50
"""Draws of whole groups that are tried until every class is in the training split."""

Classes = tuple[str, ...]


def read_classes(table: Table, column: str, separator: str | None) -> tuple[list[Classes | None], bool]:
    """The classes of each row, None where it is unlabelled, and whether a row may have several.

    Args:
        table: The table.
        column: The label column.
        separator: What parts the classes of a cell; None: a cell is one class, unless cells are lists.

    Raises:
        DataError: A cell is neither a text, a number nor a list of these; names the line.
    """
    cells = table.cells(column)
    several = separator is not None or any(isinstance(cell, list) for cell in cells)
    found = [cell_classes(cell, separator, several, table.place(row, column)) for row, cell in enumerate(cells)]
    if all(classes is None for classes in found):
        raise DataError(f"{table.path}: no row has a label in column {column!r}; leave label out")
    return found, several


def cell_classes(cell: Cell, separator: str | None, several: bool, place: str) -> Classes | None:
    """The classes in one cell, None where it is empty; see `read_classes`.

    Args:
        cell: The cell.
        separator: What parts several classes; None: lists do.
        several: Whether there may be several.
        place: Of the cell, for messages.
    """
    if cell is None:
        return None
    if several and not isinstance(cell, list) and separator is None:
        raise DataError(f"{place}: {cell!r} is no list, as other labels are")
    parts = cell if isinstance(cell, list) else str(cell).split(separator) if separator else [cell]
    names = [_class_name(part, place) for part in parts]
    if len(set(names)) < len(names):
        raise DataError(f"{place}: a class occurs twice in {names}")
    return tuple(names)


def class_names(classes: Sequence[Classes | None]) -> list[str]:
    """All classes, sorted; whole numbers by their value."""
    names = {name for row in classes for name in row or ()}
    whole = all(name.lstrip("-").isdecimal() for name in names)
    return sorted(names, key=int) if whole else sorted(names)


def encode_classes(classes: Sequence[Classes | None], names: Sequence[str], several: bool) -> Tensor:
    """Labels of rows, shape (n,), or (n, num_classes) where there are several; -1 where a row is unlabelled."""
    place = {name: index for index, name in enumerate(names)}
    if not several:
        return torch.tensor([-1 if row is None else place[row[0]] for row in classes], dtype=torch.long)
    labels = torch.zeros(len(classes), len(names), dtype=torch.long)
    for index, row in enumerate(classes):
        if row is None:
            labels[index] = -1
        else:
            labels[index, [place[name] for name in row]] = 1
    return labels


def given_splits(table: Table, column: str, groups: Sequence[Cell] | None, seed: int) -> dict[Split, list[int]]:
    """The splits that a column names; without validation rows, some are drawn from the training rows.

    Raises:
        DataError: A cell names no split, there is no training or test row, or a group is in two splits.
    """
    rows: dict[Split, list[int]] = {"train": [], "val": [], "test": []}
    for index, cell in enumerate(table.cells(column)):
        name = str(cell).strip().lower()
        if name not in _SPLIT_NAMES:
            raise DataError(f"{table.place(index, column)}: {cell!r} is not in {list(_SPLIT_NAMES)}")
        rows[_SPLIT_NAMES[name]].append(index)
    for split in ("train", "test"):
        if not rows[split]:
            raise DataError(f"{table.path}: no row of column {column!r} is {split}; leave split out to have it drawn")
    if groups is not None:
        home: dict[Cell, Split] = {}
        for split, members in rows.items():
            for index in members:
                if home.setdefault(groups[index], split) != split:
                    raise DataError(
                        f"{table.path}: group {groups[index]!r} is in the splits {home[groups[index]]} and {split} "
                        f"(line {table.line(index)}); a group must not straddle splits"
                    )
    if not rows["val"]:
        members = rows["train"]
        numbers = None if groups is None else group_numbers([groups[index] for index in members])
        train, val = split_groups(len(members), numbers, _SHARE, seed)
        rows["train"], rows["val"] = [members[i] for i in train.tolist()], [members[i] for i in val.tolist()]
    return rows


def drawn_splits(
    kept: Sequence[int],
    classes: Sequence[Classes | None] | None,
    several: bool,
    groups: Sequence[Cell] | None,
    seed: int,
) -> dict[Split, list[int]]:
    """Draws 70 % for training, 15 % for validation, 15 % for test, with a seed.

    Whole groups where there are any; otherwise each class by itself, where a row has one. Unlabelled rows without
    a group go to training, if any row is labelled.

    Args:
        kept: The rows that are divided.
        classes: Of all rows; None: there are no labels.
        several: Whether a row may have several classes.
        groups: Of all rows.
        seed: Same seed, same splits.
    """
    if groups is None and classes is not None and not several:
        return _stratified(kept, classes, seed)
    labelled = [row for row in kept if classes is None or groups is not None or classes[row] is not None]
    free = sorted(set(kept) - set(labelled))
    every = {name for row in kept for name in (classes[row] or () if classes else ())}
    numbers = None if groups is None else group_numbers([groups[row] for row in labelled])
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
            break
    return parts


def check_classes(table: Table, column: str, classes: Sequence[Classes | None], rows: dict[Split, list[int]]) -> None:
    """Raises `DataError` for a class that is in validation or test, but never in training."""
    known = {name for row in rows["train"] for name in classes[row] or ()}
    for split in ("val", "test"):
        for row in rows[split]:
            for name in classes[row] or ():
                if name not in known:
                    raise DataError(
                        f"{table.place(row, column)}: class {name!r} is in the {split} split, but never in the train "
                        "split; mend the label, or the splits"
                    )


def group_numbers(groups: Sequence[Cell]) -> Tensor:
    """Numbers of groups by order of appearance, shape (n,)."""
    place: dict[Cell, int] = {}
    return torch.tensor([place.setdefault(group, len(place)) for group in groups], dtype=torch.long)


def _stratified(kept: Sequence[int], classes: Sequence[Classes | None], seed: int) -> dict[Split, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    rows: dict[Split, list[int]] = {"train": [], "val": [], "test": []}
    for name in [None, *class_names([classes[row] for row in kept])]:
        members = [row for row in kept if classes[row] == (None if name is None else (name,))]
        order = [members[i] for i in torch.randperm(len(members), generator=generator).tolist()]
        # A class of one or two rows is for training only.
        share = 0 if name is None or len(members) < 3 else max(1, round(_SHARE * len(members)))
        rows["val"] += order[:share]
        rows["test"] += order[share : 2 * share]
        rows["train"] += order[2 * share :]
    return {split: sorted(members) for split, members in rows.items()}


def _class_name(part: Cell, place: str) -> str:
    if isinstance(part, bool | int) or (isinstance(part, float) and part.is_integer()):
        return str(part) if isinstance(part, bool) else str(int(part))
    if isinstance(part, str) and part.strip():
        return part.strip()
    raise DataError(f"{place}: {part!r} is no class; a class is a text or a whole number")
