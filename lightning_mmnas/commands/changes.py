"""What is changed against a run that is there: the settings of each stage, and what the run has recorded of them.

A stage's settings are its configuration as the stage itself resolves it: comments, the order of keys, entries that
others share and values that are defaults anyway do not count, nor does the place of the run directory.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_mmnas.commands.stages import ORDER, Stage
from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import read_json

MANIFEST = "manifest.json"
RUN_DIR = "@run_dir@"
"""Stands for the run directory, wherever it is."""


def digest_of(settings: Mapping[str, Any]) -> str:
    """Hash of a stage's settings."""
    text = json.dumps(dict(settings), sort_keys=True, default=str)
    return f"settings:{hashlib.sha256(text.encode()).hexdigest()}"


def same(known: Any, stage: Stage, seed: int) -> bool:
    """Whether a stored digest is that of a stage; those of earlier versions are of files and options."""
    if not str(known).startswith("settings:"):
        return str(known) == stage.digest(seed)
    before = {n: 0.0 if n.startswith("trainer.limit_") and v == 0 else v for n, v in stage.settings.items()}
    return str(known) in (digest_of(stage.settings), digest_of(before))  # no batches were 0.0 of them


def make_manifest(stages: Sequence[Stage], seed: int) -> dict[str, Any]:
    """What `manifest.json` holds: seed, digests and settings."""
    return {
        "seed": seed,
        "stages": {stage.name: digest_of(stage.settings) for stage in stages},
        "settings": {stage.name: json.loads(json.dumps(dict(stage.settings), default=str)) for stage in stages},
    }


def read_manifest(run_dir: Path) -> dict[str, Any] | None:
    """The manifest of a run; None where there is none.

    Raises:
        RunDirectoryError: It is damaged.
    """
    path, reason = run_dir / MANIFEST, "no seed and stages in it"
    try:
        content = read_json(path)
    except RunDirectoryError as error:
        reason, content = str(error.__cause__), None
    if content is None and not path.is_file():
        return None
    if content is None or not isinstance(content.get("seed"), int) or not isinstance(content.get("stages"), dict):
        raise RunDirectoryError(
            f"cannot read {path} ({reason}), so the run's settings are unknown; put the file back, "
            f"or run anew with --output {free_folder(run_dir)}"
        )
    return content


def read_record(run_dir: Path, name: str) -> dict[str, Any] | None:
    """What a finished stage left about itself; None where it is not finished.

    Raises:
        RunDirectoryError: The record is damaged.
    """
    path, reason = run_dir / name / "done.json", "something is missing in it"
    try:
        record = read_json(path)
    except RunDirectoryError as error:
        reason, record = str(error.__cause__), None
    if record is None and not path.is_file():
        return None
    whole = record is not None and "digest" in record and isinstance(record.get("seconds"), int | float)
    whole = whole and isinstance((record or {}).get("parameters", {}), dict)
    if not whole or (name == "comparison" and not isinstance((record or {}).get("results"), dict)):
        raise RunDirectoryError(
            f"cannot read {path} ({reason}); delete it and give the same command again: "
            f"stage {name} then goes on from its last checkpoint"
        )
    return record


def is_done(stage: Stage, run_dir: Path, seed: int) -> bool:
    """Whether a stage is finished, with these settings; not where its record is damaged."""
    with suppress(RunDirectoryError):
        record = read_record(run_dir, stage.name)
        return record is not None and same(record["digest"], stage, seed)
    return False


def first_change(run_dir: Path, manifest: Mapping[str, Any], stages: Sequence[Stage], seed: int) -> str | None:
    """The first stage with other settings than those it was run with or, not begun, is planned with.

    Args:
        run_dir: Run directory.
        manifest: Its manifest.
        stages: The stages as they are now.
        seed: Seed of the run.

    Returns:
        The stage's name, also one that there no longer is; None where all are the same.
    """
    now = {stage.name: stage for stage in stages}
    for name in ORDER:
        known = (read_record(run_dir, name) or {}).get("digest", manifest["stages"].get(name))
        if known is None and name not in now:
            continue
        if known is None or name not in now or not same(known, now[name], seed):
            return name
    return None


def begun_from(run_dir: Path, first: str | None) -> list[str]:
    """The stages from one on that are finished, or have trained something that would be lost."""
    names = ORDER[ORDER.index(first) :] if first else ()
    return [n for n in names if (run_dir / n / "done.json").exists() or any((run_dir / n).rglob("*.ckpt"))]


def free_folder(folder: Path) -> Path:
    """The first folder of that name with a number that there is not."""
    folder = folder if folder.name else folder.resolve()
    found = re.fullmatch(r"(.+)-(\d+)", folder.name)
    stem, number = (found.group(1), int(found.group(2)) + 1) if found else (folder.name, 2)
    while (free := folder.with_name(f"{stem}-{number}")).exists():
        number += 1
    return free


def listed(names: Sequence[str]) -> str:
    """Names as in a sentence."""
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Values by full key; None is as good as nothing, since new arguments of classes are mostly None."""

    def items(node: Any, key: str) -> Iterator[tuple[str, Any]]:
        named = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list | tuple) else None
        if named is None:
            if node is not None:
                yield key, node
            return
        empty = True
        for name, child in named:
            empty = False
            yield from items(child, f"{key}.{name}" if key else str(name))
        if empty and key:
            yield key, node

    return dict(items(value, prefix))
