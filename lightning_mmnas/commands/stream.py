"""`mmnas stream`: a data set as shards, to be streamed from a disk or from a cloud's storage."""

from __future__ import annotations

import argparse
import shlex
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_mmnas.commands.init.command import add_table_options, read_columns
from lightning_mmnas.commands.parser import Parser
from lightning_mmnas.commands.stages import TABLES
from lightning_mmnas.errors import ConfigError, DataError

if TYPE_CHECKING:
    from lightning_mmnas.commands.init.columns import Proposal
    from lightning_mmnas.data.base import MultimodalDataModule

_OF_TABLES = (
    *("label", "label_separator", "split", "group", "id", "modality", "missing", "on_error"),
    *("without", "without_roles", "files_from", "separator", "decimal", "header", "empty"),
)


def command(args: Sequence[str]) -> None:
    """Runs `mmnas stream` with the rest of the command line.

    Raises:
        ConfigError: An option or the configuration is wrong.
        DataError: The table or its files cannot be used.
        RunDirectoryError: The folder exists, or cannot be written.
        MissingExtraError: LitData is needed.
    """
    parser = Parser(
        prog="mmnas stream",
        description="Writes the samples of a table (.csv, .jsonl or .parquet) or of a configuration's data as shards: "
        "a few large files, which StreamDataModule reads a few at a time from a disk or from s3://, gs:// or hf://. "
        "A table's columns are taken as by mmnas init; of a configuration, further options override it.",
        allow_abbrev=False,
    )
    parser.add_argument("table", metavar="TABLE", help="a table; or a stage's configuration, or a folder of them")
    parser.add_argument("--output", required=True, metavar="DIR", help="new folder of shards")
    parser.add_argument(
        "--files",
        choices=["auto", "encoded", "decoded"],
        default="auto",
        help="store files as they are, as the tensors they become, or as what is smaller (default: auto)",
    )
    parser.add_argument("--shard-bytes", type=int, default=64_000_000, metavar="N", help="default: 64000000")
    parser.add_argument("--seed", type=int, default=0, help="of drawn splits and of the order (default: 0)")
    add_table_options(parser)
    options, overrides = parser.parse_known_args(list(args))
    if not 0 <= options.seed < 2**32:
        raise ConfigError(f"--seed must be from 0 to 4294967295, got {options.seed}")
    from rich.console import Console
    from rich.progress import Progress

    from lightning_mmnas.commands.versions import versions
    from lightning_mmnas.data.stream.writing import left_behind, write_shards

    console = Console()

    def say(line: str) -> None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        is_table = Path(options.table).suffix.lower() in TABLES
        data, notes = _table(options, overrides) if is_table else _configured(parser, options, overrides)
        for note in notes:
            say(note)
        for path in left_behind(Path(options.output)):
            what = f"{path} is of a writing of {options.output} that was killed, or still runs"
            say(f"note: {what}; if none runs, delete it")
        made_by = {"command": shlex.join(["mmnas", "stream", *args]), "versions": versions("litdata")}
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task("writing", total=None)
            written = write_shards(
                data,
                Path(options.output),
                files=options.files,
                shard_bytes=options.shard_bytes,
                seed=options.seed,
                made_by=made_by,
                advance=lambda done: progress.advance(task, done),
            )
    for text in dict.fromkeys(str(w.message) for w in told if issubclass(w.category, UserWarning)):
        say(f"note: {text}")
    for name, (form, size) in written.forms.items():
        say(f"{name}: {form}, {size:,.0f} bytes per sample")
    splits = [
        f"{name} {split.samples:,} samples in {len(split.checksums):,} shards of {split.bytes / 1e6:,.1f} MB in all"
        for name, split in written.index.splits.items()
    ]
    say(f"wrote {options.output}: " + "; ".join(splits))
    say(f"next: data: {{class_path: StreamDataModule, init_args: {{shards: {Path(options.output).resolve()}}}}}")


def _table(options: argparse.Namespace, unknown: list[str]) -> tuple[MultimodalDataModule, list[str]]:
    """The data module of a table, and what was taken for what."""
    from lightning_mmnas.commands.init.telling import told
    from lightning_mmnas.data.table.data_module import TableDataModule

    if unknown:
        raise ConfigError(f"unrecognized arguments: {' '.join(unknown)}; see mmnas stream --help")
    special: dict[str, str | None] = {name: getattr(options, name) for name in ("label", "split", "group", "id")}
    reading = {name: getattr(options, name) for name in ("separator", "decimal", "header", "empty")}
    found = read_columns(
        options.table, special, options.modality, options.without, options.without_roles, options.files_from, reading
    )
    _refuse_amounts(found)
    data = TableDataModule(
        options.table,
        found.specs,
        label=found.special.get("label"),
        split=found.special.get("split"),
        group=found.special.get("group"),
        id=found.special.get("id"),
        files_from=options.files_from,
        label_separator=options.label_separator,
        missing=options.missing,
        on_error=options.on_error,
        split_seed=options.seed,
        **reading,
        labels=False,  # this leaves no sample out for having none; what labels there are is written
    )
    given = {role: column for role, column in special.items() if column is not None}
    notes = [f"{role} of each row: column {column!r}" for role, column in given.items()]
    notes += told(found)
    return data, notes


def _refuse_amounts(found: Proposal) -> None:
    """Refuses labels that mmnas init would have predicted as numbers; where it would ask, classes are tried."""
    from lightning_mmnas.commands.init.task import task_of

    if (label := found.special.get("label")) is None:
        return
    with suppress(ConfigError):
        if task_of(found.table, label)[0] == "classes":
            return
        raise DataError(
            f"shards hold classes, and column {label!r} holds amounts: leave it out (--no-label), or train from the "
            "table itself (mmnas init)"
        )


def _configured(
    parser: Parser, options: argparse.Namespace, overrides: list[str]
) -> tuple[MultimodalDataModule, list[str]]:
    """The data module of a configuration; it says itself how a table is read."""
    for name in _OF_TABLES:
        if getattr(options, name) != parser.get_default(name):
            raise ConfigError(f"--{name.replace('_', '-')} is for tables; a configuration says it below data.init_args")
    from lightning_mmnas.commands.data_summary import build_data, parse_config, stage_configs

    data = build_data(parse_config(stage_configs(options.table)[-1], overrides))
    data.labels = False
    return data, []
