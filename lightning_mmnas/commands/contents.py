"""What a table holds, by a hash: a finished stage says so if its table has been changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_mmnas.commands.stages import Stage

_TABLE = "data.init_args.table"
_ENDS = 1 << 24
"""Bytes that are hashed at either end of a file."""


def content_of(stage: Stage) -> str | None:
    """Hash of the table that a stage reads: its size, its beginning and its end; None: it reads no single file."""
    path = Path(str(stage.settings.get(_TABLE, "")))
    if not path.is_file():
        return None
    size = path.stat().st_size
    state = hashlib.blake2b(str(size).encode(), digest_size=16)
    with path.open("rb") as file:
        state.update(file.read(_ENDS))
        file.seek(max(file.tell(), size - _ENDS))
        state.update(file.read())
    return state.hexdigest()


def changed_since(record: Mapping[str, Any], stage: Stage) -> str:
    """What is to be said of a finished stage whose table is not what it was; mostly nothing."""
    before, now = record.get("table"), content_of(stage)
    if before is None or now is None or before == now:
        return ""
    return f"; {stage.settings[_TABLE]} has changed since: a run with a new --output would see it"
