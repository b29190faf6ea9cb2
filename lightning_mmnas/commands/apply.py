"""`mmnas predict`, `mmnas embed` and `mmnas evaluate`: a delivered model on new data."""

from __future__ import annotations

import math
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_mmnas.commands.parser import Parser, check_run, path_hint
from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.files import write_json

if TYPE_CHECKING:
    from lightning_mmnas.delivery.model import DeliveredModel
    from lightning_mmnas.delivery.samples import Chunk
    from lightning_mmnas.delivery.splits import SplitData

_SPLITS = ("train", "val", "test")
_TABLE = (
    "a table (.csv, .jsonl, .parquet) with the columns of training, a folder with it or with one folder of files per "
    "modality, or a split of the run's data: train, val, test"
)


def predict(args: list[str]) -> None:
    """Runs `mmnas predict RUN TABLE --output FILE`."""
    parser = _parser(
        "predict",
        "Writes the class of every sample, the probabilities of all classes, and the columns that tell which sample it "
        "is; of a regression the target of every sample in its own unit. For Lightning's own: mmnas predict --config "
        "FILE --ckpt_path FILE.",
    )
    _add_output(parser, "a .csv or .parquet file")
    parser.add_argument("--embeddings", action="store_true", help="write the fusion network's vectors, too")
    options = parser.parse_args(args)
    _write(options, probabilities=True, embeddings=options.embeddings)


def embed(args: list[str]) -> None:
    """Runs `mmnas embed RUN TABLE --output FILE`."""
    parser = _parser("embed", "Writes the fusion network's vector of every sample.")
    _add_output(parser, "a .csv, .parquet or .npy file; .npy has the vectors alone")
    _write(parser.parse_args(args), probabilities=False, embeddings=True)


def evaluate(args: list[str]) -> None:
    """Runs `mmnas evaluate RUN TABLE`."""
    parser = _parser(
        "evaluate", "Prints the scores on samples whose classes (or targets) are known, and where the errors are."
    )
    parser.add_argument(
        "--label", metavar="COLUMN", help="column of the classes or targets (default: that of training)"
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="a .json file for all of it")
    options = parser.parse_args(args)
    if options.output is not None and options.output.suffix.lower() != ".json":
        raise ConfigError(f"the suffix of {options.output} is not .json; check --output")
    from rich.console import Console

    from lightning_mmnas.delivery.splits import SplitData
    from lightning_mmnas.report.scores import render_scores

    model = _load(options)
    data, total = _data(model, options.table, labelled=True)
    with _progress(total) as advance:
        given = data.loader if isinstance(data, SplitData) else data
        scores = model.evaluate(given, label=options.label, advance=advance, **_options(options))
    Console().print(render_scores(scores))
    if options.output is not None:
        finite = {name: value if math.isfinite(value) else None for name, value in scores["metrics"].items()}
        write_json(options.output, {"model": str(options.run), "data": str(options.table), **scores, "metrics": finite})
        print(f"written to {options.output}")


def _parser(name: str, description: str) -> Parser:
    parser = Parser(prog=f"mmnas {name}", description=description, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="the folder that `mmnas run` made, or its folder model")
    parser.add_argument("table", metavar="TABLE", help=_TABLE)
    parser.add_argument(
        "--modality",
        action="append",
        default=[],
        metavar="NAME=COLUMN",
        help="a modality that lies in another column than in training (NAME=COLUMN,COLUMN for several); repeatable",
    )
    parser.add_argument(
        "--files_from",
        "--files-from",
        metavar="FOLDER",
        help="what the table names files relative to (default: as given in training, else the table's folder)",
    )
    parser.add_argument("--batch_size", type=int, default=256, help="samples at once (default: 256)")
    parser.add_argument(
        "--on_error",
        choices=["raise", "skip"],
        help="what a sample that cannot be read does: stop, or leave its prediction empty (default: as in training)",
    )
    parser.add_argument("--device", default="cpu", help="where to compute: cpu, cuda, mps, ... (default: cpu)")
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="CLASS_PATH",
        help="a class of your own that the model may use, or a package; repeatable",
    )
    return parser


def _add_output(parser: Parser, what: str) -> None:
    parser.add_argument("--output", type=Path, required=True, metavar="FILE", help=what)
    parser.add_argument(
        "--keep",
        action="append",
        default=[],
        metavar="COLUMN",
        help="a column of the table to be written, too (default: the id and group of training); repeatable",
    )


def _load(options: Namespace) -> DeliveredModel:
    import torch

    from lightning_mmnas.delivery.loading import load

    check_run(options.run)
    try:
        device = torch.device(options.device)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"there is no device {options.device!r} here: {reason}; check --device") from None
    return load(options.run, device=device, allow=options.allow)


def _options(options: Namespace) -> dict[str, Any]:
    from lightning_mmnas.commands.init.modality import parted

    columns = {}
    for text in options.modality:
        name, separator, listed = text.partition("=")
        names = parted(listed, text)
        if not separator or not names:
            raise ConfigError(f"--modality {text!r} is not NAME=COLUMN")
        columns[name.strip()] = names
    return {
        "columns": columns,
        "batch_size": options.batch_size,
        "on_error": options.on_error,
        "files_from": options.files_from,
    }


def _data(model: DeliveredModel, table: str, labelled: bool = False) -> tuple[Path | SplitData, int | None]:
    """What to predict, and the number of samples where it is known at once."""
    if table in _SPLITS and not Path(table).exists():
        from lightning_mmnas.delivery.splits import open_split

        split = open_split(model.card, table, model.allow, labelled)  # type: ignore[arg-type]
        return split, len(split.loader.dataset)  # type: ignore[arg-type]
    path = Path(table)
    if not path.exists():
        hint = path_hint(table, _SPLITS)
        raise DataError(f"there is no table {table}, and it is no split of the run's data ({', '.join(_SPLITS)}){hint}")
    if path.suffix.lower() == ".csv":
        with path.open("rb") as file:
            return path, sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    return path, None


def _write(options: Namespace, probabilities: bool, embeddings: bool) -> None:
    from lightning_mmnas.delivery.outputs import SUFFIXES, open_output
    from lightning_mmnas.report.budgets import counted

    model = _load(options)
    data, total = _data(model, options.table)
    if isinstance(data, Path) and data.exists() and options.output.exists() and options.output.samefile(data):
        raise ConfigError(f"--output {options.output} is the table itself; choose another file")
    names = model.class_names
    count = skipped = 0

    def compute(batch: Any) -> dict[str, Any]:
        features = model.encoders(batch)
        found = {}
        if probabilities:
            found["values"] = model.values(model.classifier.logits(features))
        if embeddings:
            found["vectors"] = model.network(features).float()
        return found

    array = options.output.suffix.lower() == ".npy"
    if array and options.keep:
        raise ConfigError("a .npy file has the vectors alone; leave out --keep, or choose a .csv or .parquet file")
    accepted = [suffix for suffix in SUFFIXES if suffix != ".npy" or not probabilities]
    with open_output(options.output, accepted) as output, _progress(total) as advance:
        split = None if isinstance(data, Path) else data
        given = data if split is None else split.loader
        _, chunks = model.chunks(given, compute, **_options(options))
        for chunk, values in chunks:
            size = len(chunk.rows) or len(chunk.usable)
            kept = {} if array else _kept(model, chunk, split, count, options.keep)
            columns: dict[str, Any] = {}
            if probabilities:
                table = model.whole_tensor(chunk, values["values"]).numpy()
            if probabilities and model.task == "regression":
                columns["prediction"] = table[:, 0]
            elif probabilities:
                chosen = model.whole(chunk, model.decide(values["values"]), None)
                columns["class"] = [_joined(model, one) for one in chosen]
                columns |= {f"probability:{name}": table[:, i] for i, name in enumerate(names)}
            if embeddings:
                vectors = model.whole_tensor(chunk, values["vectors"]).numpy()
                columns |= {f"embedding:{i}": vectors[:, i] for i in range(vectors.shape[1])}
            known = {f"table:{name}" if name in columns else name: cells for name, cells in kept.items()}
            output.write({**known, **columns})
            count += size
            skipped += size - len(chunk.usable)
            advance(size)
    empty = f", {skipped} of them empty: they could not be read" if skipped else ""
    print(f"{counted(count, 'sample')} written to {options.output}{empty}")


def _kept(
    model: DeliveredModel, chunk: Chunk, split: SplitData | None, count: int, keep: Sequence[str]
) -> dict[str, Any]:
    """The columns that tell which sample it is: those asked for, else id and group of training, else a number."""
    size = len(chunk.rows) or len(chunk.usable)
    content = None if split is None else split.table
    if split is not None and content is None and keep:
        raise ConfigError("a split of data that are no table has no columns to keep; check --keep")
    there = list(chunk.rows[0].cells) if chunk.rows else [] if content is None else content.names
    if unknown := [name for name in keep if name not in there]:
        raise ConfigError(f"there is no column {unknown[0]!r} to keep in {there}; check --keep")
    table = model.card.table
    known = [name for name in (table.id, table.group) if name] if table is not None else []
    names = list(keep) or [name for name in known or ["file"] if name in there]
    if not names:
        rows = range(count, count + size) if split is None or split.rows is None else split.rows[count : count + size]
        return {"row": list(rows)}
    if split is not None:
        return {name: split.cells(name, count, size) for name in names}
    return {name: [row.cells.get(name) for row in chunk.rows] for name in names}


def _joined(model: DeliveredModel, chosen: Any) -> str | None:
    if not isinstance(chosen, list):
        return None if chosen is None else str(chosen)
    table = model.card.table
    return ((table.label_separator if table is not None else None) or "|").join(chosen)


@contextmanager
def _progress(total: int | None) -> Iterator[Any]:
    """A bar on a terminal, on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    columns = [TextColumn("samples"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("samples", total=total)
        yield lambda size: progress.advance(task, size)
