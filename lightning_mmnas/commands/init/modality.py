"""`--modality`: how a modality is spelt on the command line, and read from there."""

from __future__ import annotations

import csv
import fnmatch
import re
import shlex
from collections.abc import Sequence
from typing import Any, cast, get_args, get_type_hints

from lightning_mmnas.commands.init.configs import setting_names, settings_of
from lightning_mmnas.data.names import flaw, safe_name
from lightning_mmnas.data.spec import Kind
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.reading import Table, number_share
from lightning_mmnas.errors import ConfigError

FORM = "name=kind:column,column,setting=value"


def parse_modality(table: Table, text: str) -> tuple[str, ColumnSpec, set[str]]:
    """Reads `name=kind:column,column,setting=value`; `*` in a column stands for any characters.

    Args:
        table: The table.
        text: What is given; a column whose name has a comma stands in double quotes.

    Returns:
        The modality's name, how it is read, and which settings were given.

    Raises:
        ConfigError: It is not of that form, or names no kind, column or setting that exists.
    """
    name, equals, rest = text.partition("=")
    kind, colon, listed = rest.partition(":")
    name, kind = name.strip(), kind.strip()
    if not (equals and colon and name and listed.strip()):
        raise ConfigError(f"--modality {text!r} is not of the form {FORM}")
    if kind not in get_args(Kind):
        raise ConfigError(f"--modality {text!r}: kind {kind!r} is not in {list(get_args(Kind))}")
    if (reason := flaw(name)) is not None:
        raise ConfigError(
            f"--modality {text!r}: {name!r} cannot be the name of a modality: {reason}; take {safe_name(name, kind)!r}"
        )
    columns: list[str] = []
    settings: dict[str, Any] = {}
    for part in parted(listed, text):
        key, assigned, value = part.partition("=")
        if part in table.names or not assigned:
            columns += [column for column in _columns(table, part, text) if column not in columns]
        else:
            settings[key.strip()] = _setting(kind, key.strip(), value.strip(), text)
    if not columns:
        raise ConfigError(f"--modality {text!r} names no column; the form is {FORM}")
    if kind == "features" and "files" not in settings and len(columns) == 1:
        settings["files"] = not _has_numbers(table, columns[0])
    spec = ColumnSpec(cast(Kind, kind), columns, **settings)
    try:
        spec.check(name)
    except ConfigError as error:
        raise ConfigError(f"--modality {text!r}: {str(error).partition('; check data.init_args')[0]}") from None
    return name, spec, set(settings)


def spell_modality(name: str, spec: ColumnSpec, table: Table) -> str:
    """The option that says how a modality is read, quoted for a shell."""
    columns = ",".join(map(_quoted, _shortened(spec.columns, table.names)))
    shown = settings_of(spec)
    settings = "".join(f",{key}={_spelt(value)}" for key, value in shown.items())
    return f"--modality {shlex.quote(f'{name}={spec.kind}:{columns}{settings}')}"


def parted(listed: str, text: str) -> list[str]:
    """The columns and settings, parted by commas (or semicolons) outside of double quotes."""
    pieces = re.split(r';(?=(?:[^"]*"[^"]*")*[^"]*$)', listed)
    try:
        rows = [next(csv.reader([piece], skipinitialspace=True, strict=True), []) for piece in pieces]
    except csv.Error as error:
        raise ConfigError(f"--modality {text!r}: {error}; a name with a comma stands in double quotes") from None
    return [part.strip() for row in rows for part in row if part.strip()]


def _columns(table: Table, part: str, text: str) -> Sequence[str]:
    if part in table.names or "*" not in part:
        table.need(part, "--modality")
        return [part]
    pattern = "".join("*" if c == "*" else f"[{c}]" if c in "?[" else c for c in part)
    found = [name for name in table.names if fnmatch.fnmatchcase(name, pattern)]
    if not found:
        raise ConfigError(f"--modality {text!r}: no column is like {part!r}; the columns are {table.names}")
    return found


def _setting(kind: str, key: str, value: str, text: str) -> Any:
    from pydantic import TypeAdapter, ValidationError

    known = setting_names(kind)
    if key not in known:
        raise ConfigError(
            f"--modality {text!r}: {key!r} is no column, and no setting of kind {kind!r}; those are {known}"
        )
    given: Any = value
    if key == "size":
        sides = re.split(r"\s*[x*]\s*", value.lower())
        given = tuple(sides * 2 if len(sides) == 1 else sides)
    elif value.lower() in ("none", "null"):
        given = None
    try:
        return TypeAdapter(get_type_hints(ColumnSpec)[key]).validate_python(given)
    except ValidationError as error:
        example = ", such as size=64x64 (h x w)" if key == "size" else ""
        reason = error.errors()[0]["msg"]
        raise ConfigError(f"--modality {text!r}: {key}={value}: {reason[0].lower()}{reason[1:]}{example}") from None


def _has_numbers(table: Table, column: str) -> bool:
    return number_share(table, column) > 0


def _shortened(columns: Sequence[str], names: Sequence[str]) -> list[str]:
    """Many columns as one pattern, where it means them and no others."""
    if len(columns) < 4:
        return list(columns)
    start = columns[0]
    while start and not all(column.startswith(start) for column in columns):
        start = start[:-1]
    while start and [name for name in names if name.startswith(start)] != list(columns):
        return list(columns)
    return [f"{start}*"] if start and not any(character in start for character in '*?[,;="') else list(columns)


def _quoted(column: str) -> str:
    return '"' + column.replace('"', '""') + '"' if any(character in column for character in ',;"') else column


def _spelt(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "x".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if isinstance(value, bool) else str(value)
