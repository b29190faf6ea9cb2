"""Numbers of processes and machines that cannot be meant."""

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_mmnas.commands.changes import digest_of
from lightning_mmnas.commands.claiming import resolve
from lightning_mmnas.commands.lightning_cli import MMNASCLI, settings_of
from lightning_mmnas.commands.processes import refuse_processes
from lightning_mmnas.commands.stages import Stage
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.files import write_json

ALONE: dict[str, str] = {}
BY_HAND = {"MASTER_ADDR": "node0", "MASTER_PORT": "29500", "NODE_RANK": "1"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none"}
SRUN = {"SLURM_NTASKS": "2", "SLURM_JOB_NAME": "job", "SLURM_STEP_ID": "0"}


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for name in {**BY_HAND, **TORCHRUN, **SRUN}:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "trainer",
    [
        {"accelerator": "cpu", "devices": 9},
        {"accelerator": "cpu", "devices": "100"},
        {"accelerator": "cpu", "devices": " 100 ", "strategy": "ddp"},
    ],
)
def test_more_processes_than_cores(trainer: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"would start \d+ processes on the 2 core.*give 2 or fewer"):
        refuse_processes(trainer)


@pytest.mark.parametrize(
    "trainer",
    [
        {},
        {"accelerator": "cpu", "devices": "auto"},
        {"accelerator": "cpu", "devices": 8},
        {"accelerator": "cpu", "devices": [0, 1]},  # Lightning refuses it
        {"accelerator": "cuda", "devices": 100},  # and this one
        {"accelerator": "cpu", "devices": True},
    ],
)
def test_devices_that_are_not_our_matter(trainer: dict[str, Any]) -> None:
    refuse_processes(trainer)


@pytest.mark.parametrize("environment", [ALONE, TORCHRUN, SRUN, BY_HAND], ids=["alone", "torchrun", "srun", "by hand"])
def test_other_machines_have_to_be_known(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if environment:
        refuse_processes({"num_nodes": 2})
    else:
        refuse_processes({"num_nodes": 1})
        refuse_processes({"num_nodes": 2, "plugins": [{"class_path": "KubeflowEnvironment"}]})
        with pytest.raises(
            ConfigError, match=r"num_nodes is 2, but nothing tells .* torchrun or srun .* MASTER_ADDR, M"
        ):
            refuse_processes({"num_nodes": 2})


def test_the_port_of_the_first_machine_is_needed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BY_HAND.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_PORT")  # Lightning would choose one that the others do not know
    with pytest.raises(ConfigError, match=r"or set MASTER_PORT on each"):
        refuse_processes({"num_nodes": 2})
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.delenv("NODE_RANK")
    monkeypatch.setenv("GROUP_RANK", "1")
    refuse_processes({"num_nodes": 2})


@pytest.mark.parametrize("command", ["fit", "test"])
def test_it_is_told_by_every_command_that_would_start_them(tmp_path: Path, command: str) -> None:
    content = {"model": {"class_path": "tests.commands.toys.ToyModule"}, "trainer": {"accelerator": "cpu"}}
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(content))
    words = [command, "--config", str(tmp_path / "a.yaml")]
    for options, message in (("devices", "100"), "would start 100 processes"), (("num_nodes", "2"), "num_nodes is 2"):
        with pytest.raises(ConfigError, match=message):
            MMNASCLI([*words, f"--trainer.{options[0]}", options[1]])
        settings_of([*words, f"--trainer.{options[0]}", options[1]])  # which starts none


def test_what_a_run_has_trained_need_not_be_trained_here(tmp_path: Path) -> None:
    """A run of many machines is finished, and its page made, where there is one of them."""
    content = {"model": {"class_path": "tests.commands.toys.ToyModule"}, "trainer": {"num_nodes": 2}}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(content))
    stage = Stage("search", tmp_path / "search.yaml")
    with pytest.raises(ConfigError, match=r"stage search: trainer.num_nodes is 2"):
        resolve(stage, tmp_path / "run", 0)
    settings = settings_of(stage.arguments(tmp_path / "run", 0))
    write_json(tmp_path / "run" / "search" / "done.json", {"digest": digest_of(settings), "seconds": 1.0})
    assert resolve(stage, tmp_path / "run", 0).settings == settings
