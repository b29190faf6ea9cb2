"""Journals whose writer was killed, and storages that are damaged."""

import os
from pathlib import Path
from typing import Any

import pytest
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy.exc import IntegrityError

from lightning_mmnas import FusionSpace, FusionStudy
from lightning_mmnas.errors import StudyError
from lightning_mmnas.sampling import storage
from lightning_mmnas.sampling.storage import open_storage

SPACE = FusionSpace(inputs=("image/0", "text"), cells=1)


def _search(url: str, trials: int) -> int:
    study = FusionStudy(SPACE, "random", objectives=("inputs",), storage=url)
    study.run(lambda genotype, report: {"inputs": len(genotype.inputs_read())}, trials)
    return study.finished


def test_tables_that_another_process_makes_at_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, begun = RDBStorage, 0

    def at_once(url: str, **options: Any) -> Any:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise IntegrityError("INSERT", None, Exception("UNIQUE constraint failed: alembic_version.version_num"))
        return made(url, **options)

    monkeypatch.setattr(storage, "RDBStorage", at_once)
    assert _search(f"sqlite:///{tmp_path / 'study.db'}", 1) == 1
    assert begun == 3


def test_a_full_disk_is_not_taken_for_damage(tmp_path: Path) -> None:
    study = FusionStudy(SPACE, "random", objectives=("inputs",))

    def full(genotype: Any, report: Any) -> dict[str, float]:
        raise StorageInternalError from OSError("(sqlite3.OperationalError) database or disk is full")

    with pytest.raises(StudyError, match=r"disk is full; make room, and the same command goes on"):
        study.run(full, 1)


def test_half_a_line_of_a_killed_writer_is_dropped(tmp_path: Path) -> None:
    journal = tmp_path / "study.log"
    assert _search(str(journal), 2) == 2
    whole = journal.read_bytes()
    for half in (b'{"op', b'{"op_code":6,"worker_id":"a'):
        journal.write_bytes(whole + half)
        assert _search(str(journal), 2) == 2
        assert journal.read_bytes().startswith(whole + b'{"op_code":0')  # the study, asked for once more
    journal.write_bytes(whole[:-9])  # in the middle of its last entry
    assert _search(str(journal), 3) == 3
    assert _search(str(journal), 4) == 4


def test_files_that_are_no_journal_are_left_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine.log"
    for text in ("one\ntwo", 'one\n{"op_code":'):
        mine.write_text(text)
        with pytest.raises(StudyError, match="delete the file if it is damaged; accepted: sqlite"):
            open_storage(str(mine))
        assert mine.read_text() == text


def test_the_lock_of_a_killed_process_leads_somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Optuna gives such a lock up after its grace, unless it is a link that leads nowhere: it would wait for ever."""
    links: list[tuple[str, str]] = []
    symlink = os.symlink

    def noted(to: str, link: str) -> None:
        links.append((to, link))
        symlink(to, link)

    monkeypatch.setattr(os, "symlink", noted)
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    assert _search("runs/study.log", 1) == 1
    assert {(Path(link).parent / to).is_file() for to, link in links} == {True}
