"""The commands of `mmnas`, and how a user's mistake ends: one message on stderr, exit code 2.

Nothing heavy is imported before a command asks for it, so that `mmnas --help` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

from lightning_mmnas.commands.termination import EXIT_CODE, raised
from lightning_mmnas.errors import ConfigError, Terminated

_LIGHTNING = {
    "fit": "train one stage, or any Lightning module, from a configuration",
    "validate": "run one validation epoch",
    "test": "run one test epoch, on the test split",
    "predict": "write the classes of new data: mmnas predict RUN TABLE --output FILE; or Lightning's, with --config",
}
# Command: its help, and the function that takes the rest of the command line.
_OWN = {
    "cache": (
        "store the features of a stage's frozen encoders: mmnas cache --config common.yaml --config search.yaml",
        "lightning_mmnas.commands.cache:command",
    ),
    "cost": (
        "count and time a genotype's network: mmnas cost genotype.json --config common.yaml --config search.yaml",
        "lightning_mmnas.commands.cost:command",
    ),
    "prepare": (
        "build a data set from files you have: mmnas prepare avmnist --help",
        "lightning_mmnas.commands.prepare:command",
    ),
    "data": (
        "print what is in a data set and draw a few samples with their views: mmnas data watch",
        "lightning_mmnas.commands.data:command",
    ),
    "embed": (
        "write the vectors of new data: mmnas embed RUN TABLE --output vectors.npy",
        "lightning_mmnas.commands.apply:embed",
    ),
    "evaluate": (
        "score a run's model on new data: mmnas evaluate RUN TABLE",
        "lightning_mmnas.commands.apply:evaluate",
    ),
    "export": (
        "write a run's model as a file that runs without this package: mmnas export RUN --format onnx",
        "lightning_mmnas.commands.export:command",
    ),
    "init": (
        "write configurations for a table of your own: mmnas init my_table.csv --output my_configs",
        "lightning_mmnas.commands.init.command:command",
    ),
    "report": (
        "make the page of a finished run again, or compare several: mmnas report DIR [DIR ...]",
        "lightning_mmnas.commands.report:command",
    ),
    "run": (
        "run all stages one after another, then the comparison: mmnas run watch --output DIR",
        "lightning_mmnas.commands.run:command",
    ),
    "sample": (
        "search without gradients: mmnas sample --config common.yaml --config search.yaml --output DIR",
        "lightning_mmnas.commands.sample:command",
    ),
    "stream": (
        "write a table as shards, to be streamed from a disk or a cloud: mmnas stream TABLE --output shards",
        "lightning_mmnas.commands.stream:command",
    ),
    "tabulate": (
        "train every architecture of a space, in blocks: mmnas tabulate avmnist --output DIR",
        "lightning_mmnas.commands.tabulate:command",
    ),
    "show": (
        "show the architecture of a run, or a genotype, as a tree or as a picture: mmnas show runs/watch",
        "lightning_mmnas.commands.show:command",
    ),
}
# As `mmnas --help` lists them; every command is in one of them.
_GROUPS = {
    "from data to a model": ("init", "data", "run", "report", "show"),
    "use the model": ("predict", "evaluate", "embed", "export"),
    "one stage at a time, as with any LightningCLI": ("fit", "validate", "test"),
    "tools": ("prepare", "cache", "cost", "sample", "stream", "tabulate"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    Args:
        args: the command line without the program's name; by default that of the process.

    Returns:
        0, or 2 for what the user can mend (a wrong file, key, value or folder, or Ctrl-C), or 143 after SIGTERM. With
        MMNAS_DEBUG=1 in the environment the error is raised instead, with its traceback.
    """
    args = list(sys.argv[1:] if args is None else args)
    try:
        with raised():
            _dispatch(args)
    except BrokenPipeError:  # the reader of our output, such as head, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (Exception, KeyboardInterrupt) as error:
        from lightning_mmnas.commands.messages import explain

        message = explain(error)
        if message is None or os.environ.get("MMNAS_DEBUG", "0") not in ("", "0"):
            raise
        print(f"mmnas: {message}", file=sys.stderr)
        return EXIT_CODE if isinstance(error, Terminated) else 2
    return 0


def _dispatch(args: list[str]) -> None:
    if args[:1] == ["help"]:
        args = [*args[1:2], "--help"]
    command = args[0] if args else "--help"
    if command in ("-h", "--help"):
        print(_help())
    elif command in ("--version", "-V", "version"):
        print(f"mmnas {version('lightning-mmnas')}")
    elif command in _OWN:
        _see_own_modules()
        module, _, function = _OWN[command][1].partition(":")
        getattr(importlib.import_module(module), function)(args[1:])
    elif command == "predict" and _names_a_run(args[1:]):
        _see_own_modules()
        from lightning_mmnas.commands.apply import predict

        predict(args[1:])
    elif command in _LIGHTNING:
        _see_own_modules()
        _run_lightning(command, args[1:])
    else:
        commands = [*_LIGHTNING, *_OWN]
        near = difflib.get_close_matches(command, commands, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; the commands are {commands}"
        raise ConfigError(f"there is no command {command!r}{hint}")


def _names_a_run(args: Sequence[str]) -> bool:
    """Whether `mmnas predict` is to apply a delivered model, and not to be Lightning's own."""
    lightning = ("--config", "-c", "--model", "--data", "--trainer", "--ckpt_path", "--print_config", "--run_dir")
    return not any(arg.startswith(lightning) for arg in args)


def _run_lightning(command: str, args: list[str]) -> None:
    from lightning_mmnas.commands.fit_help import is_asked, refuse_files, render_help

    if is_asked(args):
        print(render_help(command, args))
        return
    refuse_files(command, args)
    from lightning_mmnas.commands.lightning_cli import MMNASCLI

    MMNASCLI([command, *("--help" if word == "--help_all" else word for word in args)])


def _see_own_modules() -> None:
    """Puts the current folder on the path: a console script does not see the user's own modules."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _help() -> str:
    texts = _LIGHTNING | {name: text for name, (text, _) in _OWN.items()}
    lines = ["usage: mmnas COMMAND [options]"]
    for group, names in _GROUPS.items():
        lines += ["", f"{group}:", *(f"  {name:<9} {texts[name]}" for name in names)]
    lines += ["", "options:", "  -h, --help  show this text; mmnas COMMAND --help says more"]
    lines += ["  --version   show the version"]
    return "\n".join(lines)
