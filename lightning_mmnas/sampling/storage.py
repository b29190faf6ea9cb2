"""Where studies are kept, so that they can be continued, and several processes can share one."""

import os
import platform
import re

from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from lightning_mmnas.errors import StudyError

_ACCEPTED = "accepted: sqlite:///FILE.db, another URL of SQLAlchemy, or a journal FILE.log"
_JOURNALS = (".log", ".journal")
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
            options = {"connect_args": {"timeout": _PATIENCE}} if url.startswith("sqlite") else {}
            return RDBStorage(url, engine_kwargs=options)
        if url.endswith(_JOURNALS):
            return JournalStorage(JournalFileBackend(url))
    except ImportError as error:
        raise StudyError(f"storage {without_password(url)} needs a database driver: {error}; install it") from error
    except Exception as error:  # what a database raises depends on its driver
        reason = without_password(f"{error}".strip().splitlines()[0] if f"{error}".strip() else type(error).__name__)
        raise StudyError(f"cannot open storage {without_password(url)}: {reason}; {_ACCEPTED}") from error
    raise StudyError(f"{url!r} is no storage; {_ACCEPTED}")


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
