"""JSON text and its files, with errors that name the file and the place."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_mmnas.errors import GenotypeError
from lightning_mmnas.parsing import parse_json


def read_object(text: str, source: str) -> dict[str, Any]:
    """Returns the object that is written in `text`.

    Args:
        text: JSON.
        source: what an error calls it.

    Raises:
        GenotypeError: it is not JSON, not an object, or names a key twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise GenotypeError(f"{source}: the key {twice[0]!r} appears twice in one object")
        return dict(pairs)

    try:
        data = parse_json(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise GenotypeError(f"{source}: not JSON: {error.msg} at {place}") from None
    except GenotypeError:
        raise
    except ValueError as error:  # an endless number, deep nesting
        raise GenotypeError(f"{source}: not JSON that can be read: {error}") from None
    if not isinstance(data, dict):
        raise GenotypeError(f"{source}: a {type(data).__name__} where an object is needed")
    return data


def read_text(path: str | os.PathLike[str]) -> str:
    """Returns the text of a file.

    Raises:
        GenotypeError: the file is missing, unreadable or not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8")
    except FileNotFoundError:
        if str(path).lstrip().startswith("{"):
            raise GenotypeError("a path is needed, and JSON text was given: Genotype.from_json reads it") from None
        raise GenotypeError(f"{path}: no such file; a genotype is written by the search stage") from None
    except UnicodeDecodeError as error:
        raise GenotypeError(f"{path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise GenotypeError(f"{path}: cannot be read: {error.strerror}") from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a file whole or not at all, creating its folder.

    Raises:
        GenotypeError: it cannot be written; an older file is then left as it was.
    """
    target = Path(path)
    new = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.replace(target)
    except OSError as error:
        raise GenotypeError(f"{target}: cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            new.unlink()
