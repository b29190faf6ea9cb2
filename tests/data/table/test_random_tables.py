"""A few of the tables of `python -m tests.data.table.random_tables`."""

from collections import Counter
from pathlib import Path

from tests.data.table.random_tables import make_random_table, try_table


def test_every_sample_is_what_was_written_or_the_command_stopped(tmp_path: Path) -> None:
    endings: Counter[str] = Counter()
    for seed in range(24):
        folder = tmp_path / str(seed)
        folder.mkdir()
        endings[try_table(make_random_table(folder, seed), folder / "configs")] += 1
    assert min(endings["equal"], endings["stopped"]) >= 4
