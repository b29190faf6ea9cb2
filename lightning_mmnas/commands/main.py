"""The commands of `mmnas`, and how a user's mistake ends: one message on stderr, exit code 2.

Nothing heavy is imported before a command asks for it, so that `mmnas --help` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from lightning_mmnas.errors import ConfigError, MMNASError

_LIGHTNING = {
    "fit": "train one stage, or any Lightning module, from a configuration",
    "validate": "run one validation epoch",
    "test": "run one test epoch, on the test split",
    "predict": "run inference on the data",
}
# Command: its help, and the function that takes the rest of the command line.
_OWN = {
    "cache": (
        "run the frozen encoders of a stage once and store their features: mmnas cache --config search.yaml",
        "lightning_mmnas.caching:cache",
    ),
    "cost": (
        "count and time the network of a genotype: mmnas cost genotype.json --config search.yaml",
        "lightning_mmnas.cost_command:cost",
    ),
    "prepare": (
        "build a data set from files you have: mmnas prepare avmnist --help",
        "lightning_mmnas.prepare:command",
    ),
    "data": (
        "print what is in a data set and draw a few samples with their views: mmnas data watch",
        "lightning_mmnas.data_command:describe",
    ),
    "init": (
        "write configurations for a table of your own: mmnas init my_table.csv --output my_configs",
        "lightning_mmnas.init:command",
    ),
    "run": (
        "run all stages one after another, then the comparison: mmnas run watch --output DIR",
        "lightning_mmnas.commands:_run",
    ),
    "sample": (
        "search without gradients, by Optuna's samplers: mmnas sample --config search.yaml --output DIR",
        "lightning_mmnas.sampling.command:sample",
    ),
    "tabulate": (
        "train every architecture of a space, in blocks: mmnas tabulate avmnist --output DIR",
        "lightning_mmnas.tabular.job:command",
    ),
    "show": (
        "show a genotype as a tree, or as a picture: mmnas show genotype.json --output x.png",
        "lightning_mmnas.commands:_show",
    ),
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        args: the command line without the program's name; by default that of the process.

    Returns:
        0, or 2 for what the user can mend (a wrong file, key, value or folder, or Ctrl-C). With
        MMNAS_DEBUG=1 in the environment the error is raised instead, with its traceback.
    """
    args = list(sys.argv[1:] if args is None else args)
    try:
        _dispatch(args)
    except (Exception, KeyboardInterrupt) as error:
        message = _explain(error)
        if message is None or os.environ.get("MMNAS_DEBUG", "0") not in ("", "0"):
            raise
        print(f"mmnas: {message}", file=sys.stderr)
        return 2
    return 0


def _dispatch(args: list[str]) -> None:
    command = args[0] if args else "--help"
    if command in ("-h", "--help"):
        print(_help())
    elif command == "--version":
        print(f"mmnas {version('lightning-mmnas')}")
    elif command in _OWN:
        _see_own_modules()
        module, _, function = _OWN[command][1].partition(":")
        getattr(importlib.import_module(module), function)(args[1:])
    elif command in _LIGHTNING:
        _see_own_modules()
        from lightning_mmnas.cli import MMNASCLI

        MMNASCLI(args)
    else:
        commands = [*_LIGHTNING, *_OWN]
        near = difflib.get_close_matches(command, commands, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; the commands are {commands}"
        raise ConfigError(f"there is no command {command!r}{hint}")


def _see_own_modules() -> None:
    """Puts the current folder on the path: a console script does not see the user's own modules."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _help() -> str:
    lines = ["usage: mmnas COMMAND [options]", "", "commands:"]
    own = {name: text for name, (text, _) in _OWN.items()}
    lines += [f"  {name:<9} {text}" for name, text in (_LIGHTNING | own).items()]
    lines += ["", "options:", "  -h, --help  show this text; mmnas COMMAND --help says more"]
    lines += ["  --version   show the version"]
    return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """A command's own options; a mistake in them is a `ConfigError`."""

    def error(self, message: str) -> NoReturn:
        """Raises instead of printing the usage and leaving."""
        raise ConfigError(f"{message}; see {self.prog} --help")


def _run(args: list[str]) -> None:
    parser = Parser(
        prog="mmnas run",
        description="Runs the stages encoders, search, pretrain and finetune of a configuration "
        "folder one after another, each as `mmnas fit` would, then the comparison. Run again, it "
        "continues with the first unfinished stage.",
        epilog="Further options override the stages' configurations: --trainer.accelerator cpu in "
        "all of them, --search.trainer.max_epochs 3 in one.",
        allow_abbrev=False,
    )
    parser.add_argument("configs", help="a folder of stage configurations, or a shipped one: watch")
    parser.add_argument("--output", required=True, help="the run directory", metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="seed of every stage (default: 0)")
    options, overrides = parser.parse_known_args(args)
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed must be from 0 to 4294967295, got {options.seed}")
    from lightning_mmnas.pipeline import run

    run(options.configs, options.output, seed=options.seed, overrides=overrides)


def _show(args: list[str]) -> None:
    parser = Parser(
        prog="mmnas show",
        description="Shows a genotype as a tree in the terminal.",
        allow_abbrev=False,
    )
    parser.add_argument("genotype", help="a genotype.json")
    parser.add_argument("--output", help="also draw it into this file (png, pdf, svg)")
    options = parser.parse_args(args)
    if not Path(options.genotype).is_file():
        raise ConfigError(f"there is no file {options.genotype}")

    from rich.console import Console

    from lightning_mmnas.genotype import Genotype
    from lightning_mmnas.report.architecture import plot_genotype, render_tree

    genotype = Genotype.load(options.genotype)
    Console().print(render_tree(genotype))
    if options.output is not None:
        import matplotlib

        from lightning_mmnas.files import replacing

        matplotlib.use("Agg")
        figure = plot_genotype(genotype)
        formats = figure.canvas.get_supported_filetypes()
        if Path(options.output).suffix.removeprefix(".") not in formats:
            raise ConfigError(f"cannot draw {options.output}; the suffixes are {sorted(formats)}")
        with replacing(Path(options.output)) as path:
            figure.savefig(path, bbox_inches="tight")
        print(f"wrote {options.output}")


def _explain(error: BaseException) -> str | None:
    """The message for a user's mistake; None for an error of ours, which keeps its traceback."""
    if isinstance(error, KeyboardInterrupt):
        return str(error) or "interrupted"
    if isinstance(error, MMNASError):
        return str(error)
    rules: list[tuple[str, str, Callable[[str], str]]] = [
        ("argparse", "ArgumentError", _parser_message),
        ("omegaconf", "OmegaConfBaseException", lambda text: text.splitlines()[0]),
        ("lightning.fabric.utilities.exceptions", "MisconfigurationException", str.strip),
    ]
    for module, name, shorten in rules:
        kind = getattr(sys.modules.get(module), name, None) or getattr(sys.modules.get(f"{module}.errors"), name, None)
        if kind is not None and isinstance(error, kind):
            return shorten(str(error))
    text = str(error)
    if isinstance(error, RuntimeError) and "Error(s) in loading state_dict" in text:
        keys = re.sub(r"\s+", " ", text)
        return f"the checkpoint belongs to another architecture: {keys[:300]}"
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return None


def _parser_message(text: str) -> str:
    from lightning_mmnas.messages import shorten_parser_error

    return shorten_parser_error(text)
