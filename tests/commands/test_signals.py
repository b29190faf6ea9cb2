"""Real signals: SIGKILL leaves a checkpoint of the last epoch, SIGTERM ends with 143 and can be continued."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor

from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.shared import config_options
from lightning_mmnas.commands.stages import STAGES, find_configs
from lightning_mmnas.data.watch import load_watch
from lightning_mmnas.errors import MissingExtraError
from tests.commands.test_lightning_cli import CONFIG
from tests.commands.test_run import _stage
from tests.ranks import run_forked, start_ranks
from tests.test_configs import few_candidates

LAST = {"class_path": "LastCheckpoint", "init_args": {"dirpath": "${trainer.default_root_dir}/checkpoints"}}


def _config(tmp_path: Path) -> list[str]:
    trainer = {**CONFIG["trainer"], "max_epochs": 3, "callbacks": [{"class_path": "ExactResume"}, LAST]}
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "trainer": trainer}))
    return ["fit", "--config", str(path)]


def _signals(number: int, steps: int, hook: str = "on_train_batch_start") -> list[str]:
    values = {"number": int(number), "steps": steps, "hook": hook}
    options = [f"--trainer.callbacks.{name}={value}" for name, value in values.items()]
    return ["--trainer.callbacks+=tests.commands.toys.Signals", *options]


def _weights(path: Path) -> dict[str, Tensor]:
    weights: dict[str, Tensor] = torch.load(path, weights_only=True)["state_dict"]
    return weights


def _same(first: Path, second: Path) -> bool:
    a, b = _weights(first), _weights(second)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The last checkpoint of an unbroken training."""
    folder = tmp_path_factory.mktemp("whole")
    assert main([*_config(folder), "--run_dir", str(folder)]) == 0
    return folder / "search" / "checkpoints" / "last.ckpt"


@pytest.mark.slow
def test_a_killed_search_goes_on_from_its_last_epoch(tmp_path: Path) -> None:
    try:
        load_watch()
    except MissingExtraError as error:
        pytest.skip(str(error))
    shutil.copytree(find_configs("watch"), tmp_path / "configs")
    few_candidates(tmp_path / "configs" / "search.yaml")
    arguments = ["fit", *config_options(tmp_path / "configs" / "search.yaml"), "--trainer.limit_train_batches=3"]
    arguments += ["--trainer.max_epochs=4", "--model.init_args.encoder_weights=null", "--trainer.logger=false"]
    arguments += ["--data.init_args.stride=256", "--data.init_args.batch_size=16"]
    killed, unbroken = tmp_path / "killed", tmp_path / "unbroken"
    code, _ = run_forked(main, [*arguments, "--run_dir", str(killed), *_signals(signal.SIGKILL, 10)])
    assert code == -signal.SIGKILL
    last = killed / "search" / "checkpoints" / "last.ckpt"
    found = torch.load(last, weights_only=True)
    assert (found["epoch"], found["global_step"]) == (2, 9)
    assert main([*arguments, "--run_dir", str(killed), "--ckpt_path", str(last)]) == 0
    assert main([*arguments, "--run_dir", str(unbroken)]) == 0
    assert _same(last, unbroken / "search" / "checkpoints" / "last.ckpt")
    names = ("genotype.json", "genotype.weights.json")
    assert all((killed / name).read_bytes() == (unbroken / name).read_bytes() for name in names)


@pytest.mark.parametrize(
    ("hook", "steps", "saved"),
    [
        ("on_fit_start", 0, None),  # Lightning does not look for the signal yet
        ("on_train_batch_start", 3, 4),  # the batch at hand is finished
        ("on_validation_batch_start", 4, 4),
        ("on_train_epoch_end", 4, 4),
        ("on_train_end", 6, 6),  # it does no more
        ("on_fit_end", 6, 6),
    ],
)
def test_terminated(
    hook: str, steps: int, saved: int | None, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, handler = _config(tmp_path), signal.getsignal(signal.SIGTERM)
    last = tmp_path / "run" / "search" / "checkpoints" / "last.ckpt"
    run = ["--run_dir", str(tmp_path / "run")]
    assert main([*arguments, *run, *_signals(signal.SIGTERM, steps, hook)]) == 143
    assert signal.getsignal(signal.SIGTERM) is handler
    way_on = "start anew" if saved is None else f"continue with the same command and --ckpt_path {last}"
    assert f"mmnas: terminated; {way_on}\n" in capsys.readouterr().err
    assert last.is_file() == (saved is not None)
    if saved is not None:
        assert torch.load(last, weights_only=True)["global_step"] == saved
        run += ["--ckpt_path", str(last)]
    assert main([*arguments, *run]) == 0
    assert _same(last, whole)


@pytest.mark.slow
def test_all_ranks_end_together(tmp_path: Path) -> None:
    """Both are told, one of them twice: the first passes the signal on to the process that it has started."""
    several = ["--trainer.devices=2", "--trainer.strategy=ddp", "--run_dir", str(tmp_path / "run")]
    arguments = [*_config(tmp_path), *several, *_signals(signal.SIGTERM, 1)]
    command = [sys.executable, "-m", "lightning_mmnas", *arguments]
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    last = tmp_path / "run" / "search" / "checkpoints" / "last.ckpt"
    assert process.returncode == 143, process.stderr
    assert process.stderr.count("mmnas: terminated; continue with the same command and --ckpt_path") == 1
    found = torch.load(last, weights_only=True)
    assert found["global_step"] == 2  # the batch at hand is finished
    assert len(found["callbacks"]["ExactResume"]["random"]) == 2  # nobody was left behind


@pytest.mark.slow
def test_a_terminated_run_is_continued_by_the_same_command(tmp_path: Path) -> None:
    for name in STAGES:
        content = _stage(name)
        content["trainer"]["callbacks"] = [{"class_path": "ExactResume"}, LAST]
        if name == "pretrain":
            send = {"number": int(signal.SIGTERM), "steps": 3, "flag": str(tmp_path / "flag")}
            content["trainer"]["callbacks"].append({"class_path": "tests.commands.toys.Signals", "init_args": send})
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "flag").touch()
    output = tmp_path / "run"
    command = ["run", str(tmp_path), "--output", str(output)]
    code, said = run_forked(main, command)
    assert code == 143
    way_on = f"the same command continues: mmnas run {tmp_path} --output {output} --seed 0"
    assert f"mmnas: terminated in stage pretrain; finished stages are kept, {way_on}\n" in said
    last = output / "pretrain" / "checkpoints" / "last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 4  # the batch at hand is finished
    (tmp_path / "flag").unlink()
    assert main(command) == 0
    assert _same(last, output / "search" / "checkpoints" / "last.ckpt")  # trained alike, and never stopped


SCONTROL = """#!/bin/sh
echo "$@" > {folder}/requeued
kill -TERM {pid}
sleep 0.1
"""


def test_requeueing_by_slurm(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGUSR1 saves and requeues; the SIGTERM that this brings ends the job, and the next one goes on."""
    for name, value in {"NTASKS": "1", "JOB_ID": "7", "JOB_NAME": "job", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / "scontrol").write_text(SCONTROL.format(folder=tmp_path, pid=os.getpid()))
    (tmp_path / "scontrol").chmod(0o755)
    arguments, run = _config(tmp_path), ["--run_dir", str(tmp_path / "run")]
    assert main([*arguments, *run, *_signals(signal.SIGUSR1, 3)]) == 143
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    saved = torch.load(tmp_path / "run" / "search" / "hpc_ckpt_1.ckpt", weights_only=True)
    assert saved["global_step"] == 3
    assert main([*arguments, *run]) == 0  # without --ckpt_path, as SLURM starts it again
    assert main([*arguments, "--run_dir", str(tmp_path / "whole")]) == 0
    last = tmp_path / "run" / "search" / "checkpoints" / "last.ckpt"
    assert _same(last, tmp_path / "whole" / "search" / "checkpoints" / "last.ckpt")


SCONTROL_OF_RANKS = """#!/bin/sh
echo "$@" >> {folder}/requeued
kill -TERM $(cat {folder}/pid-0 {folder}/pid-1)
sleep 0.1
"""


def slurm_rank(rank: int, folder: str, arguments: list[str], code: int) -> None:
    """One of two processes that srun has started."""
    task = {"NTASKS": 2, "NTASKS_PER_NODE": 2, "NNODES": 1, "JOB_ID": 7, "JOB_NAME": "job", "NODELIST": "localhost"}
    task |= {"PROCID": rank, "LOCALID": rank, "NODEID": 0}
    del os.environ["TORCHELASTIC_RUN_ID"]  # srun sets nothing of torchrun's
    os.environ |= {f"SLURM_{name}": str(value) for name, value in task.items()}
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    Path(folder, f"pid-{rank}").write_text(f"{os.getpid()}\n")
    found = main(arguments)
    assert found == code, found


@pytest.mark.slow
def test_requeueing_of_two_ranks_by_slurm(tmp_path: Path) -> None:
    (tmp_path / "scontrol").write_text(SCONTROL_OF_RANKS.format(folder=tmp_path))
    (tmp_path / "scontrol").chmod(0o755)
    several = ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.use_distributed_sampler=true"]
    arguments = [*_config(tmp_path), *several]
    run = [*arguments, "--run_dir", str(tmp_path / "run")]
    start_ranks(slurm_rank, (str(tmp_path), [*run, *_signals(signal.SIGUSR1, 1)], 143), 2)
    assert (tmp_path / "requeued").read_text() == "requeue 7\n"
    saved = torch.load(tmp_path / "run" / "search" / "hpc_ckpt_1.ckpt", weights_only=True)
    assert saved["global_step"] == 2  # the batch at hand is finished
    assert len(saved["callbacks"]["ExactResume"]["random"]) == 2
    start_ranks(slurm_rank, (str(tmp_path), run, 0), 2)  # as SLURM starts it again
    start_ranks(slurm_rank, (str(tmp_path), [*arguments, "--run_dir", str(tmp_path / "whole")], 0), 2)
    last = tmp_path / "run" / "search" / "checkpoints" / "last.ckpt"
    assert _same(last, tmp_path / "whole" / "search" / "checkpoints" / "last.ckpt")
