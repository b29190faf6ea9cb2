"""One command at a time in a folder, also across machines that share it; who is killed does not keep others out.

The lock is the operating system's, which ends with the process that holds it. Beside it stands who that is, for the
message that another command ends with, and for the line that says whose work is gone on with.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import read_json, write_json

LOCK = ".lock"
OWNER = ".lock.json"
_NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path, say: Callable[[str], object]) -> Iterator[None]:
    """Keeps other commands out of a folder within the block; makes the folder where there is none.

    Args:
        folder: What is written into.
        say: Called with a line where a process that held the lock has ended without giving it back, or where the
            disk knows no locks.

    Raises:
        RunDirectoryError: Another process is at work there, or the folder cannot be written.
    """
    made = _make(folder)
    # No soft lock in place of the system's: one whose machine has died would keep others out for ever.
    lock = FileLock(folder / LOCK, timeout=0, fallback_to_soft=False)
    known = True
    try:
        lock.acquire()
    except Timeout:
        raise RunDirectoryError(
            f"{folder} is being written by {_owner(folder) or 'another process'}; wait until it has ended, or choose "
            "another folder"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            _remove(folder, made)
            reason = error.strerror or error
            raise RunDirectoryError(f"cannot write {folder}: {reason}; choose another folder") from error
        known = False
    if not known:
        with suppress(OSError):
            (folder / LOCK).unlink()  # it says nothing
        say(f"the disk of {folder} knows no locks: nothing keeps a second run out of it")
        try:
            yield
        finally:
            _remove(folder, made)
        return
    try:
        if (before := _owner(folder)) is not None:
            say(f"{before} was at work in {folder} and has ended without a word; going on from what it left")
        write_json(
            folder / OWNER,
            {"process": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")},
        )
        yield
    finally:
        for name in (OWNER, LOCK):  # before it is released: nobody else has these yet
            with suppress(OSError):
                (folder / name).unlink()
        lock.release()
        _remove(folder, made)


def is_empty(folder: Path) -> bool:
    """Whether a folder is not there, or holds nothing but a lock."""
    return not folder.is_dir() or all(path.name in (LOCK, OWNER) for path in folder.iterdir())


def _make(folder: Path) -> list[Path]:
    """Makes a folder, and says which folders that took, the innermost first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise RunDirectoryError(f"cannot write {folder}: {reason}; choose another folder") from error
    return missing


def _remove(folder: Path, made: list[Path]) -> None:
    """Removes the folders that were made, where nothing has come into them."""
    for path in made:
        with suppress(OSError):
            path.rmdir()


def _owner(folder: Path) -> str | None:
    """Who holds the lock, or has held it until it was killed; None where nobody has said so."""
    try:
        owner = read_json(folder / OWNER)
    except RunDirectoryError:
        owner = None
    if owner is None:
        return None
    return f"process {owner.get('process')} on {owner.get('host')} (since {owner.get('since')})"
