"""`mmnas run` on the watch recordings, with every stage cut short."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

import lightning_mmnas
from lightning_mmnas import Genotype
from lightning_mmnas.callbacks.progress import quiet
from lightning_mmnas.commands.inspection import inspect_run
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.run import run
from lightning_mmnas.commands.stages import find_configs
from lightning_mmnas.data.watch import load_watch
from lightning_mmnas.errors import ConfigError, MissingExtraError, RunDirectoryError
from tests.test_configs import few_candidates

try:
    load_watch()
except MissingExtraError as error:
    pytest.skip(str(error), allow_module_level=True)

pytestmark = pytest.mark.slow

SHORT = ["--trainer.max_epochs", "1", "--data.init_args.stride", "256", "--data.init_args.batch_size", "64"]

SILENT = {"logger": False, "enable_progress_bar": False}


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped configurations with a short search, few candidates and a small comparison."""
    folder = tmp_path_factory.mktemp("configs") / "watch"
    shutil.copytree(find_configs("watch"), folder)
    search = (folder / "search.yaml").read_text()
    assert "warmup_epochs: 3" in search
    (folder / "search.yaml").write_text(search.replace("warmup_epochs: 3", "warmup_epochs: 0"))
    few_candidates(folder / "search.yaml")
    settings = {"labels_per_class": [2], "draws": 2, "random_architectures": 2, "steps": 2, "steps_all": 2}
    (folder / "comparison.yaml").write_text(json.dumps(settings))
    return folder


def short_run(configs: Path, output: Path, seed: int = 0) -> tuple[dict[str, Any], str]:
    console = Console(file=io.StringIO(), width=100)
    results = run(configs, output, seed=seed, overrides=SHORT, console=console)
    assert isinstance(console.file, io.StringIO)
    return results, console.file.getvalue()


def without_times(results: Any) -> Any:
    if isinstance(results, dict):
        return {name: without_times(value) for name, value in results.items() if "seconds" not in name}
    return [without_times(value) for value in results] if isinstance(results, list) else results


@pytest.fixture(scope="module")
def finished(configs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A finished run: its folder, results and what it printed."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    return folder, *short_run(configs, folder)


def test_two_runs_with_one_seed_are_equal_but_for_times(
    configs: Path, finished: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    folder, first, text = finished
    second, _ = short_run(configs, tmp_path / "second")
    assert without_times(first) == without_times(second)
    assert without_times(first) == without_times(json.loads((folder / "results.json").read_text()))

    assert first["space_size"] == 5100
    assert first["search"]["architecture_steps"] > 0
    assert 0 < first["search"]["entropy"] < 1
    assert all(first["parameters"][name] > 1000 for name in ("supernet", "network"))
    names = {row["name"] for row in first["comparison"]}
    assert {"found+ssl", "found", "random+ssl", "raw_features", "modality:accelerometer"} <= names
    assert "At 2 labels per class, 2 draws: the found network (" in " ".join(text.split())
    genotype = Genotype.load(folder / "genotype.json")
    assert genotype.modalities_read() == {"accelerometer", "gyroscope"}
    assert json.loads(genotype.to_json()) == first["genotype"]
    assert (folder / "genotype.png").read_bytes().startswith(b"\x89PNG")

    # what is shown is what is delivered, wherever the run lies
    shown = next(row for row in first["comparison"] if row["name"] == "delivered")
    moved = (tmp_path / "second").rename(tmp_path / "moved")
    model = lightning_mmnas.load(moved)
    assert model.evaluate(model.data("test"))["metrics"]["accuracy"] == pytest.approx(shown["mean"])
    assert shown["labels_per_class"] == "all"
    assert first["model"]["samples"] == model.card.labels.samples > 20 * len(model.class_names)
    assert first["model"]["checkpoint"] == "finetune/checkpoints/best.ckpt"
    assert main(["predict", str(moved), "test", "--output", str(tmp_path / "p.csv")]) == 0
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 1 + len(model.predict(model.data("test")))

    with pytest.raises(RunDirectoryError, match="seed"):
        short_run(configs, folder, seed=1)
    assert without_times(json.loads((folder / "results.json").read_text())) == without_times(first)


def test_the_report_of_a_run_is_of_its_model(finished: tuple[Path, dict[str, Any], str], tmp_path: Path) -> None:
    folder, _, text = finished
    assert f"report in {folder / 'report.html'}" in text
    assert "Left out" not in (folder / "report.html").read_text()
    facts = json.loads((folder / "analysis.json").read_text())
    found = facts["model"]
    confusion = torch.tensor(found["confusion"])
    assert int(confusion.sum()) == found["samples"]["shown"] == found["samples"]["test"]
    assert found["scores"]["accuracy"] == pytest.approx(float(confusion.trace() / confusion.sum()))
    assert facts["architecture"]["epochs"][0]["weights"].keys() >= {"cell0 x", "cell0 y", "cell0 step0"}

    # A test epoch of Lightning's, of the same weights, says the same.
    last, config = folder / "finetune" / "checkpoints" / "best.ckpt", tmp_path / "config.yaml"
    content = yaml.safe_load((folder / "finetune" / "config.yaml").read_text())
    config.write_text(yaml.safe_dump({k: v for k, v in content.items() if k not in ("ckpt_path", "weights_only")}))
    with quiet():
        cli = MMNASCLI(["--config", str(config)], run=False, save_config_callback=None, trainer_defaults=SILENT)
        metrics = cli.trainer.test(cli.model, cli.datamodule, ckpt_path=str(last), verbose=False)[0]
    assert found["scores"]["accuracy"] == pytest.approx(metrics["test/accuracy"], abs=1e-6)
    shutil.copytree(folder, moved := tmp_path / "moved")
    shutil.rmtree(moved / "pictures")
    model, reason = inspect_run(moved)
    assert reason is None
    assert model is not None
    assert model["confusion"] == found["confusion"]
    assert model["missing"] == found["missing"]
    assert {"error-1.png", "samples.png"} <= {path.name for path in (moved / "pictures").iterdir()}


def test_comparison_settings_are_checked_by_name(configs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "configs"
    shutil.copytree(configs, folder)
    (folder / "comparison.yaml").write_text("drawz: 3\n")
    with pytest.raises(ConfigError, match=r"comparison.yaml: drawz: unknown key"):
        short_run(folder, tmp_path / "run")
    assert not (tmp_path / "run" / "encoders").exists()  # told before anything is trained


def test_two_processes_run_all_stages(configs: Path, tmp_path: Path) -> None:
    """The features are stored by both; the comparison is the first one's."""
    folder = tmp_path / "configs"
    shutil.copytree(configs, folder)
    common = yaml.safe_load((folder / "common.yaml").read_text())
    cache = {"class_path": "FeatureCaching", "init_args": {"folder": "${run_dir}/features", "views": 2}}
    for name in ("search", "pretrain", "finetune"):
        stage = yaml.safe_load((folder / f"{name}.yaml").read_text())
        more = [] if "FeatureCaching" in json.dumps([common, stage]) else [cache]
        ranks = {"class_path": "tests.commands.toys.Ranks"}
        stage["trainer"]["callbacks+"] = [*stage["trainer"].get("callbacks+", []), *more, ranks]
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(stage))
    output = tmp_path / "run"
    several = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    command = [sys.executable, "-m", "lightning_mmnas", "run", str(folder), "--output", str(output), *SHORT, *several]
    process = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert process.returncode == 0, process.stderr
    for name in ("search", "pretrain", "finetune"):
        first, second = (torch.load(output / name / f"rank{rank}.pt", weights_only=True) for rank in range(2))
        assert first["genotypes"] == second["genotypes"]
        assert first["state"].keys() == second["state"].keys()
        assert all(torch.equal(value, second["state"][key]) for key, value in first["state"].items())
    results = json.loads((output / "results.json").read_text())
    assert Genotype.load(output / "genotype.json") == Genotype.model_validate(results["genotype"])
    assert list((output / "features").rglob("*.npy"))
    assert results["comparison"]
