"""`mmnas fit --help` and that of its siblings: what matters first, at once; `--help_all` is Lightning's own."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import lightning_mmnas
from lightning_mmnas.commands.arguments import Argument, describe
from lightning_mmnas.commands.shared import config_options
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.parsing import read_yaml

_FROM_DATA = ("modalities", "num_classes", "task", "target_scale")
"""Arguments of a model that are linked from the data module."""

_USES = {
    "fit": ("Trains one stage, or any LightningModule.", "checkpoint to go on from"),
    "validate": ("Scores a trained stage on the validation split.", "checkpoint whose weights are scored"),
    "test": ("Scores a trained stage on the test split.", "checkpoint whose weights are scored"),
    "predict": ("Runs a trained stage on the data.", "checkpoint whose weights are used"),
}
_TRAINER = {
    "max_epochs N": "epochs; max_steps N: weight steps",
    "accelerator NAME": "auto, cpu, gpu, mps, ...",
    "devices N": "how many of them; strategy ddp where there are several",
    "precision NAME": "32-true, bf16-mixed, 16-mixed, ...",
    "accumulate_grad_batches N": "batches per weight step",
    "gradient_clip_val X": "largest norm of the gradient",
    "limit_train_batches N": "batches per epoch, or a share of them; also limit_val_batches, limit_test_batches",
    "fast_dev_run N": "a try: N batches of everything",
    "logger CLASS": "CSVLogger, TensorBoardLogger, WandbLogger, MLFlowLogger, or false",
    "callbacks+ CLASS": "one more callback: ArchitectureAlternation, FeatureCaching, GenotypeSelection, ...",
    "enable_progress_bar BOOL": "whether there is a bar",
}
_CLASSES = ("model", "data", "trainer.callbacks", "trainer.callbacks+", "trainer.logger")
"""Options whose value is a class."""


def is_asked(args: Sequence[str]) -> bool:
    """Whether the command line asks for help."""
    return "-h" in args or "--help" in args


def refuse_files(command: str, args: Sequence[str]) -> None:
    """Refuses a configuration that is not given as an option, or is given twice.

    Raises:
        ConfigError: The first word is no option, or a file that appends to lists is there twice; says what to write.
    """
    pairs = [word.partition("=")[::2] if "=" in word else (word, after) for word, after in pairwise([*args, ""])]
    files = [value for option, value in pairs if option in ("--config", "-c")]
    for file in {file for file in files if files.count(file) > 1 and Path(file).is_file()}:
        if re.search(r"^[^#]*\+:", Path(file).read_text(encoding="utf-8", errors="replace"), re.MULTILINE):
            raise ConfigError(
                f"--config {file} is given twice, and what it appends (+:) would be there twice; once will do"
            )
    if args and not args[0].startswith("-"):
        path = Path(args[0])
        if path.suffix not in (".yaml", ".yml"):
            raise ConfigError(f"mmnas {command} takes options only, not {args[0]!r}; see mmnas {command} --help")
        raise ConfigError(
            f"a configuration is given by --config: mmnas {command} {' '.join([*config_options(path), *args[1:]])}"
        )


def render_help(command: str, args: Sequence[str]) -> str:
    """The help of `mmnas fit` or one of its siblings.

    Args:
        command: ``fit``, ``validate``, ``test`` or ``predict``.
        args: The rest of the command line; of the classes that it names, here or in its files, the arguments are shown.

    Raises:
        ConfigError: A class or a file that it names does not exist or cannot be read.
    """
    width = max(60, min(shutil.get_terminal_size().columns, 110))
    named = _named(args)
    if named:
        parts = [_describe_class(option, name, here, width) for option, name, here in named]
        return "\n\n".join([*parts, f"All other options: mmnas {command} --help, or in full --help_all."])
    return _overview(command, width)


def _overview(command: str, width: int) -> str:
    what, checkpoint = _USES[command]
    homes = lightning_mmnas.HOMES
    models = [name for name, home in homes.items() if home.startswith("modules.")]
    data = [name for name, home in homes.items() if name.endswith("DataModule") and name != "MultimodalDataModule"]
    groups: dict[str, dict[str, str]] = {
        "most used": {
            "--config FILE": "a configuration; may be repeated, later ones override: common.yaml, then the stage's",
            "--run_dir DIR": "folder of everything that is written (default: runs/default)",
            "--ckpt_path FILE": checkpoint,
            "--seed_everything N": "seed (default: 0)",
            "--print_config": "print the configuration that comes out, and stop",
        },
        "model and data": {
            "--model CLASS": f"{', '.join(models)}, or your own: my_package.MyModule",
            "--model.NAME VALUE": "an argument of the model",
            "--data CLASS": f"{', '.join(data)}, or your own",
            "--data.NAME VALUE": "an argument of the data module",
            "--shared.NAME VALUE": "an entry of shared in common.yaml, as a whole",
        },
        "trainer": {f"--trainer.{name}": text for name, text in _TRAINER.items()},
    }
    lines = [f"usage: mmnas {command} --config FILE [--config FILE ...] [options]", "", what]
    for title, options in groups.items():
        lines += ["", f"{title}:", *_columns(options, width)]
    examples = {
        f"mmnas {command} --model FusionSearch --help": "arguments of a class; likewise --data, --trainer.callbacks+",
        f"mmnas {command} --config common.yaml --config search.yaml --help": "those of a stage's model and data",
        f"mmnas {command} --help_all": "every option of Lightning's command line (takes seconds)",
    }
    lines += ["", "more help:"]
    for example, text in examples.items():
        lines += [f"  {example}", f"      {text}"]
    return "\n".join(lines)


def _named(args: Sequence[str]) -> list[tuple[str, str, dict[str, Any]]]:
    """Option, class and given arguments of every class that the command line or its files name."""
    words = [part for arg in args for part in (arg.split("=", 1) if arg.startswith("--") else [arg])]
    given: dict[str, dict[str, Any]] = {}
    classes: list[tuple[str, str]] = []
    for option, value in pairwise(words):
        key = option.removeprefix("--")
        if value.startswith("-"):
            continue
        if option in ("--config", "-c"):
            for part, content in _read(value).items():
                given.setdefault(part, {}).update(content.get("init_args") or {})
                if "class_path" in content:
                    classes = [*(entry for entry in classes if entry[0] != part), (part, content["class_path"])]
        elif option.startswith("--") and key in _CLASSES:
            single = key in ("model", "data", "trainer.logger")
            classes = [*(entry for entry in classes if not (single and entry[0] == key)), (key, value)]
    return [(key, name, given.get(key, {})) for key, name in classes]


def _read(path: str) -> dict[str, dict[str, Any]]:
    """The parts ``model`` and ``data`` of a configuration file."""
    if not Path(path).is_file():
        raise ConfigError(f"No such file: {path}; check --config")
    content = read_yaml(Path(path))
    parts = {name: (content or {}).get(name) for name in ("model", "data")} if isinstance(content, dict | None) else {}
    return {name: part for name, part in parts.items() if isinstance(part, dict)}


def _describe_class(option: str, name: str, here: dict[str, Any], width: int) -> str:
    described = describe(name)
    lines = textwrap.wrap(f"{described.name}: {described.summary}", width)
    prefix = f"--{option.rstrip('+')}."
    for argument in described.arguments:
        lines += _describe_argument(prefix, argument, here, option == "model", width)
    if not described.arguments:
        lines.append("  (no arguments)")
    return "\n".join(lines)


def _describe_argument(
    prefix: str, argument: Argument, here: dict[str, Any], is_model: bool, width: int
) -> Iterator[str]:
    linked = is_model and argument.name in _FROM_DATA
    source = "from the data module" if linked else None
    if source is None and argument.name in here:
        source = f"here {textwrap.shorten(str(here[argument.name]), 50, placeholder=' ...')}"
    default = "required" if argument.default is None else f"default {argument.default}"
    notes = ", ".join(filter(None, [argument.type, default, source]))
    yield from textwrap.wrap(f"{prefix}{argument.name} ({notes})", width, initial_indent="  ", subsequent_indent="    ")
    yield from textwrap.wrap(argument.text, width, initial_indent="      ", subsequent_indent="      ")


def _columns(options: dict[str, str], width: int) -> Iterator[str]:
    left = max(map(len, options)) + 4
    for option, text in options.items():
        yield from textwrap.wrap(
            text, width, initial_indent=f"  {option:<{left - 2}}", subsequent_indent=" " * left, break_on_hyphens=False
        )
