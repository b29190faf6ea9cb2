"""The parser of a command's own options, and the nearest name to one that does not exist."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from lightning_mmnas.errors import ConfigError, RunDirectoryError

FIT_OPTIONS = (
    "config",
    "print_config",
    "run_dir",
    "shared",
    "seed_everything",
    "trainer",
    "model",
    "data",
    "optimizer",
    "lr_scheduler",
    "ckpt_path",
    "weights_only",
)
"""Options of `mmnas fit`, which `mmnas run` and others take for their stages."""

_HEADS = (*FIT_OPTIONS, "encoders", "search", "pretrain", "finetune", "comparison")


class Parser(argparse.ArgumentParser):
    """A command's own options; a mistake in them is a `ConfigError`."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage and leaving."""
        raise ConfigError(f"{message}; see {self.prog} --help")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Reads the options; one that nearly has the name of another is a mistake, also where unknown ones go on."""
        self._refuse_empty(list(args or ()))
        own = [option for option in self._option_string_actions if option.startswith("--")]
        for word in args or ():
            option = word.partition("=")[0]
            head = option.partition(".")[0]
            if not head.startswith("--") or option in own or head[2:] in _HEADS:
                continue
            near = nearest(head, own if option == head else (), [f"--{name}" for name in _HEADS])
            if near:
                self.error(f"there is no option {option}; did you mean {near + option[len(head) :]}?")
        options, rest = super().parse_known_args(args, namespace)
        if "://" in (output := str(getattr(options, "output", None))):
            self.error(f"--output {output} is a URL; write into a folder of this machine, and copy it there")
        return options, rest

    def _refuse_empty(self, words: list[str]) -> None:
        """Refuses an empty path, which would be this folder."""
        for before, word in zip(["", *words], words, strict=False):
            option = before if word == "" else word.removesuffix("=") if word.endswith("=") else None
            if option in ("--output", "--reuse"):
                self.error(f"{option} is empty; is a variable of the shell not set?")
            if word == "" and not before.startswith("--"):
                self.error("an argument is empty; is a variable of the shell not set?")


def nearest(name: str, *names: Iterable[str]) -> str | None:
    """The name that is most like another one; None where none is like it."""
    known = [known for some in names for known in some]
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.7)), None)


def path_hint(path: str | Path, others: Sequence[str] = ()) -> str:
    """The end of a message about a path that does not exist: where a link leads, or what is like it.

    Args:
        path: What was given.
        others: Names that may have been meant as well.
    """
    given = Path(path)
    if given.is_symlink():
        return f"; it is a link to {os.readlink(given)}, which is not there"
    try:
        beside = [entry.name for entry in given.parent.iterdir()]
    except OSError:
        beside = []
    near = nearest(str(path), others)
    if near is None and (name := nearest(given.name, beside)) is not None:
        near = str(given.with_name(name))
    return f"; did you mean {near}?" if near else ""


def check_run(path: str | Path) -> None:
    """Refuses a run that is not there, where one beside it has nearly the same name.

    Raises:
        RunDirectoryError: Names the other one.
    """
    if not Path(path).exists() and (hint := path_hint(path)):
        raise RunDirectoryError(f"there is no run {path}{hint}")
