"""Where the file lies that a cell names."""

import os
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

_URL = re.compile(r"\s*[A-Za-z][A-Za-z0-9+.-]+://\S+\s*")
_LOCAL = re.compile(r"file:(?://(?:localhost)?(?=/))?", re.IGNORECASE)
"""Beginning of the address of a file on this computer, ``file:///folder/photo.jpg``."""


def is_url(cell: str) -> bool:
    """Whether a cell is an address on the web such as ``https://host/photo.jpg`` and nothing else."""
    return len(cell) < 4096 and _URL.fullmatch(cell) is not None and _LOCAL.match(cell.strip()) is None


def base_folder(table: Path, files_from: str | None) -> Path:
    """The folder that a table's files are named relative to."""
    if files_from is not None:
        return Path(files_from)
    return table if table.is_dir() else table.parent


def locate(folder: Path, cell: str) -> Path:
    r"""The file that a cell names, relative to a folder.

    Where there is none of the very name, it is the one file whose name differs in ``\`` for ``/``, in ``~`` for the
    home directory, in how Unicode composes accents, or in that it is written as in an address: ``%20`` for a space,
    with ``file://`` before it.

    Args:
        folder: See `base_folder`.
        cell: The path.

    Returns:
        The file; where there is none, or more than one, the name as it is written.
    """
    written, *others = spellings(cell)
    if not others or exists(folder / written):
        return folder / written
    found = [folder / other for other in others if exists(folder / other)]
    distinct = {os.path.realpath(path): path for path in reversed(found)}
    return next(iter(distinct.values())) if len(distinct) == 1 else folder / written


def spellings(cell: str) -> list[str]:
    """A path as it is written, less white space around it; and in the other ways that it may be meant."""
    written = cell.strip()
    plain = cell == written and written.isascii() and not written.startswith("~")
    if plain and not any(sign in written for sign in "\\%:"):
        return [written]
    return list(dict.fromkeys([written, *_others(cell, written)]))


def _others(cell: str, written: str) -> Iterator[str]:
    yield cell
    local = _LOCAL.sub("", written, count=1)
    for slashes in dict.fromkeys([written, written.replace("\\", "/"), local, unquote(local)]):
        for home in (slashes, os.path.expanduser(slashes)):
            yield home
            yield from (unicodedata.normalize(form, home) for form in ("NFC", "NFD"))


def exists(path: Path) -> bool:
    """Whether there is such a file; not for what cannot be a path, such as a long text."""
    return os.path.isfile(path)
