"""Whose a run directory is, before anything is trained: new, the same run again, or one that is changed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from lightning_mmnas.commands.aside import REDO, check_folder, recover, reusable, reuse, set_aside, take_up
from lightning_mmnas.commands.changes import (
    MANIFEST,
    RUN_DIR,
    begun_from,
    first_change,
    flat,
    is_done,
    listed,
    make_manifest,
    read_manifest,
    same,
)
from lightning_mmnas.commands.refusals import refuse_changes, refuse_read_only, refuse_seed
from lightning_mmnas.commands.stages import ORDER, Stage
from lightning_mmnas.errors import MMNASError, RunDirectoryError
from lightning_mmnas.files import read_json, write_json

_BEGUN = ".begun.json"
_LAUNCHES = (("TORCHELASTIC_RUN_ID", "MASTER_PORT"), ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"))
"""What tells one start of torchrun, or of srun, from another, the same in all processes of it."""
_SECONDS = 1800.0


def resolve(stage: Stage, run_dir: Path, seed: int) -> Stage:
    """Reads a stage's configuration.

    Args:
        stage: The stage.
        run_dir: Run directory, for messages.
        seed: Seed of the stage.

    Returns:
        The stage with its settings.

    Raises:
        ConfigError: A key, a value or an interpolation is wrong, or the stage is still to be trained by processes that
            there cannot be; names the stage.
    """
    if stage.name == "comparison":
        from lightning_mmnas.commands.compare import read_settings

        content = read_settings(stage.config, stage.overrides).model_dump(mode="json", exclude_defaults=True)
        return replace(stage, settings=flat(content))
    from lightning_mmnas.commands.lightning_cli import settings_of
    from lightning_mmnas.commands.processes import refuse_processes

    stage.digest(seed)  # names a file that is not YAML
    try:
        # Loggers that the command line asks for decide nothing.
        read = replace(stage, settings=settings_of(replace(stage, loggers=()).arguments(run_dir, seed)))
        if not is_done(read, run_dir, seed):
            keys = [(key.split("."), value) for key, value in read.settings.items()]
            refuse_processes({key[1]: value for key, value in keys if key[0] == "trainer"})
        return read
    except MMNASError as error:
        raise type(error)(f"stage {stage.name}: {error}".replace(RUN_DIR, str(run_dir))) from error


@dataclass(frozen=True)
class Claim:
    """What a command of `mmnas run` asks for.

    Attributes:
        configs: Folder of configurations, or a shipped one's name.
        run_dir: Run directory.
        seed: Seed of every stage.
        overrides: Options that override configurations.
        overwrite: Whether stages with other settings are done again.
        reuse: Another run, whose stages are taken over.
        loggers: Loggers of every stage.
    """

    configs: str
    run_dir: Path
    seed: int
    overrides: tuple[str, ...] = ()
    overwrite: bool = False
    reuse: Path | None = None
    loggers: tuple[str, ...] = ()

    def words(self) -> list[str]:
        """The command."""
        ways = ["--overwrite"] if self.overwrite else []
        ways += ["--reuse", str(self.reuse)] if self.reuse else []
        return [*self.plain()[:3], *ways, *self.plain()[3:]]

    def plain(self) -> list[str]:
        """The command without ways out of a refusal."""
        words = ["mmnas", "run", self.configs, "--output", str(self.run_dir), "--seed", str(self.seed)]
        words += [word for name in self.loggers for word in ("--logger", name)]
        return [*words, *self.overrides]


def claim(wanted: Claim, stages: Sequence[Stage], say: Callable[[str], object]) -> None:
    """Makes the run directory that of these settings, or refuses before anything of it is changed.

    Args:
        wanted: What is asked for.
        stages: The stages with their settings.
        say: Called with what the user should know.

    Raises:
        RunDirectoryError: It cannot be written, is damaged, has another seed, or holds the results of other settings.
    """
    run_dir, seed = wanted.run_dir, wanted.seed
    refuse_read_only(run_dir)
    (run_dir / _BEGUN).unlink(missing_ok=True)
    manifest = read_manifest(run_dir)
    if manifest is None:
        check_folder(run_dir)
        if wanted.reuse is not None:
            reusable(wanted.reuse, stages, seed)
        reused = {"reused": str(wanted.reuse)} if wanted.reuse else {}
        write_json(run_dir / MANIFEST, {**make_manifest(stages, seed), **reused})
    else:
        refuse_seed(run_dir, manifest["seed"], seed, wanted.plain())
        recover(run_dir, stages, seed)
        _change(wanted, stages, say)
    if wanted.reuse is not None:
        names = reuse(wanted.reuse, run_dir, stages, seed)
        say(f"of {wanted.reuse}: {', '.join(names)}")
    if launch := _launch():
        write_json(run_dir / _BEGUN, launch)


def await_claim(run_dir: Path, seconds: float = _SECONDS) -> None:
    """Waits, in another process than the first one of torchrun or srun, until that one has claimed the run directory.

    Until then stages may be moved out of it, or into it: one process would train what another takes for done. Those
    that Lightning starts come later than that.

    Args:
        run_dir: Run directory.
        seconds: How long.

    Raises:
        RunDirectoryError: It has not done so.
    """
    launch, end = _launch(), time.monotonic() + seconds
    while launch and _begun(run_dir) != launch:
        if time.monotonic() >= end:
            raise RunDirectoryError(
                f"the first process has not begun to write into {run_dir} for {seconds:g} s: it has ended, or this "
                "machine does not see the same folder; give an --output that all of them see"
            )
        time.sleep(0.1)


def _launch() -> dict[str, str]:
    """What this start of torchrun or srun is known by; empty where it is neither."""
    known = [names for names in _LAUNCHES if names[0] in os.environ]
    return {name: os.environ.get(name, "") for names in known for name in names}


def _begun(run_dir: Path) -> dict[str, str] | None:
    with suppress(RunDirectoryError):
        return read_json(run_dir / _BEGUN)
    return None


def _change(wanted: Claim, stages: Sequence[Stage], say: Callable[[str], object]) -> None:
    """Takes new settings where no result is of the old ones; otherwise puts those aside, or refuses."""
    run_dir, seed = wanted.run_dir, wanted.seed
    manifest = read_manifest(run_dir)
    assert manifest is not None
    first = first_change(run_dir, manifest, stages, seed)
    redone = begun_from(run_dir, first)
    if first is not None and redone:
        if not wanted.overwrite:
            refuse_changes(run_dir, manifest, first, redone, stages, wanted.plain())
        set_aside(run_dir, ORDER[ORDER.index(first) :], stages, seed)
        take_up(run_dir, stages)
        say(f"{listed(redone)} again; the earlier result stands in {run_dir / 'previous'} until the new is whole")
    elif not all(same(manifest["stages"].get(stage.name), stage, seed) for stage in stages):
        write_json(run_dir / MANIFEST, {**manifest, **make_manifest(stages, seed)})
    elif (run_dir / "previous").is_dir() and (run_dir / REDO).is_dir():
        take_up(run_dir, stages)
