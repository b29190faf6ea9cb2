"""Small tables for `mmnas init`, and what it makes of their columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lightning_mmnas.commands.init.columns import Proposal
from lightning_mmnas.commands.init.command import read_columns

NOTHING: dict[str, str | None] = dict.fromkeys(("label", "split", "group", "id"))


def write_table(root: Path, columns: Mapping[str, Sequence[Any]], name: str = "t.jsonl") -> Path:
    """Writes a table of JSON lines; None is an empty cell."""
    root.mkdir(parents=True, exist_ok=True)
    rows = zip(*columns.values(), strict=True)
    path = root / name
    path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows), encoding="utf-8")
    return path


def proposed(path: Path, *modality: str, **options: Any) -> Proposal:
    """What `mmnas init` takes the columns for."""
    special = NOTHING | {role: options.pop(role) for role in NOTHING if role in options}
    return read_columns(str(path), special, modality, **options)


def picture(path: Path, value: int = 0, format: str | None = None) -> Path:
    """Writes a small picture of one colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((6, 8, 3), value, dtype=np.uint8)).save(path, format=format)
    return path


def numbers(count: int, seed: int = 0) -> list[float]:
    """Numbers that tell nothing."""
    return [float(value) for value in np.random.default_rng(seed).normal(size=count).round(4)]
