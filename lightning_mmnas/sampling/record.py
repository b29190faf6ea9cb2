"""What a search without gradients leaves in its folder: the best genotypes, and every trial."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import write_bytes, write_json, write_text
from lightning_mmnas.parsing import parse_json
from lightning_mmnas.sampling.study import FusionStudy, SampledNetwork

RECORD = "trials.json"


def claim(folder: Path, facts: Mapping[str, Any] | None = None) -> None:
    """Makes a folder, or checks that it may hold the results of a study.

    Args:
        folder: Where the results will be.
        facts: What the study is about; None: not yet known.

    Raises:
        RunDirectoryError: It cannot be made, or holds a genotype or trials of something else.
    """
    record = folder / RECORD
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "it is a file" if folder.is_file() else error.strerror
        raise RunDirectoryError(f"cannot make the folder {folder}: {reason}; choose another --output") from error
    if not record.is_file():
        found = sorted(path.name for path in folder.glob("genotype*.json"))
        if found:
            raise RunDirectoryError(f"{folder} holds {found[0]} of something else; choose another --output")
        return
    try:
        known = parse_json(record.read_text(encoding="utf-8"))["facts"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        genotypes = " ".join(str(path) for path in sorted(folder.glob("genotype*.json")))
        raise RunDirectoryError(
            f"cannot read {record}: {error!r}; the trials are in the study: delete {record} {genotypes} to have them "
            "written again, or choose another --output"
        ) from error
    if facts is not None and known != json.loads(json.dumps(facts)):
        raise RunDirectoryError(f"{folder} holds the trials of another search; choose another --output")


def write(folder: Path, study: FusionStudy, how: Mapping[str, Any]) -> None:
    """Writes the best genotypes (of one objective with its picture), ``trials.json`` and ``trials.csv``.

    Args:
        folder: Where to.
        study: The study, with or without finished trials.
        how: How it was made: command, versions, ...
    """
    networks = study.networks()
    write_trials(folder, study, how)
    write_best(folder, study)
    write_text(folder / "trials.csv", _csv(study, networks))
    if len(study.objectives) == 1 and (best := study.best()):
        from lightning_mmnas.report.architecture import plot_genotype

        picture = BytesIO()
        plot_genotype(best[0].genotype).savefig(picture, format="png", dpi=150)
        write_bytes(folder / "genotype.png", picture.getvalue())


def write_trials(folder: Path, study: FusionStudy, how: Mapping[str, Any]) -> None:
    """Writes ``trials.json``, by which the same search knows its folder again."""
    write_json(
        folder / RECORD,
        {
            **how,
            "facts": study.facts,
            "best": [network.number for network in study.best()],
            "trials": [_entry(study, network) for network in study.networks()],
        },
    )


def write_best(folder: Path, study: FusionStudy) -> None:
    """Writes ``genotype.json``; of several objectives ``genotypes_0.json``, ..., in the order of the first one."""
    best = study.best()
    several = len(study.objectives) > 1
    names = [f"genotypes_{i}.json" if several else "genotype.json" for i in range(len(best))]
    for name, network in zip(names, best, strict=True):
        write_text(folder / name, network.genotype.to_json() + "\n")
    for path in folder.glob("genotypes_*.json"):
        if path.name not in names:
            path.unlink()


def render_best(study: FusionStudy) -> Table:
    """The best networks as a table for the terminal."""
    best = study.best()
    title = "Networks that no other beats in everything" if len(study.objectives) > 1 else "Best network"
    table = Table(title=title, title_justify="left")
    table.add_column("trial", justify="right")
    for name in study.objectives:
        table.add_column(name, justify="right")
    table.add_column("network")
    for network in best:
        numbers = [number(value) for value in network.values or ()]
        table.add_row(str(network.number), *numbers, Text(network.genotype.describe()))
    return table


def number(value: float) -> str:
    """A measure for the terminal: whole numbers as such, others with four decimals."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4f}"


def _entry(study: FusionStudy, network: SampledNetwork) -> dict[str, Any]:
    values = None if network.values is None else dict(zip(study.objectives, network.values, strict=True))
    return {
        "number": network.number,
        "values": values,
        "measured": dict(network.measured),
        "seconds": network.seconds,
        "same_as": network.same_as,
        "genotype": json.loads(network.genotype.to_json()),
    }


def _csv(study: FusionStudy, networks: Sequence[SampledNetwork]) -> str:
    measures = list(dict.fromkeys(name for network in networks for name in network.measured))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["number", "state", *measures, "seconds", "same_as", "genotype"])
    for network in networks:
        state = "pruned" if network.values is None else "complete"
        measured = [network.measured.get(name) for name in measures]
        genotype = network.genotype.to_json(indent=None)
        writer.writerow([network.number, state, *measured, network.seconds, network.same_as, genotype])
    return text.getvalue()
