"""The stages of a configuration folder, and the run directory that they write to."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning_mmnas.commands.loggers import logger_options
from lightning_mmnas.commands.parser import path_hint
from lightning_mmnas.commands.shared import config_options, stage_files
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.parsing import read_yaml

STAGES = ("encoders", "search", "pretrain", "finetune")
ORDER = (*STAGES, "comparison")
TABLES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet")
"""Suffixes of tables."""


@dataclass(frozen=True)
class Stage:
    """One stage of a run: its configuration file, the common one beside it, and what the command line changes.

    `settings` are what it all resolves to, once it has been read (see `changes.resolve`).
    """

    name: str
    config: Path
    overrides: tuple[str, ...] = ()
    loggers: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """The files that there are: the folder's common one and the stage's own, of the comparison its own alone."""
        files = stage_files(self.config)[-1 if self.name == "comparison" else 0 :]
        # comparison.yaml may be missing: its defaults then hold
        return [path for path in files if path.is_file()]

    def digest(self, seed: int) -> str:
        """Hash of the stage's files and options; comments and layout do not count."""
        contents = [read_yaml(path) for path in self.files] or [None]
        contents = [_texted(content) for content in contents]
        text = json.dumps([contents[-1], self.overrides, seed, *contents[:-1]], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()

    def arguments(self, run_dir: Path, seed: int) -> list[str]:
        """The stage as arguments of `mmnas`."""
        arguments = ["fit", *config_options(self.config), "--run_dir", str(run_dir)]
        logged = logger_options(self.loggers, run_dir.name, self.name)  # they decide nothing: not in the digest
        return [*arguments, "--seed_everything", str(seed), *logged, *self.overrides]


def _texted(value: Any) -> Any:
    """The value with all keys as text, as they are written in JSON; keys of several types cannot be sorted."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else json.dumps(key, default=str): _texted(v) for key, v in value.items()}
    return [_texted(item) for item in value] if isinstance(value, list) else value


def refuse_table(name: str | Path) -> None:
    """Refuses a table where configurations are needed.

    Raises:
        ConfigError: It is one; says how to come from it to configurations.
    """
    path = Path(name)
    if path.suffix.lower() in TABLES and path.is_file():
        raise ConfigError(
            f"{name} is a table; mmnas init {shlex.quote(str(name))} --output my_configs writes configurations for it, "
            "to be given here"
        )


def find_configs(name: str | Path) -> Path:
    """The folder itself, or the shipped one of that name.

    Raises:
        ConfigError: there is neither.
    """
    if Path(name).is_dir():
        return Path(name)
    here = Path(__file__).parents[1]
    # Inside the wheel; in a working copy the folder lies beside the package.
    shipped = next((p for p in (here / "configs", here.parent / "configs") if p.is_dir()), None)
    names = sorted(p.parent.name for p in shipped.glob("*/search.yaml")) if shipped else []
    if shipped is not None and str(name) in names:
        return shipped / str(name)
    refuse_table(name)
    if Path(name).is_file():
        raise ConfigError(f"{name} is a file; a run takes the folder of its stages' files: {Path(name).parent}")
    hint = path_hint(name, names)
    raise ConfigError(f"there is no folder {name}, and the shipped configurations are {names}{hint}")


def read_stages(folder: Path, overrides: Sequence[str], loggers: Sequence[str] = ()) -> list[Stage]:
    """The stages of a configuration folder in their order, the comparison last, each with its overrides.

    A folder without fine-tuning is that of data without labels: then there is no comparison either.

    Args:
        folder: Configuration folder.
        overrides: `--search.key value` for one stage, `--key value` for all.
        loggers: Names of loggers, in place of those of the configurations; see `logger_options`.

    Raises:
        ConfigError: A stage has no file, or the overrides do not look like any.
    """
    shared: list[str] = []
    own: dict[str, list[str]] = {name: [] for name in ORDER}
    target = shared
    for word in overrides:
        if word.startswith("--"):
            prefix, dot, rest = word[2:].partition(".")
            target = own[prefix] if dot and prefix in own else shared
            word = f"--{rest}" if target is not shared else word
        elif target is shared and not shared:
            raise ConfigError(f"unexpected {word!r}; overrides look like --search.trainer.max_epochs 12")
        target.append(word)
    stages = []
    for name in STAGES:
        path = folder / f"{name}.yaml"
        if path.is_file():
            stages.append(Stage(name, path, (*shared, *own[name]), tuple(loggers)))
        elif name not in ("encoders", "finetune"):  # needless where pretrained encoders, or no labels, are given
            raise ConfigError(f"there is no {path}; a run needs one file per stage: {list(STAGES)}")
    if not (folder / "finetune.yaml").is_file():
        if (folder / "comparison.yaml").is_file() or own["finetune"] or own["comparison"]:
            raise ConfigError(
                f"there is no {folder / 'finetune.yaml'}, so nothing can be fine-tuned or compared; write it, or (for "
                "data without labels) leave comparison.yaml and the options of both away"
            )
        return stages
    return [*stages, Stage("comparison", folder / "comparison.yaml", tuple(own["comparison"]))]


def stage_digests(folder: Path, overrides: Sequence[str] = ()) -> dict[str, str]:
    """Hash of every stage's settings, whatever the seed."""
    return {stage.name: stage.digest(0) for stage in read_stages(folder, overrides) if stage.name in STAGES}


def stage_arguments(folder: Path, name: str, run_dir: Path, seed: int, overrides: Sequence[str] = ()) -> list[str]:
    """Arguments of one stage for `MMNASCLI`, without the command ``fit``."""
    found = {stage.name: stage for stage in read_stages(folder, overrides)}
    if name not in found:
        raise ConfigError(f"there is no {folder / f'{name}.yaml'}, and it is needed here")
    stage = found[name]
    return stage.arguments(run_dir, seed)[1:]
