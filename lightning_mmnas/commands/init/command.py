"""`mmnas init`: from a table to a folder of configurations that `mmnas run` takes as it is."""

from __future__ import annotations

import os
import shlex
import shutil
import tempfile
import warnings
from argparse import BooleanOptionalAction
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.errors import ConfigError, MMNASError, RunDirectoryError

if TYPE_CHECKING:
    from rich.console import Console
    from torch import Tensor

    from lightning_mmnas.commands.init.columns import Proposal
    from lightning_mmnas.commands.init.configs import Plan
    from lightning_mmnas.commands.init.task import Choice
    from lightning_mmnas.data.columns.column import ColumnSamples
    from lightning_mmnas.data.table.columns import ColumnSpec
    from lightning_mmnas.data.table.data_module import TableDataModule

_READ = 4_000
"""Samples of each split whose files are read, where there are more."""


def command(args: Sequence[str]) -> None:
    """Runs `mmnas init` with the rest of the command line."""
    parser = Parser(
        prog="mmnas init",
        description="Looks at a table of your data (.csv, .tsv, .json, .jsonl, .parquet or a folder of Parquet files), "
        "proposes its modalities, checks every file, and writes a folder of configurations for `mmnas run`. Columns "
        "that are called label, split, group or id, or nearly so (class, target, fold, subject, index, ...), are taken "
        "for that, and never for inputs.",
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

    from lightning_mmnas.commands.init.telling import as_options

    try:
        init(**vars(options), console=Console())
    except MMNASError as error:
        raise as_options(error) from error


def add_table_options(parser: Parser) -> None:
    """The options that say how the columns of a table are read."""
    parser.add_argument("--label", metavar="COLUMN", help="the class, or a list of classes")
    parser.add_argument("--label-separator", metavar="TEXT", help="what parts several classes in one cell, such as |")
    parser.add_argument("--split", metavar="COLUMN", help="train, val or test; otherwise splits are drawn")
    parser.add_argument("--group", metavar="COLUMN", help="what must not straddle splits, such as the person")
    parser.add_argument("--id", metavar="COLUMN", help="must be different in every row")
    for role in ("label", "split", "group", "id"):
        parser.add_argument(
            f"--no-{role}",
            dest="without_roles",
            action="append_const",
            const=role,
            default=[],
            help=f"no column is the {role}, whatever it is called",
        )
    parser.add_argument(
        "--modality",
        action="append",
        default=[],
        metavar="NAME=KIND:COLUMN,...",
        help="a modality, its columns (v1_* for all that begin so) and, if wanted, settings, such as "
        "song=audio:song,seconds=5,rate=8000 or depth=image:depth,size=128x128,channels=1; in place of the proposed "
        "ones; may be repeated",
    )
    parser.add_argument(
        "--without", action="append", default=[], metavar="COLUMN", help="leave a column out; may be repeated"
    )
    parser.add_argument(
        "--files-from", metavar="FOLDER", help="what the table names files relative to (default: its own folder)"
    )
    parser.add_argument("--separator", metavar="TEXT", help="between cells, such as ; or tab (default: recognised)")
    parser.add_argument("--decimal", choices=[".", ","], help="mark of numbers that are texts (default: recognised)")
    parser.add_argument(
        "--header",
        action=BooleanOptionalAction,
        default=None,
        help="whether the first row names the columns (default: it does, unless it looks otherwise)",
    )
    parser.add_argument(
        "--empty",
        action="append",
        metavar="TEXT",
        help="what stands for an empty cell; may be repeated (default: NaN, NA, N/A, null, ? and the like; among "
        "numbers and files None and - too)",
    )
    parser.add_argument("--missing", choices=["error", "drop", "mask"], default="error", help="empty cells")
    parser.add_argument("--on-error", choices=["raise", "skip"], default="raise", help="damaged files")


def read_columns(
    table: str,
    special: Mapping[str, str | None],
    modality: Sequence[str],
    without: Sequence[str] = (),
    without_roles: Sequence[str] = (),
    files_from: str | None = None,
    reading: Mapping[str, Any] | None = None,
) -> Proposal:
    """Proposes what the columns of a table are.

    Args:
        table: The table.
        special: The columns of label, split, group and id, as far as they are given.
        modality: Modalities in place of the proposed ones, as `mmnas init --modality` takes them.
        without: Columns to be left out.
        without_roles: Those of label, split, group and id that there are not to be.
        files_from: What the table names files relative to; None: its folder.
        reading: Separator, decimal mark, header and spellings of empty cells, as far as they are given.

    Raises:
        DataError: The table cannot be used, or a column is doubtful.
        ConfigError: A modality is given wrongly.
    """
    from lightning_mmnas.commands.init.columns import Proposal, check_proposal, propose
    from lightning_mmnas.commands.init.modality import parse_modality
    from lightning_mmnas.commands.init.sizes import measure
    from lightning_mmnas.commands.init.special import find_special
    from lightning_mmnas.data.table.paths import base_folder
    from lightning_mmnas.data.table.reading import Reading, read_table

    content = read_table(Path(table), Reading(**(reading or {})))
    folder = base_folder(Path(table), files_from)
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder}; check --files-from")
    for column in without:
        content.need(column, "--without")
    given = [parse_modality(content, text) for text in modality]
    if len({name.lower() for name, _, _ in given}) < len(given):
        raise ConfigError("--modality names a modality twice")
    claimed = {column for _, spec, _ in given for column in spec.columns}
    found_special = find_special(content, special, without_roles, {*claimed, *without})
    if (label := special.get("label")) is not None and label in claimed:
        raise ConfigError(f"column {label!r} is to be learnt (--label) and is no input; leave it out of --modality")
    if given:
        measured = {name: measure(content, spec, folder, fixed) for name, spec, fixed in given}
        found = Proposal(content, folder, columns=measured)
    else:
        found = propose(content, found_special, without, folder)
    found.special = found_special.columns
    found.told = [*(f"read: {line}" for line in content.told), *found_special.told, *found.told]
    check_proposal(found)
    return found


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
    without: Sequence[str] = (),
    without_roles: Sequence[str] = (),
    files_from: str | None = None,
    encoders: str = "small",
    separator: str | None = None,
    decimal: str | None = None,
    header: bool | None = None,
    empty: Sequence[str] | None = None,
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
    from lightning_mmnas.commands.init.pretrained import proposal
    from lightning_mmnas.commands.init.telling import in_options, report
    from lightning_mmnas.data.guard import look_at_data
    from lightning_mmnas.data.table.data_module import TableDataModule

    console = console or Console()
    say = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    folder = Path(output)
    if folder.exists() or folder.is_symlink():
        raise RunDirectoryError(f"{folder} exists; nothing was changed. Choose a new folder as --output")
    special = {"label": label, "split": split, "group": group, "id": id}
    given = {"separator": separator, "decimal": decimal, "header": header, "empty": empty}
    reading = {name: value for name, value in given.items() if value is not None}
    found = read_columns(table, special, modality, without, without_roles, files_from, reading)
    if encoders == "pretrained":
        found = _with_pretrained(found)
    columns = found.specs

    shared: dict[str, Any] = {"table": str(Path(table).resolve())}
    shared |= found.special
    shared |= {"files_from": str(Path(files_from).resolve())} if files_from is not None else {}
    shared |= _recognised(found) | reading
    shared |= {"label_separator": label_separator} if label_separator is not None else {}
    task, why = _task(found, label_separator, task)
    shared |= {"task": "regression"} if task == "regression" else {}
    shared |= {"missing": missing, "on_error": on_error, "split_seed": seed}
    guessed = found.special.get("group") if group is None else None
    with warnings.catch_warnings(record=True) as told, _naming_group(guessed):
        warnings.simplefilter("always")
        data = TableDataModule(**shared, columns=columns, batch_size=2, labels=False)
        data.take(found.table)
        data.most_read = _READ
        for part in ("train", "val", "test"):
            data.build(part)
    looks = _unread(data)
    looks += [f"look at {line}" for line in look_at_data(data, ("train", "val", "test"))]
    for message in dict.fromkeys([*(str(warning.message) for warning in told), *data.notes, *looks]):
        say(f"note: {in_options(message)}")
    if why is not None:
        say(f"note: {why}")
    with _naming_group(guessed):
        plan = _plan(data, shared, columns, f"runs/{folder.name}", seed, encoders == "pretrained")
    files = write_configs(plan)
    _write(folder, files)
    report(data, plan, found, console)
    if encoders == "small" and (hint := proposal(columns)) is not None:
        say(f"note: {hint}")
    say(f"wrote {folder}; look at the data: {shlex.join(['mmnas', 'data', str(folder)])}")
    if not plan.supervised:
        say("no column is the label, so nothing can be fine-tuned or compared: the run ends after pretraining")
    say(f"next: {shlex.join(['mmnas', 'run', str(folder), '--output', plan.run_dir])}")
    return folder


def _unread(data: TableDataModule) -> list[str]:
    """How many samples were not read, where their files or cells have to be."""
    sizes = [len(rows) for rows in data.rows.values()]
    columns = cast("ColumnSamples", data.source("train")).columns
    if max(sizes) <= _READ or all(column.flaws() is not None for column in columns.values()):
        return []
    read = sum(min(size, _READ) for size in sizes)
    return [f"{read:,} of the {sum(sizes):,} samples were read, from all over the table; mmnas data reads all"]


def _recognised(found: Proposal) -> dict[str, Any]:
    """What is not the usual in how the table is written, so that it is read the same way again."""
    separator = found.table.separated
    dialect: dict[str, Any] = {}
    if separator not in (None, ","):
        dialect["separator"] = "tab" if separator == "\t" else separator
    return dialect | ({"decimal": ","} if found.table.decimal == "," else {})


@contextmanager
def _naming_group(guessed: str | None) -> Iterator[None]:
    """Has errors about groups say that a column was taken for the group by its name alone."""
    try:
        yield
    except MMNASError as error:
        if guessed is not None and "group" in str(error):
            text = f"{error}; column {guessed!r} was taken for the group by its name: --no-group leaves that"
            error.args = (text, *error.args[1:])
        raise


def _task(found: Proposal, separator: str | None, task: Choice | None) -> tuple[Choice | None, str | None]:
    """What the labels are, and what is to be told about it; None: there are none."""
    from lightning_mmnas.commands.init.task import task_of

    label = found.special.get("label")
    if label is None:
        if task is not None:
            raise ConfigError(f"--task {task} needs labels; give their column as --label")
        return None, None
    if task is not None or separator is not None:
        return task, None
    return task_of(found.table, label)


def _with_pretrained(found: Proposal) -> Proposal:
    """The modalities as pretrained encoders want them, texts measured in the tokens of their model."""
    from lightning_mmnas.commands.init.pretrained import with_pretrained
    from lightning_mmnas.commands.init.sizes import measure

    columns = dict(found.columns)
    for name, spec in with_pretrained(found.specs).items():
        before = found.columns[name]
        if spec != before.spec:
            spec = replace(spec, **{setting: getattr(before.spec, setting) for setting in before.given})
            given = {*before.given, "tokenizer" if spec.kind == "text" else "size"}
            columns[name] = measure(found.table, spec, found.folder, given)
    return replace(found, columns=columns)


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
        way = f"{'leave split out to have it drawn' if data.split else 'label more rows'}, or leave label out"
        for part in ("train", "val", "test"):
            known = data.source(part).labels
            if known is None or not bool(labelled_rows(known, data.task).any()):
                raise DataError(f"{data.path}: the {part} split has no labelled row; {way}")
        labels = train.labels
        if labels is not None:
            there = labels[labelled_rows(labels, data.task)]
            counts = {} if data.task == "regression" else _counts(data, there)
            labelled = len(there)
        if data.task != "regression" and len([count for count in counts.values() if count]) < 2:
            empty = "" if data.label is None else data.content.spelt_empty([data.label])
            raise DataError(f"{data.path}: the training rows are of {list(counts)} only{empty}; leave label out")
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
