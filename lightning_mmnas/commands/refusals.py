"""What is refused before anything is written into a run that is there, each with the way out."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_mmnas.commands.changes import (
    MANIFEST,
    digest_of,
    free_folder,
    listed,
    read_manifest,
    read_record,
)
from lightning_mmnas.commands.stages import ORDER, STAGES, Stage
from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import read_json

_WRITTEN = "# lightning_mmnas=="
"""Beginning of a configuration that a training has written."""
_SHOWN = 3
"""Changed settings of a stage that a message names."""


def refuse_seed(run_dir: Path, known: int, seed: int, words: Sequence[str]) -> None:
    """Refuses another seed.

    Args:
        run_dir: Run directory.
        known: Its seed.
        seed: The one that was given.
        words: The command.

    Raises:
        RunDirectoryError: They differ.
    """
    if known != seed:
        elsewhere = shlex.join(with_output(words, free_folder(run_dir)))
        raise RunDirectoryError(
            f"{run_dir} belongs to another run: its seed is {known}, not {seed}, and another seed is always another "
            f"run; give it a folder of its own: {elsewhere}"
        )


def refuse_changes(
    run_dir: Path,
    manifest: Mapping[str, Any],
    first: str,
    redone: Sequence[str],
    stages: Sequence[Stage],
    words: list[str],
) -> None:
    """Refuses to do stages again.

    Args:
        run_dir: Run directory.
        manifest: Its manifest.
        first: The first stage with other settings.
        redone: The stages that would be done again.
        stages: The stages as they are now.
        words: The command, without ways out.

    Raises:
        RunDirectoryError: Always; names the stages, what has changed, and both ways out.
    """
    now = next((stage.settings for stage in stages if stage.name == first), {})
    before = manifest.get("settings", {}).get(first)
    what = f" ({describe(before, now)})" if isinstance(before, dict) and before != now else ""
    kept = any(read_record(run_dir, name) for name in ORDER[: ORDER.index(first)])
    reuse = ["--reuse", str(run_dir)] if kept else []
    raise RunDirectoryError(
        f"{run_dir} was run with other settings of {first}{what}: {listed(redone)} would be done again; "
        "nothing has been changed\n"
        f"  to replace them: {shlex.join([*words[:3], '--overwrite', *words[3:]])}\n"
        f"  to keep both:    {shlex.join([*with_output(words[:5], free_folder(run_dir)), *reuse, *words[5:]])}"
    )


def describe(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between the settings of a stage, in a few words."""
    names = [*before, *(name for name in now if name not in before)]
    different = [name for name in names if before.get(name) != now.get(name)]
    shown = [f"{name} {_short(before, name)} -> {_short(now, name)}" for name in different[:_SHOWN]]
    more = [f"{len(different) - _SHOWN} more"] if len(different) > _SHOWN else []
    return ", ".join([*shown, *more])


def with_output(words: Sequence[str], output: Path) -> list[str]:
    """The command with another folder."""
    place = list(words).index("--output") + 1
    return [*words[:place], str(output), *words[place + 1 :]]


def refuse_finished_stage(root: Path, run_dir: Path, settings: Callable[[], Mapping[str, Any]]) -> None:
    """Refuses to train into a finished run of other settings.

    Args:
        root: Where `mmnas fit` is about to write: its `trainer.default_root_dir`.
        run_dir: Its `run_dir`.
        settings: Gives its settings.

    Raises:
        RunDirectoryError: The stage's folder holds the result of other settings, or is a finished run itself.
    """
    found = next((folder for folder in (root, root.parent, run_dir) if (folder / MANIFEST).is_file()), None)
    if found is None or not _is_run(found):
        return
    inside = root.parts[len(found.parts) :] if root.is_relative_to(found) else ()
    if root == found and any((found / name / "done.json").is_file() for name in ORDER):
        raise RunDirectoryError(
            f"{root} is the folder of a whole run; give the stage a folder of its own: --run_dir {free_folder(found)}"
        )
    record = read_record(found, inside[0]) if inside and inside[0] in STAGES else None
    if record is None or record["digest"] == digest_of(settings()):
        return
    if found != run_dir:
        raise RunDirectoryError(
            f"--run_dir is {run_dir}, but trainer.default_root_dir is {root}, a finished stage of another run: the "
            "configuration holds that run's paths; give the stage's own files, or --trainer.default_root_dir "
            f"{run_dir / inside[0]} and whatever else is below {found}"
        )
    raise RunDirectoryError(
        f"{root} is a finished stage, with other settings; give another folder: --run_dir {free_folder(found)} "
        f"(and what it reads of {found} by its path), or change the run: mmnas run CONFIGS --output {found} --overwrite"
    )


def refuse_config(root: Path) -> None:
    """Refuses to train into a folder whose `config.yaml` is the user's own: a training writes one of that name.

    Args:
        root: Where `mmnas fit` is about to write: its `trainer.default_root_dir`.

    Raises:
        RunDirectoryError: It holds a `config.yaml` that no training has written.
    """
    path = root / "config.yaml"
    if path.is_file() and not path.read_text(encoding="utf-8", errors="replace").startswith(_WRITTEN):
        raise RunDirectoryError(
            f"{path} is no configuration that a training has written, and one would be written over it; give another "
            "folder: --run_dir runs/mine"
        )


def refuse_read_only(run_dir: Path) -> None:
    """Refuses a run directory in which a folder cannot be written, before hours of training are lost to it.

    Raises:
        RunDirectoryError: There is such a folder; names it.
    """
    for folder, _, _ in os.walk(run_dir):
        if not os.access(folder, os.W_OK | os.X_OK):
            raise RunDirectoryError(
                f"cannot write {folder}: Permission denied; make it writable, or choose another --output"
            )


def refuse_run(folder: Path) -> None:
    """Refuses the folder of a run, or of something else, as that of a table.

    Raises:
        RunDirectoryError: It is one.
    """
    if _is_run(folder):
        raise RunDirectoryError(
            f"{folder} is the folder of a run, not of a table; choose another --output, such as {free_folder(folder)}"
        )
    # A table that is not yet one has the folders of its seeds.
    others = folder.is_dir() and any(not re.fullmatch(r"seed\d+|\..*", path.name) for path in folder.iterdir())
    if others and not (folder / "card.json").is_file():
        raise RunDirectoryError(
            f"{folder} holds files but no table of mmnas; choose a new folder, such as --output {free_folder(folder)}"
        )


def _is_run(folder: Path) -> bool:
    try:
        content = read_json(folder / MANIFEST)
    except RunDirectoryError:
        read_manifest(folder)  # says what to do
        raise
    return content is not None and "stages" in content


def _short(settings: Mapping[str, Any], name: str) -> str:
    text = json.dumps(settings[name], default=str) if name in settings else "default"
    return text if len(text) <= 40 else text[:37] + "..."
