"""What a finished run has written, read into one value of plain numbers and texts for `analysis.json`."""

from __future__ import annotations

import csv
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

from lightning_mmnas.errors import RunDirectoryError
from lightning_mmnas.files import read_json
from lightning_mmnas.report.verdicts import verdicts

Facts = dict[str, Any]

STAGES = ("encoders", "search", "pretrain", "finetune")
_KEPT = ("seed", "command", "versions", "stages", "comparison_seconds", "total_seconds", "parameters", "space_size")


def read_facts(run_dir: Path) -> Facts:
    """Reads results, metrics of all stages, weights of the search, candidates and configurations; not the model.

    Args:
        run_dir: Folder of a finished run; it may have been moved.

    Raises:
        RunDirectoryError: It is no run, an unfinished one, or a file of it is damaged.
    """
    if not run_dir.is_dir():
        raise RunDirectoryError(f"there is no folder {run_dir}; give the --output of a finished mmnas run")
    results = read_json(run_dir / "results.json")
    if results is None or not isinstance(results.get("stages"), dict):
        if (run_dir / "manifest.json").is_file():
            unfinished = [name for name in ("search", "pretrain", "finetune") if not _done(run_dir / name)]
            where = f" (to do: {', '.join(unfinished)})" if unfinished else ""
            raise RunDirectoryError(f"the run in {run_dir} is not finished{where}; run its mmnas run command again")
        raise RunDirectoryError(f"{run_dir} is not the folder of a run: it has no results.json of mmnas run")
    comparison = results.get("comparison") or []
    sentences = _verdicts(comparison)
    if sentences is None or not _is_whole(results):
        raise RunDirectoryError(
            f"{run_dir / 'results.json'} is damaged; its mmnas run command makes it again from the finished stages"
        )
    selection = read_json(run_dir / "genotype.selection.json")
    return {
        "schema_version": 1,
        **{name: results.get(name) for name in _KEPT},
        "commands": {name: (read_json(run_dir / name / "done.json") or {}).get("command") for name in STAGES},
        "genotype": results.get("genotype"),
        "comparison": comparison,
        "verdicts": sentences,
        "curves": {name: found for name in STAGES if (found := read_curves(run_dir / name))},
        "architecture": read_json(run_dir / "genotype.weights.json"),
        "selection": selection,
        "configs": {
            name: path.read_text(encoding="utf-8", errors="replace")
            for name in STAGES
            if (path := run_dir / name / "config.yaml").is_file()
        },
    }


def read_curves(stage: Path) -> dict[str, list[list[float]]]:
    """Metrics of a stage by name, each as [epoch, value] in order; of an epoch logged twice, the later value.

    Args:
        stage: Folder of the stage, with what Lightning's `CSVLogger` has left below it.
    """
    found: dict[str, dict[float, float]] = {}
    for path in sorted(stage.rglob("metrics.csv"), key=lambda path: (path.stat().st_mtime, str(path))):
        # Of a log that a failing disk has damaged, the rest is read.
        with path.open(encoding="utf-8", errors="replace", newline="") as file, suppress(csv.Error):
            for row in csv.DictReader(file):
                epoch = _number(row.get("epoch"))
                for name, text in row.items():
                    value = _number(text)
                    if epoch is not None and value is not None and name not in ("epoch", "step"):
                        found.setdefault(str(name), {})[epoch] = value
    return {name: [[epoch, points[epoch]] for epoch in sorted(points)] for name, points in sorted(found.items())}


def _verdicts(comparison: Any) -> list[str] | None:
    """What the rows of a comparison say; None where they are no such rows."""
    try:
        return verdicts(comparison)
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _is_whole(results: Facts) -> bool:
    """Whether what every page shows is of its kind; a section that lacks something is left out later."""
    return isinstance(results.get("total_seconds"), int | float) and isinstance(results.get("parameters"), dict)


def _number(text: Any) -> float | None:
    try:
        value = float(text)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


def _done(stage: Path) -> bool:
    return (stage / "done.json").is_file()
