"""Stages that are done again: what they had left stands aside until the new result is whole.

While a run is redone, `previous/` in it holds the earlier result, and nothing of it is lost whatever happens. If the
new one fails or is interrupted, both change places: the earlier result is back, and `redo/` holds what the new one had
got to, which the same command takes up again. Folders are renamed one by one and in an order that can be finished, or
taken back, after a process was killed in between.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from lightning_mmnas.commands.changes import MANIFEST, free_folder, make_manifest, read_manifest, read_record, same
from lightning_mmnas.commands.stages import ORDER, Stage
from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import read_json, write_json, write_text
from lightning_mmnas.parsing import parse_yaml

PREVIOUS = "previous"
REDO = "redo"
FEATURES = "features"

OUTPUTS = {
    "search": ("genotype.*",),
    "finetune": ("model",),
    "comparison": ("results.json", "report*", "analysis.json", "pictures"),
}
"""What a stage leaves outside its own folder."""


def set_aside(run_dir: Path, redone: Sequence[str], stages: Sequence[Stage], seed: int) -> None:
    """Puts what some stages have left into `previous/`, and makes the run directory that of the new settings.

    Args:
        run_dir: Run directory.
        redone: The stages that are done again.
        stages: All stages, as they are now.
        seed: Seed of the run.
    """
    previous = run_dir / PREVIOUS
    write_json(previous / MANIFEST, {"manifest": read_manifest(run_dir), "redone": list(redone)})
    try:
        if (run_dir / FEATURES).is_dir():
            _copy(run_dir / FEATURES, previous / FEATURES, link=True)
        for path in _left(run_dir, redone):
            path.rename(previous / path.name)
    except BaseException:
        _back(run_dir)
        raise
    known = read_manifest(run_dir) or {}
    reused = {"reused": known["reused"]} if "reused" in known else {}
    write_json(run_dir / MANIFEST, {**make_manifest(stages, seed), **reused})


def recover(run_dir: Path, stages: Sequence[Stage], seed: int) -> None:
    """Finishes what a killed process had begun: afterwards the run directory is in order.

    The earlier result comes back unless the redone stages are to be gone on with.

    Args:
        run_dir: Run directory.
        stages: The stages as they are now.
        seed: Seed of the run.
    """
    previous = run_dir / PREVIOUS
    if not previous.is_dir():
        return
    record = read_json(previous / MANIFEST)
    if record is None:  # the new result was whole
        shutil.rmtree(previous)
    elif record["manifest"] == (manifest := read_manifest(run_dir)):
        _back(run_dir)
    elif manifest is None or not all(same(manifest["stages"].get(stage.name), stage, seed) for stage in stages):
        restore(run_dir)


def take_up(run_dir: Path, stages: Sequence[Stage]) -> None:
    """Takes what an earlier attempt had got to out of `redo/`, as far as its settings are those of now."""
    redo = run_dir / REDO
    record = read_json(redo / MANIFEST)
    digests = make_manifest(stages, 0)["stages"]
    taken = []
    for name in ORDER if record is not None else ():
        if record is None or record["stages"].get(name) != digests.get(name):
            break
        for path in _left(redo, [name]):
            if not (run_dir / path.name).exists():
                path.rename(run_dir / path.name)
                taken.append(name)
    if taken and (redo / FEATURES).is_dir():
        _remove(run_dir / FEATURES)
        (redo / FEATURES).rename(run_dir / FEATURES)
    _remove(redo)


def restore(run_dir: Path) -> None:
    """Brings the earlier result back; what the new one had got to is kept in `redo/`."""
    previous, redo = run_dir / PREVIOUS, run_dir / REDO
    record = read_json(previous / MANIFEST)
    assert record is not None
    write_json(redo / MANIFEST, read_manifest(run_dir))
    paths = _left(run_dir, record["redone"])
    if (previous / FEATURES).is_dir() and (run_dir / FEATURES).is_dir():
        paths.append(run_dir / FEATURES)
    for path in paths:
        _remove(redo / path.name)
        path.rename(redo / path.name)
    write_json(run_dir / MANIFEST, record["manifest"])
    _back(run_dir)


@contextmanager
def redoing(run_dir: Path, say: Any = print) -> Iterator[None]:
    """Ends a redo: with the new result, or, where the block fails, with the earlier one.

    Args:
        run_dir: Run directory; where nothing stands aside, nothing is done.
        say: Called with what the user should know.
    """
    previous = run_dir / PREVIOUS
    try:
        yield
    except BaseException:
        if (previous / MANIFEST).is_file():
            restore(run_dir)
            say(f"the earlier result is back in {run_dir}; the same command goes on with the new one")
        raise
    if previous.is_dir():
        (previous / MANIFEST).unlink(missing_ok=True)  # first: what is left without it is not wanted any more
        shutil.rmtree(previous)


def reuse(old: Path, run_dir: Path, stages: Sequence[Stage], seed: int) -> list[str]:
    """Copies the finished stages of another run, up to the first with other settings.

    Stored features are linked, where the file system can: they are never changed, only replaced.

    Args:
        old: The other run's directory.
        run_dir: The run directory, with its manifest.
        stages: The stages of the run.
        seed: Its seed.

    Returns:
        The stages that could be taken over, those that had been already included.
    """
    names = reusable(old, stages, seed)
    if names and (old / FEATURES).is_dir() and not (run_dir / FEATURES).exists():
        _copy(old / FEATURES, run_dir / FEATURES, link=True)
    for name in names:
        if (run_dir / name).exists():
            continue
        for path in reversed(_left(old, [name])):  # the folder with done.json last
            _copy(path, run_dir / path.name)
        for config in (run_dir / name).glob("config*.yaml"):
            _move_config(config, run_dir)
    return names


def reusable(old: Path, stages: Sequence[Stage], seed: int) -> list[str]:
    """The finished stages of another run that a run with these settings can take over.

    Raises:
        RunDirectoryError: The folder is no run, or has another seed, or no such stage.
    """
    manifest = read_manifest(old)
    if manifest is None:
        raise RunDirectoryError(f"--reuse {old}: that is no run of mmnas; give the folder of an earlier one")
    if manifest["seed"] != seed:
        raise RunDirectoryError(
            f"--reuse {old}: its seed is {manifest['seed']}, not {seed}; give --seed, or no --reuse"
        )
    names: list[str] = []
    for stage in stages:
        record = read_record(old, stage.name)
        if record is None or not same(record["digest"], stage, seed):
            break
        if record.get("genotype") and not (old / "genotype.json").is_file():
            break
        names.append(stage.name)
    if not names:
        raise RunDirectoryError(f"--reuse {old}: no finished stage of it has these settings; leave --reuse out")
    return names


def renews_features(run_dir: Path) -> bool:
    """Whether stored features may be of an earlier encoder: some stage is done again, or was taken over."""
    if (run_dir / PREVIOUS).is_dir():
        return True
    with suppress(RunDirectoryError):
        return "reused" in (read_json(run_dir / MANIFEST) or {})
    return False


def check_folder(run_dir: Path) -> None:
    """Checks that a folder without a manifest can become a run directory.

    Raises:
        RunDirectoryError: It is a file, or holds something.
    """
    if run_dir.exists() and not run_dir.is_dir():
        raise RunDirectoryError(f"{run_dir} is a file; choose another --output")
    if run_dir.is_dir() and any(path for path in run_dir.iterdir() if not path.name.startswith((".manifest", ".lock"))):
        raise RunDirectoryError(
            f"{run_dir} holds files but no run of mmnas; choose a new folder, such as --output {free_folder(run_dir)}"
        )


def _left(folder: Path, names: Iterable[str]) -> list[Path]:
    """What some stages have left in a folder."""
    found: list[Path] = []
    for name in names:
        found += [path for pattern in (name, *OUTPUTS.get(name, ())) for path in sorted(folder.glob(pattern))]
    return found


def _back(run_dir: Path) -> None:
    """Puts everything in `previous/` back to where it was."""
    previous = run_dir / PREVIOUS
    for path in sorted(previous.iterdir()):
        if path.name != MANIFEST and path.name[0] != "." and not (run_dir / path.name).exists():
            path.rename(run_dir / path.name)
    shutil.rmtree(previous)


def _copy(source: Path, target: Path, link: bool = False) -> None:
    """Copies a file or a folder so that it appears whole."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, temporary, copy_function=_link if link else shutil.copy2)
        else:
            shutil.copy2(source, temporary)
        _remove(target)
        temporary.rename(target)
    except (OSError, shutil.Error) as error:
        raise RunDirectoryError(f"cannot copy {source} to {target}: {error}") from error
    finally:
        _remove(temporary)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        with suppress(FileNotFoundError):
            path.unlink()


def _move_config(path: Path, run_dir: Path) -> None:
    """Makes a stage's configuration that of another run directory."""
    text = path.read_text(encoding="utf-8")
    content = parse_yaml(text, str(path))
    if isinstance(content, dict) and "run_dir" in content:
        head = [line for line in text.splitlines()[:1] if line.startswith("#")]
        body = yaml.safe_dump({**content, "run_dir": str(run_dir)}, sort_keys=False)
        write_text(path, "\n".join([*head, body]))
