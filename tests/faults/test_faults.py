"""Few of every fault; `python -m tests.faults --full` injects many."""

import json
from pathlib import Path

import pytest

from tests.faults import batches, endurance
from tests.faults.__main__ import main
from tests.faults.record import Record, require
from tests.ranks import run_forked

FORKING = {"kills": 1, "locks": 3, "hostile": 258}
"""Families that need a process of their own, and their cases; `disk` and `folders` take a minute, and are not here."""


@pytest.mark.slow
def test_runs_that_are_killed_or_crossed_and_files_made_to_do_harm(tmp_path: Path) -> None:
    """In one process that forks: libraries are loaded once, and the run that all are compared with is made once."""
    code, said = run_forked(main, [*FORKING, "--json", str(tmp_path / "counts.json")])
    assert (tmp_path / "counts.json").is_file(), f"exit code {code}: {said}"
    found = [Record(**record) for record in json.loads((tmp_path / "counts.json").read_text())]
    for record, cases in zip(found, FORKING.values(), strict=True):
        require(record, cases)


@pytest.mark.slow
def test_losses_and_data_that_no_training_survives() -> None:
    record = batches.batches(("search", "finetune"))
    require(record, 2 * len(batches.FAULTS))
    assert record.worked >= 8


@pytest.mark.slow
def test_memory_descriptors_and_threads() -> None:
    require(endurance.alternations(120), 120)
