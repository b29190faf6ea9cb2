"""Run directories as `mmnas run` leaves them, made without training."""

from pathlib import Path

from lightning_mmnas.commands.aside import OUTPUTS
from lightning_mmnas.commands.changes import MANIFEST, digest_of, make_manifest
from lightning_mmnas.commands.stages import ORDER, Stage
from lightning_mmnas.files import write_json, write_text


def stages_with(**settings: int) -> list[Stage]:
    """Stages that differ in one setting each, 0 unless told otherwise."""
    return [Stage(name, Path(f"{name}.yaml"), settings={"x": settings.get(name, 0)}) for name in ORDER]


def finish(run_dir: Path, stage: Stage, mark: str) -> None:
    """What a stage leaves, each file with a mark in it."""
    write_text(run_dir / stage.name / "checkpoints" / "last.ckpt", mark)
    write_text(run_dir / stage.name / "config.yaml", f"run_dir: {run_dir}\npath: ${{run_dir}}/{stage.name}\n")
    record = {"digest": digest_of(stage.settings), "seconds": 1.0, "results": {}, "genotype": stage.name == "search"}
    for name in OUTPUTS.get(stage.name, ()):
        write_text(run_dir / name.replace("*", ".json" if name == "report*" else "json"), mark)
    write_json(run_dir / stage.name / "done.json", record)


def make_run(run_dir: Path, stages: list[Stage], finished: int = 5, mark: str = "old") -> None:
    """A run whose first stages are finished."""
    write_json(run_dir / MANIFEST, make_manifest(stages, 0))
    for stage in stages[:finished]:
        finish(run_dir, stage, mark)
    if finished:
        write_text(run_dir / "features" / "shard.npy", mark)


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with its text."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in paths}
