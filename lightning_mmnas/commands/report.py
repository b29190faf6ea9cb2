"""`mmnas report`: the page of a finished run, or of several runs beside each other."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

from lightning_mmnas.commands.parser import Parser, check_run
from lightning_mmnas.errors import ConfigError, RunDirectoryError
from lightning_mmnas.files import read_json, write_json

REPORT, ANALYSIS, PICTURES = "report.html", "analysis.json", "pictures"
_log = logging.getLogger(__name__)


def command(args: list[str]) -> None:
    """Runs `mmnas report`.

    Raises:
        ConfigError: A folder is given twice.
        RunDirectoryError: A folder is no finished run, or the report cannot be written.
    """
    parser = Parser(
        prog="mmnas report",
        description="Makes report.html of a finished run again, or with several runs one page that compares them. "
        "What the model was asked is kept in analysis.json, so that a second time takes seconds and needs no data.",
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", help="folders of finished runs", metavar="RUN")
    parser.add_argument("--output", help="the HTML file (default: RUN/report.html; of several comparison.html)")
    parser.add_argument("--again", action="store_true", help="look at the model and the data once more")
    options = parser.parse_args(args)
    runs = [Path(run) for run in options.runs]
    if len({run.resolve() for run in runs}) < len(runs):
        raise ConfigError(f"a run is given twice: {options.runs}")
    if options.output and Path(options.output).suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"the suffix of {options.output} is not .html; check --output")
    for run in runs:
        check_run(run)
    strict = os.environ.get("MMNAS_DEBUG", "0") not in ("", "0")
    if len(runs) == 1:
        path = make_report(runs[0], options.output, again=options.again, strict=strict)
    else:
        path = compare_runs(runs, Path(options.output or "comparison.html"), again=options.again, strict=strict)
    print(f"wrote {path}")


def make_report(
    run_dir: str | Path, output: str | Path | None = None, *, again: bool = False, strict: bool = False
) -> Path:
    """Writes `analysis.json`, `report.html` and `pictures/` of a finished run.

    Args:
        run_dir: Folder of the run.
        output: Another path of the HTML file.
        again: Looks at the model again although `analysis.json` knows it.
        strict: Whether a section that fails raises, in place of a warning.

    Returns:
        Path of the HTML file.

    Raises:
        RunDirectoryError: It is no finished run, or a file cannot be written.
    """
    from lightning_mmnas.report.progress import activity

    run_dir = Path(run_dir)
    path = Path(output) if output is not None else run_dir / REPORT
    with activity("making the report"):
        from lightning_mmnas.report.page import run_page, write_page

        facts = analyse(run_dir, again=again, strict=strict)
        page = run_page(facts, run_dir.resolve().name, strict)
        write_page(page, path, run_dir / PICTURES)
    return path


def analyse(run_dir: Path, *, again: bool = False, strict: bool = False) -> dict[str, Any]:
    """Gathers the facts of a run and writes them to `analysis.json`; see `make_report`."""
    from lightning_mmnas.report.facts import read_facts

    facts = read_facts(run_dir)
    try:
        before = read_json(run_dir / ANALYSIS) or {}
    except RunDirectoryError:  # damaged; made anew
        before = {}
    facts["memory"] = before.get("memory")
    known = before.get("model") if before.get("stages") == facts["stages"] else None
    if not isinstance(known, dict) or known.get("metric") not in (known.get("scores") or ()):
        known = None
    found, why = (known, None) if known is not None and not again else _look(run_dir, strict)
    if found is None and known is not None:
        _log.warning("%s What %s knew of it is kept.", why, run_dir / ANALYSIS)
        found, why = known, None
    facts["model"], facts["why_no_model"] = found, why
    write_json(run_dir / ANALYSIS, facts)
    return facts


def report_after_run(run_dir: Path) -> Path | None:
    """The report at the end of `mmnas run`, which must not lose a finished run: a failure is a warning."""
    try:
        _note_memory(run_dir)
        return make_report(run_dir)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        _log.warning("no report: %s; mmnas report %s makes it", reason, run_dir)
        return None


def compare_runs(runs: list[Path], output: Path, *, again: bool = False, strict: bool = False) -> Path:
    """Writes one page about several finished runs, its pictures in `pictures` beside it; see `make_report`."""
    from lightning_mmnas.report.facts import read_facts
    from lightning_mmnas.report.progress import activity

    for run in runs:  # mistakes are told before anything is looked at
        read_facts(run)
    with activity("making the report", len(runs), "runs") as shown:
        from lightning_mmnas.report.page import write_page
        from lightning_mmnas.report.runs import runs_page

        facts = []
        for run in runs:
            facts.append(analyse(run, again=again, strict=strict))
            shown.advance()
        write_page(runs_page(_names(runs), facts, strict), output, output.parent / f"{output.stem}-{PICTURES}")
    return output


def _look(run_dir: Path, strict: bool) -> tuple[dict[str, Any] | None, str | None]:
    """What the model of a run shows, or why nothing was looked at."""
    from lightning_mmnas.commands.inspection import inspect_run

    try:
        return inspect_run(run_dir)
    except Exception as error:
        if strict:
            raise
        _log.warning("the report goes without the model: %s: %s", type(error).__name__, error)
        return None, f"The model of this run could not be looked at ({type(error).__name__})."


def _note_memory(run_dir: Path) -> None:
    """Keeps the most memory that this process has had, in bytes, and that of the accelerator."""
    import torch

    found: dict[str, int] = {}
    if sys.platform != "win32":
        import resource

        unit = 1 if sys.platform == "darwin" else 1024
        found["process"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available():
        found["accelerator"] = torch.cuda.max_memory_allocated()
    path = run_dir / ANALYSIS
    before = read_json(path) or {}
    kept: dict[str, int] = before.get("memory") or {}
    before["memory"] = {name: max(value, kept.get(name, 0)) for name, value in found.items()}
    write_json(path, before)


def _names(runs: list[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    parts = [run.resolve().parts for run in runs]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            break
    return names
