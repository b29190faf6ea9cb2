"""Writing files so that a crash leaves the old file or the new one, never half of one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.parsing import parse_json


def write_text(path: Path, text: str) -> None:
    """Writes a text file in UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file through a temporary name beside it, creating its folder.

    Raises:
        RunDirectoryError: the folder or the file cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, as `write_text` does."""
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Gives a temporary path in the same folder, which becomes `path` if the block succeeds.

    The temporary name keeps the suffix, so that a writer may choose its format by it.

    Raises:
        RunDirectoryError: the folder or the file cannot be written.
    """
    # The process number keeps two processes apart.
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {path}: {error.strerror or error}; choose another folder") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of a run directory; None where there is no file."""
    if not path.is_file():
        return None
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"cannot read {path}: {error}; delete it to run again") from error
    return content if isinstance(content, dict) else None
