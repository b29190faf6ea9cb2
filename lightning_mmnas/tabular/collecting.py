"""From the folder of `mmnas tabulate` to one table."""

import statistics
from pathlib import Path
from typing import Any

from lightning_mmnas.errors import TableError
from lightning_mmnas.parsing import parse_json
from lightning_mmnas.tabular.table import FusionTable


def collect(folder: Path) -> FusionTable:
    """Builds a table of the architectures whose trainings are finished with every seed.

    Raises:
        TableError: There are none, or a file cannot be read.
    """
    card = _read(folder / "card.json")
    if not isinstance(card, dict):
        raise TableError(
            f"{folder / 'card.json'} says nothing of a table; delete {folder} and run mmnas tabulate again"
        )
    records: list[dict[str, Any]] = []
    for path in sorted((folder / "blocks").glob("*.json")):
        rows = _rows(path, {"index", "seed"})
        if any(row.keys() != (records or rows)[0].keys() or not _is_numbered(row) for row in rows):
            raise _no_rows(path)
        records += rows
    seeds = {record["seed"] for record in records}
    done: dict[int, set[int]] = {}
    for record in records:
        done.setdefault(record["index"], set()).add(record["seed"])
    whole = [record for record in records if done[record["index"]] == seeds]
    if not whole:
        raise TableError(f"{folder} has no architecture that was trained with every seed; run mmnas tabulate first")
    baselines: list[list[dict[str, Any]]] = []
    for path in sorted(folder.glob("baselines-*.json")):
        rows = _rows(path, {"name"})
        if _names_and_columns(rows) != _names_and_columns((baselines or [rows])[0]):
            raise _no_rows(path)
        baselines.append(rows)
    card["baselines"] = _baselines(baselines)
    table = FusionTable.from_records(whole, card)
    if table.indices[-1] >= table.space.size():
        raise TableError(
            f"{folder / 'blocks'} holds architecture {table.indices[-1]} of a space of {table.space.size()}; delete "
            "its file and run mmnas tabulate again"
        )
    return table


def _baselines(seeds: list[list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Mean over seeds of every baseline's columns."""
    found: dict[str, dict[str, float]] = {}
    for rows in zip(*seeds, strict=True):
        columns = [name for name in rows[0] if name != "name"]
        found[rows[0]["name"]] = {name: statistics.fmean(row[name] for row in rows) for name in columns}
    return found


def _rows(path: Path, keys: set[str]) -> list[dict[str, Any]]:
    """The rows of a file: there are some, with these columns, and all values but names are numbers."""
    rows = _read(path)
    if not isinstance(rows, list) or not rows or not all(_is_row(row) and keys <= row.keys() for row in rows):
        raise _no_rows(path)
    return rows


def _names_and_columns(rows: list[dict[str, Any]]) -> list[tuple[str, set[str]]]:
    return [(row["name"], set(row)) for row in rows]


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(
        name == "name" or value is None or isinstance(value, int | float) for name, value in row.items()
    )


def _is_numbered(row: dict[str, Any]) -> bool:
    """Whether architecture and seed are such numbers as a table stores."""
    return all(isinstance(row[name], int) and 0 <= row[name] < 2**32 for name in ("index", "seed"))


def _no_rows(path: Path) -> TableError:
    return TableError(f"{path} holds no rows of this table; delete it and run mmnas tabulate again")


def _read(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"cannot read {path}: {error}; delete it and run mmnas tabulate again") from None
