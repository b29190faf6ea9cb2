"""`python -m tests.faults [--full] [FAMILY ...]`: injects the faults of all families, and prints the counts."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.faults.record import Record
from tests.faults.runs import Whole, run_whole

Family = Callable[[], Record]


def families(full: bool, seed: int, whole: Callable[[], Whole]) -> dict[str, Family]:
    """The families by name, those first that fork and need a process that has computed nothing yet."""
    from tests.faults import batches, disk, endurance, folders, fuzz, hostile, kills

    many = 10_000 if full else 300
    return {
        "kills": lambda: kills.kills(30 if full else 1, seed, whole()),
        "disk": lambda: disk.full_disk(12 if full else 2, seed, whole()),
        "folders": lambda: folders.read_only_folders(whole()),
        "locks": lambda: folders.two_at_once(whole()),
        "hostile": lambda: hostile.hostile(whole().run / "model"),
        "genotypes": partial(fuzz.genotypes, many, seed),
        "tables": partial(fuzz.tables, many, seed),
        "configs": partial(fuzz.configs, many, seed),
        "batches": batches.batches,
        "endurance": partial(endurance.alternations, 2000 if full else 120),
    }


def main(args: Sequence[str] | None = None) -> int:
    """Prints a line per family; returns 1 where a case went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("families", nargs="*", help="default: all")
    parser.add_argument("--full", action="store_true", help="30 kills, 10,000 files of each kind, 2,000 alternations")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for the counts", metavar="FILE")
    options = parser.parse_args(args)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    records: list[Record] = []
    with tempfile.TemporaryDirectory() as folder:
        made: list[Whole] = []

        def whole() -> Whole:
            made[:] = made or [run_whole(Path(folder))]
            return made[0]

        known = families(options.full, options.seed, whole)
        for name in known if not options.families else options.families:
            if name not in known:
                parser.error(f"there is no family {name!r}, but {list(known)}")
            records.append(known[name]())
    table = Table("faults", "cases", "refused", "worked", "wrong", "s")
    for record in records:
        counts = (record.cases, record.refused, record.worked, len(record.failures))
        table.add_row(record.family, *map(str, counts), f"{record.seconds:.0f}")
    console = Console()
    console.print(table)
    for record in records:
        for failure in record.failures:
            console.print(f"{record.family}: {failure}", markup=False, highlight=False)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(record) for record in records], indent=1) + "\n")
    return int(any(record.failures for record in records))


if __name__ == "__main__":
    raise SystemExit(main())
