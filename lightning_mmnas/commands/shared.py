"""`common.yaml`: what the stages of a configuration folder share, and what is said where it is missing.

The file comes before each stage's own; a stage takes from it by `${shared.NAME}`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.parsing import parse_yaml

COMMON = "common.yaml"
_TAG = re.compile(r"(?:^|[\s\[{,])!!\w")
_ITEM = re.compile(r"(--[\w.]+)\.\d+\..*")
_OVERRIDE = re.compile(r"--shared\.([^.=\s]+)\.")
_MODEL_OVERRIDE = re.compile(r"--model\.(?:init_args\.)?(\w+)\.")


def stage_files(stage: Path) -> list[Path]:
    """The files of a stage in their order: the `common.yaml` beside it, where there is one, and its own."""
    common = stage.with_name(COMMON)
    return [common, stage] if common.is_file() and stage.name != COMMON else [stage]


def config_options(stage: Path) -> list[str]:
    """The files of a stage as options of `mmnas fit`."""
    return [word for path in stage_files(stage) for word in ("--config", str(path))]


def refuse_parts(args: Sequence[str]) -> None:
    """Refuses options for a part of a shared entry, which would take the place of the whole entry.

    Raises:
        ConfigError: There is such an option, or one for an item of a list; the message tells the way out.
    """
    for arg in args:
        if found := _OVERRIDE.match(arg):
            entry = f"shared.{found.group(1)}"
            option = arg.partition("=")[0]
            raise ConfigError(f"{option} is a part of {entry}; give that as a whole: --{entry} '{{...}}'")
        if _ITEM.match(arg):
            option, items = arg.partition("=")[0], _ITEM.sub(r"\1", arg.partition("=")[0])
            raise ConfigError(
                f"{option} is a part of an item of a list, which the command line cannot name; change it in the "
                f"configuration, or give the list as a whole: {items} '[...]'"
            )


def refuse_tags(args: Sequence[str]) -> None:
    """Refuses values whose words are not of their YAML tags, such as ``!!bool x``, which the parser would not survive.

    Raises:
        ConfigError: There is one.
    """
    for before, arg in pairwise(["", *args]):
        option, _, joined = arg.partition("=")
        value, option = (joined, option) if arg.startswith("--") else (arg, before)
        if _TAG.search(value):
            parse_yaml(value, option)


def advice(args: Sequence[str]) -> str:
    """What a configuration that cannot be read may lack: the common file, or an option for a shared entry as a whole.

    Args:
        args: Arguments of `mmnas fit` and its siblings.

    Returns:
        The end of an error message; empty where there is nothing to say.
    """
    given = given_configs(args)
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in given}
    there = {path.resolve() for path in given}
    for path in given:
        common = path.with_name(COMMON)
        if common.is_file() and common.resolve() not in there and _is_part(texts[path]):
            return f"; {path} goes with the common file beside it: --config {common} --config {path}"
    for found in filter(None, map(_MODEL_OVERRIDE.match, args)):
        taken = re.compile(rf"^\s*{found.group(1)}: \$\{{shared\.(\w+)}}", re.MULTILINE)
        for entry in filter(None, map(taken.search, texts.values())):
            name = entry.group(1)
            return f"; {found.group(1)} is shared.{name}, to be given as a whole: --shared.{name} '{{...}}'"
    return ""


def given_configs(args: Sequence[str]) -> list[Path]:
    """The files that arguments of `mmnas fit` and its siblings name as configurations."""
    return [path for path in map(Path, _values(args, "--config", "-c")) if path.is_file()]


def _values(args: Sequence[str], *options: str) -> list[str]:
    apart = [value for option, value in pairwise(args) if option in options]
    return [*apart, *(arg.partition("=")[2] for arg in args if arg.partition("=")[0] in options and "=" in arg)]


def _is_part(text: str) -> bool:
    """Whether a stage's file lacks what a common file has: shared entries, or the class of the model or the data."""
    if "${shared." in text:
        return True
    try:
        content = parse_yaml(text, "")
    except ConfigError:
        return False
    parts = [content.get(name) for name in ("model", "data")] if isinstance(content, dict) else []
    return any(isinstance(part, dict) and "class_path" not in part for part in parts)
