"""Loggers of a run, offline: what they get, under which names, one run for each stage."""

import csv
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger

from lightning_mmnas.commands.loggers import LOGGERS, ended_loggers, logger_options, require_loggers
from lightning_mmnas.commands.messages import explain
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.run import run
from lightning_mmnas.commands.stages import STAGES, Stage
from lightning_mmnas.errors import ConfigError, MissingExtraError
from tests.commands.test_run import _stage
from tests.sampling.toys import CONFIG


@pytest.fixture
def configs(tmp_path: Path) -> Path:
    folder = tmp_path / "configs"
    folder.mkdir()
    for name in STAGES:
        content = _stage(name)
        content["trainer"]["max_epochs"] = 1
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    search = yaml.safe_load(CONFIG)
    search["trainer"]["default_root_dir"] = "${run_dir}/search"
    search["trainer"]["max_epochs"] = 2
    alternation = {"class_path": "ArchitectureAlternation", "init_args": {"lr": 0.25}}
    search["trainer"]["callbacks"] = [alternation, *search["trainer"]["callbacks"]]
    (folder / "search.yaml").write_text(yaml.safe_dump(search))
    return folder


def _entries(name: str) -> list[dict[str, Any]]:
    option, value = logger_options([name], "mine", "search")
    assert option == "--trainer.logger"
    entries: list[dict[str, Any]] = json.loads(value)
    assert entries[0]["class_path"] == "CSVLogger"
    return entries


def test_wandb_has_one_group_and_a_run_for_each_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = _entries("wandb")[1]
    assert entry["init_args"]["name"] == "search"
    assert entry["dict_kwargs"] == {"group": "mine"}
    ended: list[int] = []
    fake: Any = ModuleType("wandb")
    fake.run, fake.finish = None, lambda: ended.append(1)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    with ended_loggers():
        pass
    assert not ended
    with ended_loggers():
        fake.run = SimpleNamespace()
        assert not ended
    assert ended == [1]


def test_mlflow_goes_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert _entries("mlflow")[1]["init_args"]["tracking_uri"] == "sqlite:///${run_dir}/mlflow.db"
    with ended_loggers():
        os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///somewhere.db"  # as MLflow does
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://here:5000")
    assert _entries("mlflow")[1]["init_args"]["tracking_uri"] == "http://here:5000"


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert logger_options([], "mine", "search") == []
    assert len(_entries("csv")) == 1
    with pytest.raises(ConfigError, match="did you mean 'tensorboard'"):
        require_loggers(["tensorbord"])
    with pytest.raises(ConfigError, match="accepted: csv, tensorboard"):
        require_loggers(["x"])
    monkeypatch.setattr("lightning_mmnas.commands.loggers.find_spec", lambda name: None)
    require_loggers(["csv"])
    for name in LOGGERS[1:]:
        with pytest.raises(MissingExtraError, match=rf"lightning-mmnas\[{name}\]"):
            require_loggers([name])


class Away(CSVLogger):
    """As MLflow's where there is no server at its address."""

    def __init__(self, save_dir: str, address: str = "") -> None:
        raise ValueError(f"nobody answers at {address}")


def test_loggers_that_fail_are_told_in_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    kind: Any = type("CommError", (Exception,), {"__module__": "wandb.errors.errors"})
    assert str(explain(kind("No API key.\nSee"))).startswith(
        "the logger wandb: No API key; the same command without it"
    )
    assert str(explain(kind())).startswith("the logger wandb: CommError; ")
    given = [
        {"class_path": "CSVLogger", "init_args": {"save_dir": str(tmp_path)}},
        {"class_path": f"{__name__}.Away", "init_args": {"save_dir": str(tmp_path), "address": "http://x"}},
    ]
    words = ["--model", "tests.commands.toys.ToyModule", "--data", "tests.commands.toys.ToyData"]
    assert (
        main(["fit", *words, "--trainer.logger", json.dumps(given), "--trainer.default_root_dir", str(tmp_path)]) == 2
    )
    said = capsys.readouterr().err
    assert said.endswith("model, data or trainer cannot be built: nobody answers at http://x\n")


def test_loggers_decide_nothing(configs: Path) -> None:
    stages = [Stage("search", configs / "search.yaml", (), loggers) for loggers in ((), ("mlflow",))]
    assert stages[0].digest(0) == stages[1].digest(0)
    assert "MLFlowLogger" in " ".join(stages[1].arguments(Path("runs/x"), 0))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of the loggers' own packages
def test_tensorboard_and_mlflow_have_a_run_for_each_stage(
    configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    output = tmp_path / "mine"
    run(configs, output, loggers=["tensorboard", "mlflow"])
    assert {path.name for path in (output / "tensorboard").iterdir()} == set(STAGES)
    events = accumulator.EventAccumulator(str(output / "tensorboard" / "search"))
    events.Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"arch/lr", "arch/entropy", "train/loss", "alpha/cell0.x/crisp/0", "gamma/cell1.step0/sum"} <= scalars
    assert [event.value for event in events.Scalars("arch/lr")] == [0.25, 0.25]
    weights = [events.Scalars(f"gamma/cell0.step0/{name}")[-1].value for name in ("sum", "concat_fc")]
    assert sum(weights) == pytest.approx(1.0)
    assert weights[0] != pytest.approx(0.5, abs=1e-4)
    with (output / "search" / "logs" / "version_0" / "metrics.csv").open() as file:  # where it is without --logger
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["gamma/cell0.step0/sum"]) == pytest.approx(weights[0])
    assert (output / "finetune" / "logs" / "version_0" / "metrics.csv").is_file()

    client = mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mine")
    runs = {found.info.run_name: found for found in client.search_runs([experiment.experiment_id])}
    assert set(runs) == set(STAGES)
    assert runs["search"].data.metrics["arch/lr"] == 0.25
    assert 0 < runs["search"].data.metrics["alpha/cell0.x/crisp/0"] <= 1
    assert all(found.info.status == "FINISHED" for found in runs.values())
