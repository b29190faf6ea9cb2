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
    card, records = _read(folder / "card.json"), []
    for path in sorted((folder / "blocks").glob("*.json")):
        records += _read(path)
    seeds = {record["seed"] for record in records}
    done: dict[int, set[int]] = {}
    for record in records:
        done.setdefault(record["index"], set()).add(record["seed"])
    whole = [record for record in records if done[record["index"]] == seeds]
    if not whole:
        raise TableError(f"{folder} has no architecture that was trained with every seed; run mmnas tabulate first")
    card["baselines"] = _baselines([_read(path) for path in sorted(folder.glob("baselines-*.json"))])
    return FusionTable.from_records(whole, card)


def _baselines(seeds: list[list[dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Mean over seeds of every baseline's columns."""
    found: dict[str, dict[str, float]] = {}
    for rows in zip(*seeds, strict=True):
        columns = [name for name in rows[0] if name != "name"]
        found[rows[0]["name"]] = {name: statistics.fmean(row[name] for row in rows) for name in columns}
    return found


def _read(path: Path) -> Any:
    try:
        return parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TableError(f"cannot read {path}: {error}; delete it and run mmnas tabulate again") from None
