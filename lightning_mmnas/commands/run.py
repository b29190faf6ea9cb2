"""`mmnas run`: the four stages of a configuration folder in a row, then the comparison.

Each stage is an ordinary `mmnas fit --config <stage>.yaml`; what one leaves for the next are files
in the run directory. A finished stage is not run again, an interrupted one goes on from its last
checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from lightning_mmnas.errors import ConfigError, GenotypeError, MMNASError, RunDirectoryError
from lightning_mmnas.files import write_json

STAGES = ("encoders", "search", "pretrain", "finetune")
_PACKAGES = ("torch", "lightning", "lightly", "torchmetrics", "lightning-mmnas")


@dataclass(frozen=True)
class Stage:
    """One stage of a run: its configuration file and what the command line changes in it."""

    name: str
    config: Path
    overrides: tuple[str, ...] = ()

    def digest(self, seed: int) -> str:
        """Hash of all that decides the stage's result; comments and layout do not."""
        try:
            # comparison.yaml may be missing: its defaults then hold
            content = yaml.safe_load(self.config.read_text(encoding="utf-8")) if self.config.is_file() else None
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(f"{self.config} is not valid YAML: {reason}") from error
        text = json.dumps([content, self.overrides, seed], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def arguments(self, run_dir: Path, seed: int) -> list[str]:
        """The stage as arguments of `mmnas`."""
        arguments = ["fit", "--config", str(self.config), "--run_dir", str(run_dir)]
        return [*arguments, "--seed_everything", str(seed), *self.overrides]


def run(
    configs: str | Path,
    output: str | Path,
    *,
    seed: int = 0,
    overrides: Sequence[str] = (),
    console: Console | None = None,
) -> dict[str, Any]:
    """Runs the unfinished stages of a configuration folder and writes `results.json`.

    Args:
        configs: folder with search.yaml, pretrain.yaml, finetune.yaml, and if wanted encoders.yaml
            and comparison.yaml; or the name of a shipped one, such as "watch".
        output: the run directory; new, empty, or that of the same run.
        seed: seed of every stage.
        overrides: `--search.key value` for one stage, `--key value` for all.
        console: where progress is shown.

    Returns:
        The content of `results.json`.

    Raises:
        ConfigError: a configuration is missing or wrong.
        RunDirectoryError: the run directory cannot be written, or belongs to another run.
    """
    # With several devices Lightning starts this very command once more per rank: those only train.
    main = _is_main()
    console = (console or Console()) if main else Console(file=io.StringIO())
    folder, run_dir = find_configs(configs), Path(output)
    stages = _stages(folder, overrides)
    command = ["mmnas", "run", str(configs), "--output", str(output), "--seed", str(seed)]
    # Mistakes in any stage are told now: nothing is trained or written before.
    if (comparison := stages[-1].config).is_file():
        from lightning_mmnas.compare import read_settings

        read_settings(comparison)
    _check(stages, run_dir, seed)
    if main:
        claim(run_dir, stages, seed)

    records: dict[str, dict[str, Any]] = {}
    for stage in stages:
        try:
            if not main and stage.name == "comparison":
                return {}
            if stage.name == "comparison":
                records[stage.name] = _compare(stages, run_dir, seed, console)
            else:
                records[stage.name] = _train(stage, run_dir, seed, console)
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(
                f"interrupted in stage {stage.name}; finished stages are kept, "
                f"the same command continues: {shlex.join([*command, *overrides])}"
            ) from error
        except MMNASError as error:
            raise type(error)(f"stage {stage.name}: {error}") from error

    results = _results(run_dir, records)
    # Without --output, which is the folder that the file lies in: equal runs give equal files but for the seconds.
    made_by = shlex.join(["mmnas", "run", str(configs), "--seed", str(seed), *overrides])
    results |= {"seed": seed, "versions": versions(), "command": made_by}
    write_json(run_dir / "results.json", results)
    _report(results, run_dir, console)
    return results


def train_encoders(
    folder: Path, run_dir: Path, *, seed: int, overrides: Sequence[str] = (), console: Console | None = None
) -> None:
    """Runs the encoders' stage of a configuration folder alone, where there is one and it has not been run before."""
    stages = _stages(folder, overrides)
    if stages[0].name == "encoders":
        _train(stages[0], run_dir, seed, console or Console())


def stage_digests(folder: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Hash of every stage's settings, whatever the seed."""
    return {stage.name: stage.digest(0) for stage in _stages(folder, overrides)[:-1]}


def stage_arguments(folder: Path, name: str, run_dir: Path, seed: int, overrides: Sequence[str] = ()) -> list[str]:
    """Arguments of one stage for `MMNASCLI`, without the command ``fit``."""
    stage = next(stage for stage in _stages(folder, overrides) if stage.name == name)
    return stage.arguments(run_dir, seed)[1:]


def find_configs(name: str | Path) -> Path:
    """The folder itself, or the shipped one of that name.

    Raises:
        ConfigError: there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    here = Path(__file__).parent
    # Inside the wheel; in a working copy the folder lies beside the package.
    shipped = next((p for p in (here / "configs", here.parent / "configs") if p.is_dir()), None)
    names = sorted(p.parent.name for p in shipped.glob("*/search.yaml")) if shipped else []
    if shipped is not None and str(name) in names:
        return shipped / str(name)
    raise ConfigError(f"there is no folder {name}, and the shipped configurations are {names}")


def claim(run_dir: Path, stages: Sequence[Stage], seed: int) -> None:
    """Makes the run directory ours, or checks that it already is.

    Raises:
        RunDirectoryError: it cannot be written, or holds anything but this very run.
    """
    manifest = {"seed": seed, "stages": {stage.name: stage.digest(seed) for stage in stages}}
    path = run_dir / "manifest.json"
    if run_dir.exists() and not run_dir.is_dir():
        raise RunDirectoryError(f"{run_dir} is a file; choose another --output")
    known = read_json(path)
    if known is None:
        if run_dir.is_dir() and any(p for p in run_dir.iterdir() if not p.name.startswith((".manifest", "manifest"))):
            raise RunDirectoryError(f"{run_dir} holds files but no run of mmnas; choose a new folder as --output")
        write_json(path, manifest)
        return
    if known.get("seed") != seed:
        different = f"its seed is {known.get('seed')}, not {seed}"
    else:
        there, here = known.get("stages", {}), manifest["stages"]
        assert isinstance(here, dict)
        changed = [name for name in here | there if here.get(name) != there.get(name)]
        if not changed:
            return
        different = f"other settings of {', '.join(changed)}"
    raise RunDirectoryError(
        f"{run_dir} belongs to another run ({different}); choose another --output, or delete that folder"
    )


def versions(*others: str) -> dict[str, str]:
    """Versions of Python and of the packages that decide the numbers, and of others if wanted."""
    found = {"python": platform.python_version()}
    for name in (*_PACKAGES, *others):
        try:
            found[name.replace("-", "_")] = version(name)
        except PackageNotFoundError:
            found[name.replace("-", "_")] = "unknown"
    return found


def _stages(folder: Path, overrides: Sequence[str]) -> list[Stage]:
    shared: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in STAGES}
    target = shared
    for word in overrides:
        if word.startswith("--"):
            prefix, dot, rest = word[2:].partition(".")
            target = own[prefix] if dot and prefix in own else shared
            word = f"--{rest}" if target is not shared else word
        elif target is shared and not shared:
            raise ConfigError(f"unexpected {word!r}; overrides look like --search.trainer.max_epochs 3")
        target.append(word)
    stages = []
    for name in STAGES:
        path = folder / f"{name}.yaml"
        if path.is_file():
            stages.append(Stage(name, path, (*shared, *own[name])))
        elif name != "encoders":  # needless where pretrained encoders are given
            raise ConfigError(f"there is no {path}; a run needs one file per stage: {list(STAGES)}")
    return [*stages, Stage("comparison", folder / "comparison.yaml")]


def _check(stages: Sequence[Stage], run_dir: Path, seed: int) -> None:
    """Reads the configurations of all stages.

    Raises:
        ConfigError: a key, a value or an interpolation is wrong; names the stage.
    """
    from lightning_mmnas.cli import ConfigCheck

    for stage in stages[:-1]:
        stage.digest(seed)
        try:
            ConfigCheck(stage.arguments(run_dir, seed))
        except MMNASError as error:
            raise type(error)(f"stage {stage.name}: {error}") from error


def _train(stage: Stage, run_dir: Path, seed: int, console: Console) -> dict[str, Any]:
    digest, done = stage.digest(seed), run_dir / stage.name / "done.json"
    record = read_json(done)
    genotype = run_dir / "genotype.json"
    complete = record is not None and (genotype.is_file() or not record.get("genotype"))
    if record is not None and record.get("digest") == digest and complete:
        console.print(f"{stage.name:<10} done before, in {record['seconds']:.1f} s")
        return record
    arguments = stage.arguments(run_dir, seed)
    last = run_dir / stage.name / "checkpoints" / "last.ckpt"
    resume = ["--ckpt_path", str(last)] if last.is_file() else []
    console.print(f"$ {shlex.join(['mmnas', *arguments, *resume])}", style="dim", soft_wrap=True)

    from lightning_mmnas.callbacks.progress import StageProgress, metrics_line, quiet
    from lightning_mmnas.cli import MMNASCLI

    start = time.monotonic()
    with quiet():
        cli = MMNASCLI(
            [*arguments, *resume],
            trainer_defaults={
                "callbacks": [StageProgress(stage.name, console)],
                "enable_progress_bar": False,
                "enable_model_summary": False,
            },
        )
    record = {
        "seconds": round(time.monotonic() - start, 3),
        "digest": digest,
        "resumed": bool(resume),
        "command": shlex.join(["mmnas", *arguments]),
        "versions": versions(),
        "genotype": stage.name == "search" and genotype.is_file(),
        "parameters": {
            name: sum(p.numel() for p in getattr(cli.model, name).parameters())
            for name in ("supernet", "network")
            if hasattr(cli.model, name)
        },
    }
    if _is_main():
        write_json(done, record)
    line = f"{stage.name:<10} done in {record['seconds']:.1f} s  {metrics_line(cli.trainer)}"
    console.print(line, highlight=False, soft_wrap=True)
    return record


def _compare(stages: Sequence[Stage], run_dir: Path, seed: int, console: Console) -> dict[str, Any]:
    stage = stages[-1]
    digest, done = stage.digest(seed), run_dir / stage.name / "done.json"
    record = read_json(done)
    if record is not None and record.get("digest") == digest:
        console.print(f"{stage.name:<10} done before, in {record['seconds']:.1f} s")
        return record
    from lightning_mmnas.callbacks.progress import quiet
    from lightning_mmnas.compare import compare, read_settings
    from lightning_mmnas.modules.frozen import read_checkpoint

    settings = read_settings(stage.config)
    console.print(f"{stage.name:<10} …")
    start = time.monotonic()
    arguments = {s.name: s.arguments(run_dir, seed)[1:] for s in stages[:-1]}
    with quiet():
        checkpoint = read_checkpoint(run_dir / "pretrain" / "checkpoints" / "last.ckpt", "comparison")
        steps = int(checkpoint["global_step"])
        results = compare(arguments["pretrain"], arguments["finetune"], steps, settings, seed, console)
    seconds = round(time.monotonic() - start, 3)
    console.print(f"{stage.name:<10} done in {seconds:.1f} s")
    record = {"seconds": seconds, "digest": digest, "versions": versions(), "results": results}
    write_json(done, record)
    return record


def _results(run_dir: Path, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    parameters: dict[str, int] = {}
    for record in records.values():
        parameters |= record.get("parameters", {})
    genotype = read_json(run_dir / "genotype.json")
    results: dict[str, Any] = {
        "stages": {name: {"seconds": records[name]["seconds"]} for name in STAGES if name in records},
        "comparison_seconds": records["comparison"]["seconds"] if "comparison" in records else 0.0,
        "total_seconds": round(sum(record["seconds"] for record in records.values()), 3),
        "genotype": genotype,
        "space_size": None,
        "parameters": parameters,
        "comparison": [],
    }
    if genotype is not None:
        from lightning_mmnas.genotype import Genotype

        with suppress(GenotypeError):  # too large a space to be counted
            results["space_size"] = Genotype.load(run_dir / "genotype.json").space.size()
    if "comparison" in records:
        results |= records["comparison"]["results"]
    return results


def _report(results: dict[str, Any], run_dir: Path, console: Console) -> None:
    if results["comparison"]:
        from lightning_mmnas.report.table import render_comparison

        console.print(render_comparison(results["comparison"]))
    seconds = results["total_seconds"]
    console.print(f"{seconds:.0f} s; results in {run_dir / 'results.json'}", highlight=False)


def _is_main() -> bool:
    """Whether this is the process the user started, or torchrun's first; not one that Lightning started for a rank."""
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0) == 0


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file of a run directory; None where there is no file."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"cannot read {path}: {error}; delete it to run again") from error
    return content if isinstance(content, dict) else None
