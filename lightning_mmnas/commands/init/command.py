"""`mmnas init`: from a table to a folder of configurations that `mmnas run` takes as it is."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.errors import ConfigError, RunDirectoryError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from lightning_mmnas.commands.init.configs import Plan
    from lightning_mmnas.commands.init.task import Choice
    from lightning_mmnas.data.table.columns import ColumnSpec
    from lightning_mmnas.data.table.data_module import TableDataModule

_GUESSED = ("label", "split", "group", "id")
"""Columns of these very names are taken for what they say, unless an option says otherwise."""


def command(args: Sequence[str]) -> None:
    """Runs `mmnas init` with the rest of the command line."""
    parser = Parser(
        prog="mmnas init",
        description="Looks at a table of your data (.csv, .jsonl or .parquet), proposes its modalities, checks every "
        "file, and writes a folder of configurations for `mmnas run`. Columns named label, split, group or id are "
        "taken for that.",
        allow_abbrev=False,
    )
    parser.add_argument("table", help="one row per sample; files are named relative to the table's folder")
    parser.add_argument("--output", required=True, metavar="DIR", help="new folder of configurations")
    add_table_options(parser)
    parser.add_argument(
        "--encoders",
        choices=["small", "pretrained"],
        default="small",
        help="of images and texts: small ones, trained in stage 0 (default), or pretrained ones (extra pretrained)",
    )
    parser.add_argument(
        "--task",
        choices=["classes", "regression"],
        help="what the labels are: classes, or real numbers to be predicted as such (default: told from the column)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the splits and of the stages (default: 0)")
    options = parser.parse_args(list(args))
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed must be from 0 to 4294967295, got {options.seed}")
    from rich.console import Console

    init(**vars(options), console=Console())


def add_table_options(parser: Parser) -> None:
    """The options that say how the columns of a table are read."""
    parser.add_argument("--label", metavar="COLUMN", help="the class, or a list of classes")
    parser.add_argument("--label-separator", metavar="TEXT", help="what parts several classes in one cell, such as |")
    parser.add_argument("--split", metavar="COLUMN", help="train, val or test; otherwise splits are drawn")
    parser.add_argument("--group", metavar="COLUMN", help="what must not straddle splits, such as the person")
    parser.add_argument("--id", metavar="COLUMN", help="must be different in every row")
    parser.add_argument(
        "--modality",
        action="append",
        default=[],
        metavar="NAME=KIND:COLUMN,...",
        help="a modality and its columns, in place of the proposed ones; may be repeated",
    )
    parser.add_argument("--missing", choices=["error", "drop", "mask"], default="error", help="empty cells")
    parser.add_argument("--on-error", choices=["raise", "skip"], default="raise", help="damaged files")


def read_columns(
    table: str, special: dict[str, str | None], modality: Sequence[str]
) -> tuple[dict[str, str], dict[str, ColumnSpec], dict[str, str]]:
    """Proposes what the columns of a table are.

    Args:
        table: The table.
        special: The columns of label, split, group and id, as far as they are given.
        modality: Modalities in place of the proposed ones, as `mmnas init --modality` takes them.

    Returns:
        The columns of label, split, group and id that there are; the modalities; columns left out, with the reason.

    Raises:
        DataError: The table cannot be used.
        ConfigError: A modality is given wrongly.
    """
    from lightning_mmnas.commands.init.columns import check_proposal, parse_modality, propose
    from lightning_mmnas.data.table.reading import read_table

    content = read_table(Path(table))
    special = dict(special)
    for name in _GUESSED:
        if special[name] is None and name in content.names and name not in special.values():
            special[name] = name
        elif (column := special[name]) is not None:
            content.need(column, f"--{name}")
    given = [parse_modality(content, text) for text in modality]
    if len(dict(given)) < len(given):
        raise ConfigError("--modality names a modality twice")
    claimed = [column for _, spec in given for column in spec.columns]
    proposed, left = propose(content, [*special.values(), *claimed]) if not given else ({}, {})
    columns: dict[str, ColumnSpec] = {**proposed, **dict(given)}
    check_proposal(content, columns, left)
    return {name: column for name, column in special.items() if column is not None}, columns, left


def init(
    table: str,
    output: str,
    *,
    label: str | None = None,
    label_separator: str | None = None,
    split: str | None = None,
    group: str | None = None,
    id: str | None = None,
    modality: Sequence[str] = (),
    encoders: str = "small",
    missing: str = "error",
    on_error: str = "raise",
    seed: int = 0,
    task: Choice | None = None,
    console: Console | None = None,
) -> Path:
    """Writes the configurations for a table; the arguments are the options of `mmnas init`.

    Returns:
        The new folder.

    Raises:
        DataError: The table or its files cannot be used; names them.
        ConfigError: An option is wrong.
        RunDirectoryError: The folder exists, or cannot be written.
    """
    from rich.console import Console

    from lightning_mmnas.commands.init.configs import write_configs
    from lightning_mmnas.commands.init.pretrained import proposal, with_pretrained
    from lightning_mmnas.data.table.data_module import TableDataModule

    console = console or Console()
    folder = Path(output)
    if folder.exists() or folder.is_symlink():
        raise RunDirectoryError(f"{folder} exists; nothing was changed. Choose a new folder as --output")
    special = {"label": label, "split": split, "group": group, "id": id}
    found, columns, left = read_columns(table, special, modality)
    if encoders == "pretrained":
        columns = with_pretrained(columns)

    shared: dict[str, Any] = {"table": str(Path(table).resolve())}
    shared |= found
    shared |= {"label_separator": label_separator} if label_separator is not None else {}
    task, why = _task(table, found.get("label"), label_separator, task)
    shared |= {"task": "regression"} if task == "regression" else {}
    shared |= {"missing": missing, "on_error": on_error, "split_seed": seed}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        data = TableDataModule(**shared, columns=columns, batch_size=2, labels=False)
        for part in ("train", "val", "test"):
            data.build(part)
    for message in dict.fromkeys(str(warning.message) for warning in told):
        console.print(f"note: {message}", highlight=False, markup=False, soft_wrap=True)
    if why is not None:
        console.print(f"note: {why}", highlight=False, markup=False, soft_wrap=True)
    plan = _plan(data, shared, columns, f"runs/{folder.name}", seed, encoders == "pretrained")
    files = write_configs(plan)
    _write(folder, files)
    _report(data, plan, left, console)
    if encoders == "small" and (hint := proposal(columns)) is not None:
        console.print(f"note: {hint}", highlight=False, markup=False, soft_wrap=True)
    if not plan.supervised:
        console.print(
            "the table has no label column, so nothing can be fine-tuned or compared; wrote the stages before that",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    next_one = shlex.join(["mmnas", "run", str(folder), "--output", plan.run_dir])
    console.print(f"wrote {folder}; next: {next_one}", highlight=False, markup=False, soft_wrap=True)
    return folder


def _task(
    table: str, label: str | None, separator: str | None, task: Choice | None
) -> tuple[Choice | None, str | None]:
    """What the labels are, and what is to be told about it; None: there are none."""
    from lightning_mmnas.commands.init.task import propose_task
    from lightning_mmnas.data.table.reading import read_table, values

    if label is None:
        if task is not None:
            raise ConfigError(f"--task {task} needs labels; give their column as --label")
        return None, None
    if task is not None or separator is not None:
        return task, None
    return propose_task(list(values(read_table(Path(table)), label)), label, table)


def _plan(
    data: TableDataModule,
    shared: dict[str, Any],
    columns: dict[str, ColumnSpec],
    run_dir: str,
    seed: int,
    pretrained: bool,
) -> Plan:
    from lightning_mmnas.commands.init.configs import Plan
    from lightning_mmnas.data.samples import labelled_rows
    from lightning_mmnas.data.splits import split_groups
    from lightning_mmnas.errors import DataError

    train = data.source("train")
    if len(train) < 8:
        raise DataError(f"{data.path}: {len(train)} training rows; contrastive learning needs at least 8")
    halves = split_groups(len(train), train.groups, 0.5, seed)
    least = min(map(len, halves))
    if least < 2:
        raise DataError(f"{data.path}: groups are too large: the search divides the training rows into {halves}")
    counts: dict[str, int] = {}
    labelled = 0
    if data.task is not None:
        for part in ("train", "val", "test"):
            known = data.source(part).labels
            if known is None or not bool(labelled_rows(known, data.task).any()):
                raise DataError(f"{data.path}: the {part} split has no labelled row")
        labels = train.labels
        if labels is not None:
            there = labels[labelled_rows(labels, data.task)]
            counts = {} if data.task == "regression" else _counts(data, there)
            labelled = len(there)
        if data.task != "regression" and len([count for count in counts.values() if count]) < 2:
            raise DataError(f"{data.path}: the training rows are of {list(counts)} only; leave --label out")
    several = data.task == "multilabel"
    regression = data.task == "regression"
    return Plan(shared, columns, run_dir, len(train), least, counts, labelled, several, seed, pretrained, regression)


def _counts(data: TableDataModule, labels: Tensor) -> dict[str, int]:
    """Rows of each class."""
    several = data.task == "multilabel"
    found = labels.sum(0) if several else labels.bincount(minlength=len(data.class_names))
    return dict(zip(data.class_names, map(int, found.tolist()), strict=True))


def _write(folder: Path, files: dict[str, str]) -> None:
    """Writes all files under another name and renames the folder: it is there as a whole, or not at all."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        try:
            for name, text in files.items():
                (temporary / name).write_text(text, encoding="utf-8")
            temporary.chmod(0o755)
            if folder.exists():
                raise RunDirectoryError(f"{folder} exists; nothing was changed. Choose a new folder as --output")
            os.rename(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except RunDirectoryError:
        raise
    except OSError as error:
        raise RunDirectoryError(f"cannot write {folder}: {error.strerror or error}; choose another --output") from error


def _report(data: TableDataModule, plan: Plan, left: dict[str, str], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid("modality", "kind", "columns", "sample", "empty", title=escape(str(data.path)))
    for name, spec in plan.columns.items():
        columns = ", ".join(spec.columns) if len(spec.columns) < 6 else f"{len(spec.columns)} columns"
        shape = " x ".join(map(str, data.available_modalities[name].shape))
        empty = sum(any(row[column] is None for column in spec.columns) for row in data.content.rows)
        grid.add_row(escape(name), spec.kind, escape(columns), shape, str(empty))
    console.print(grid)
    sizes = ", ".join(f"{part} {len(data.source(part))}" for part in ("train", "val", "test"))
    how = f"of column {data.split!r}" if data.split else f"drawn with seed {data.split_seed}"
    whole = f", whole groups of column {data.group!r}" if data.group else ""
    lines = [f"{len(data.content.rows)} rows; splits {how}{whole}: {sizes}"]
    if plan.classes:
        shown = ", ".join(f"{name} {count}" for name, count in list(plan.classes.items())[:20])
        several = "several per row" if plan.several else "one per row"
        lines.append(f"{len(plan.classes)} classes ({several}) in column {data.label!r}; training rows: {shown}")
    if data.target_scale is not None:
        mean, std = data.target_scale
        lines.append(f"target: column {data.label!r}; training rows: mean {mean:.6g}, standard deviation {std:.6g}")
    if plan.supervised:
        lines.append(f"{plan.train - plan.labelled} training rows have no label; they serve the stages without labels")
    lines += [f"left out: column {name!r}: {reason}" for name, reason in left.items()]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
