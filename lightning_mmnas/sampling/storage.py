"""Where studies are kept, so that they can be continued, and several processes can share one."""

import os
import platform
import re
from pathlib import Path

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.exc import DBAPIError

from lightning_mmnas.errors import StudyError

_ACCEPTED = "accepted: sqlite:///FILE.db, another URL of SQLAlchemy, or a journal FILE.log"
_JOURNALS = (".log", ".journal")
_ENTRY = b'{"op_code":'
_LONGEST = 2**20
"""Bytes that an entry of a journal has at most; it is some hundred."""
_MADE_MEANWHILE = re.compile(r"already exists|unique constraint|duplicate", re.IGNORECASE)
_TRIES = 8
"""More than a database has tables and rows that are made with it."""
_PATIENCE = 60.0
"""Seconds that a process waits for another one that writes to the same SQLite file."""


def open_storage(url: str | None) -> BaseStorage:
    """Opens, or makes, a storage.

    Args:
        url: A URL of SQLAlchemy, such as ``sqlite:///study.db``; the path of a journal, ``*.log`` or ``*.journal``;
            None: in memory.

    Raises:
        StudyError: It cannot be opened; the message has no password.
    """
    if url is None:
        return InMemoryStorage()
    try:
        if "://" in url:
            return _database(url)
        if url.endswith(_JOURNALS):
            return JournalStorage(_journal(url))
    except ImportError as error:
        raise StudyError(f"storage {without_password(url)} needs a database driver: {error}; install it") from error
    except Exception as error:  # what a database raises depends on its driver
        reason = without_password(f"{error}".strip().splitlines()[0] if f"{error}".strip() else type(error).__name__)
        there = Path(url.removeprefix("sqlite:///")).is_file()
        way = "make room, or delete the file if it is damaged; " if there else ""
        raise StudyError(f"cannot open storage {without_password(url)}: {reason}; {way}{_ACCEPTED}") from error
    raise StudyError(f"{url!r} is no storage; {_ACCEPTED}")


def _database(url: str) -> RDBStorage:
    """A database; where another process makes its tables at the same moment, these are taken in another try."""
    options = {"connect_args": {"timeout": _PATIENCE}} if url.startswith("sqlite") else {}
    for _ in range(_TRIES):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except DBAPIError as error:
            if not _MADE_MEANWHILE.search(str(error)):
                raise
    return RDBStorage(url, engine_kwargs=options)


def _journal(path: str) -> JournalFileBackend:
    """A journal, without the half line that a process leaves which is killed, or has no room, while it writes.

    (Optuna would write the next entry behind it, and could read neither. Its lock is a link to the path: one that is
    relative leads nowhere from another folder, and then the lock of a killed process is waited for for ever.)
    """
    file = Path(path).absolute()
    lock = JournalFileSymlinkLock(str(file))
    backend = JournalFileBackend(str(file), lock)
    if _half_line(file):
        lock.acquire()  # which whoever is writing at this moment holds
        try:
            os.truncate(file, file.stat().st_size - _half_line(file))
        finally:
            lock.release()
    return backend


def _half_line(file: Path) -> int:
    """Bytes behind the last whole line of a journal; 0 in files that are something else."""
    with file.open("rb") as content:
        is_journal = content.read(len(_ENTRY)) == _ENTRY
        content.seek(max(0, file.stat().st_size - _LONGEST))
        line = content.read().rpartition(b"\n")[2]
    return len(line) if is_journal and _ENTRY.startswith(line[: len(_ENTRY)]) else 0


def without_password(text: str) -> str:
    """Returns a text whose URLs hide their passwords."""
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", text)


def this_process() -> str:
    """Returns the name of this process among those of all machines."""
    return f"{platform.node()}:{os.getpid()}"


def has_died(process: str) -> bool:
    """Whether a process of this machine has ended; False where that cannot be known."""
    host, _, number = process.rpartition(":")
    if host != platform.node() or not number.isdigit() or os.name != "posix":
        return False
    if int(number) == os.getpid():  # the number has been given again
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
