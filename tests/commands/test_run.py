"""`mmnas run`: stages in a row, what is kept, what is refused."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from lightning_mmnas.commands.run import _is_main, run
from lightning_mmnas.commands.stages import STAGES, Stage, find_configs
from lightning_mmnas.errors import ConfigError, DataError, RunDirectoryError
from tests.commands.toys import InterruptedModule


def _stage(name: str, model: str = "ToyModule", **init_args: Any) -> dict[str, Any]:
    folder = f"${{run_dir}}/{name}"
    checkpoint = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": f"{folder}/checkpoints", "save_last": True},
    }
    return {
        "model": {"class_path": f"tests.commands.toys.{model}", "init_args": init_args},
        "data": {"class_path": "tests.commands.toys.ToyData"},
        "trainer": {
            "max_epochs": 3,
            "accelerator": "cpu",
            "logger": False,
            "default_root_dir": folder,
            "callbacks": [checkpoint],
        },
    }


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    for name in STAGES:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(_stage(name)))
    return folder


def _run(configs: Path, output: Path, **kwargs: Any) -> tuple[dict[str, Any], str]:
    console = Console(file=io.StringIO(), width=200)
    results = run(configs, output, console=console, **kwargs)
    assert isinstance(console.file, io.StringIO)
    return results, console.file.getvalue()


@pytest.mark.slow
@pytest.mark.report
def test_run_writes_everything_and_does_not_run_a_finished_stage_again(tmp_path: Path, configs: Path) -> None:
    output = tmp_path / "run"
    results, text = _run(configs, output, seed=3, overrides=["--model.hidden", "4"])
    for name in STAGES:
        assert (output / name / "checkpoints" / "last.ckpt").is_file()
        config = yaml.safe_load((output / name / "config.yaml").read_text())
        assert config["seed_everything"] == 3
        assert config["model"]["init_args"]["hidden"] == 4
        assert results["stages"][name]["seconds"] > 0
        assert f"mmnas fit --config {configs / name}.yaml --run_dir {output}" in text
    seconds = [stage["seconds"] for stage in results["stages"].values()]
    assert results["total_seconds"] == pytest.approx(sum(seconds) + results["comparison_seconds"], abs=0.01)
    assert results["seed"] == 3
    assert results["command"].startswith("mmnas run ")
    assert set(results["versions"]) == {
        "python",
        "torch",
        "lightning",
        "lightly",
        "torchmetrics",
        "lightning_mmnas",
    }
    assert json.loads((output / "results.json").read_text()) == results
    assert not list(output.rglob(".*"))  # no temporary files
    page = (output / "report.html").read_text()
    assert "its last stage is ToyModule on ToyData" in page
    assert "A finished run without a comparison" in page

    again, text = _run(configs, output, seed=3, overrides=["--model.hidden", "4"])
    assert text.count("done before") == len(STAGES) + 1  # and the comparison
    assert again == results


@pytest.mark.slow
def test_overrides_of_one_stage_beat_those_of_all(tmp_path: Path, configs: Path) -> None:
    overrides = ["--search.model.hidden", "6", "--model.hidden=5", "--trainer.max_epochs", "1"]
    output = tmp_path / "run[red]"  # printed as it is, not taken for markup
    _, text = _run(configs, output, overrides=overrides)
    assert text.count(str(output)) == len(STAGES) + 1  # each stage's command and the last line
    hidden = {
        name: yaml.safe_load((output / name / "config.yaml").read_text())["model"]["init_args"]["hidden"]
        for name in STAGES
    }
    assert hidden == {"encoders": 5, "search": 6, "pretrain": 5, "finetune": 5}


@pytest.mark.slow
def test_an_interrupted_stage_goes_on_from_its_checkpoint(
    tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flag, output = tmp_path / "flag", tmp_path / "run"
    flag.touch()
    content = yaml.safe_dump(_stage("search", "InterruptedModule", flag=str(flag)))
    (configs / "search.yaml").write_text(content)
    epochs: list[int] = []
    monkeypatch.setattr(
        InterruptedModule,
        "on_fit_end",
        lambda self: epochs.extend(self.epochs),
        raising=False,
    )
    with pytest.raises(KeyboardInterrupt, match=r"interrupted in stage search.*mmnas run "):
        _run(configs, output)
    assert (output / "encoders" / "done.json").is_file()
    assert not (output / "search" / "done.json").exists()

    flag.unlink()
    results, text = _run(configs, output)
    assert text.count("done before") == 1
    assert "--ckpt_path" in text
    assert epochs == [1, 2]  # epoch 0 is not trained again
    assert set(results["stages"]) == set(STAGES)


@pytest.mark.slow
def test_a_failing_stage_is_named_and_leaves_the_others(tmp_path: Path, configs: Path) -> None:
    content = _stage("pretrain")
    content["data"]["init_args"] = {"size": 0}
    (configs / "pretrain.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(DataError, match="stage pretrain: the toy data are empty"):
        _run(configs, tmp_path / "run")
    assert (tmp_path / "run" / "search" / "done.json").is_file()


@pytest.mark.slow
def test_the_directory_of_another_run_is_refused_untouched(tmp_path: Path, configs: Path) -> None:
    output = tmp_path / "run"
    fast = ["--trainer.max_epochs", "1"]
    _run(configs, output, overrides=fast)
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    with pytest.raises(RunDirectoryError, match="its seed is 0, not 1"):
        _run(configs, output, overrides=fast, seed=1)
    with pytest.raises(RunDirectoryError, match=r"other settings of search \(model.init_args.hidden 2 -> 7\)"):
        _run(configs, output, overrides=[*fast, "--search.model.hidden", "7"])
    (configs / "search.yaml").write_text(yaml.safe_dump(_stage("search", hidden=7)))
    with pytest.raises(RunDirectoryError, match="search, pretrain, finetune and comparison would be done again"):
        _run(configs, output, overrides=fast)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*")} == before


@pytest.mark.slow
def test_a_longer_last_stage_leaves_the_earlier_ones_alone(tmp_path: Path, configs: Path) -> None:
    output = tmp_path / "run"
    fast = ["--trainer.max_epochs", "1"]
    _run(configs, output, overrides=fast)
    kept = [path for name in STAGES[:3] for path in (output / name).rglob("*") if path.is_file()]
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}
    results = (output / "results.json").read_bytes()

    longer = [*fast, "--finetune.trainer.max_epochs", "2"]
    with pytest.raises(DataError, match="stage finetune: the toy data are empty"):
        _run(configs, output, overrides=[*longer, "--finetune.data.size", "0"], overwrite=True)
    assert (output / "results.json").read_bytes() == results
    with pytest.raises(RunDirectoryError, match=r"trainer.max_epochs 1 -> 2\): finetune and comparison"):
        _run(configs, output, overrides=longer)
    _, text = _run(configs, output, overrides=longer, overwrite=True)
    assert text.count("done before") == 3
    assert [path.name for path in (output / "finetune" / "checkpoints").glob("epoch*")] == ["epoch=1-step=4.ckpt"]
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in kept} == before
    assert not (output / "previous").exists()

    again = tmp_path / "again"
    _, text = _run(configs, again, overrides=[*longer, "--finetune.model.hidden", "5"], reuse=output)
    assert "encoders, search, pretrain" in text
    last = Path("search", "checkpoints", "last.ckpt")
    assert (again / last).read_bytes() == (output / last).read_bytes()


def test_comments_and_layout_of_a_config_do_not_matter(tmp_path: Path, configs: Path) -> None:
    stage = Stage("search", configs / "search.yaml")
    before = stage.digest(0)
    (configs / "search.yaml").write_text(f"# new\n{json.dumps(_stage('search'))}")
    assert stage.digest(0) == before
    assert stage.digest(1) != before


def test_directories_that_cannot_be_used(tmp_path: Path, configs: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(RunDirectoryError, match="is a file"):
        _run(configs, file)
    with pytest.raises(RunDirectoryError, match="cannot write"):
        _run(configs, file / "run")  # also for root, whom permissions do not stop
    with pytest.raises(RunDirectoryError, match="holds files but no run"):
        _run(configs, tmp_path)
    assert file.read_text() == "mine"


def test_missing_and_broken_configs(tmp_path: Path, configs: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder nothing"):
        find_configs("nothing")
    (configs / "encoders.yaml").unlink()  # needless where pretrained encoders are given
    (configs / "finetune.yaml").write_text("model: [")
    with pytest.raises(ConfigError, match=r"finetune.yaml is not valid YAML"):
        _run(configs, tmp_path / "run")
    (configs / "finetune.yaml").unlink()
    (configs / "comparison.yaml").write_text("draws: 1")
    with pytest.raises(ConfigError, match=r"there is no .*finetune.yaml, so nothing can be fine-tuned or compared"):
        _run(configs, tmp_path / "run")
    with pytest.raises(ConfigError, match="unexpected 'surplus'"):
        _run(configs, tmp_path / "run", overrides=["surplus"])
    assert not (tmp_path / "run").exists()


def test_damaged_bookkeeping_is_reported(tmp_path: Path, configs: Path) -> None:
    output = tmp_path / "run"
    output.mkdir()
    (output / "manifest.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"cannot read .*manifest.json"):
        _run(configs, output)


def test_mistakes_in_a_late_stage_are_told_before_anything_is_written(tmp_path: Path, configs: Path) -> None:
    path = configs / "finetune.yaml"
    path.write_text(path.read_text().replace("max_epochs", "max_epoks"))
    with pytest.raises(ConfigError, match=r"stage finetune: .*max_epoks"):
        _run(configs, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("given", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # torchrun's, of a second machine
        ({"LOCAL_RANK": "1", "SLURM_PROCID": "0"}, False),  # started by Lightning, within an allocation
        ({"SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, True),
        ({"SLURM_PROCID": "1", "SLURM_LOCALID": "0"}, False),  # started by srun
        ({"NODE_RANK": "1"}, False),  # started on a second machine by hand
    ],
)
def test_which_process_keeps_the_run(given: dict[str, str], first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert _is_main() is first


def test_another_process_begins_after_the_first(configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Path] = []

    def wait(run_dir: Path) -> None:
        waited.append(run_dir)
        raise RunDirectoryError("not yet")

    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("lightning_mmnas.commands.run.await_claim", wait)
    with pytest.raises(RunDirectoryError, match="not yet"):
        run(configs, tmp_path / "run")
    assert waited == [tmp_path / "run"]
    assert not (tmp_path / "run").exists()
