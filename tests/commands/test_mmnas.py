"""`mmnas`: exit codes, one message for a mistake, help at once."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightning.pytorch import Trainer, seed_everything
from torch._utils import ExceptionWrapper

from lightning_mmnas.commands import mmnas
from lightning_mmnas.commands.impossible import refuse_forks
from lightning_mmnas.commands.messages import explain
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.errors import DataError
from tests.commands.test_lightning_cli import CONFIG


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump({**CONFIG, "run_dir": str(tmp_path / "run")}))
    return path


def _message(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(args) == 2
    error = capsys.readouterr().err.strip().splitlines()
    lines = [line for line in error if line.startswith("mmnas: ")]
    assert len(lines) == 1
    assert "Traceback" not in error
    return lines[0]


def test_help_lists_the_commands_without_importing_torch() -> None:
    code = (
        "import sys; from lightning_mmnas.commands.mmnas import main; main(['--help']); "
        "sys.exit(any(name in sys.modules for name in ('torch', 'lightning')))"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    listed = [line.split()[0] for line in process.stdout.splitlines() if line.startswith("  ")]
    assert sorted(listed[:-2]) == sorted([*mmnas._LIGHTNING, *mmnas._OWN])  # the last two are options
    assert process.stdout.index("use the model:") < process.stdout.index("\n  export ")


def test_python_dash_m() -> None:
    command = [sys.executable, "-m", "lightning_mmnas", "shwo"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 2
    assert process.stderr == "mmnas: there is no command 'shwo'; did you mean 'show'?\n"


def test_no_arguments_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "usage: mmnas COMMAND" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mmnas ")


def test_fit_and_print_config(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--config", str(config), "--run_dir", "elsewhere", "--print_config"])
    assert stop.value.code == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["model"]["init_args"]["folder"] == "elsewhere/search"
    assert main(["fit", "--config", str(config)]) == 0
    assert (config.parent / "run" / "search" / "config.yaml").is_file()


@pytest.mark.filterwarnings("ignore:.*configure_optimizers. will be overridden")
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.hiden", "3"], "hiden"),
        (["--trainer.default_root_dir", "${run_dirr}/x"], "'run_dirr' not found"),
        (["--ckpt_path", "none.ckpt"], "there is no checkpoint none.ckpt"),
        (["--model", "Nothing"], "Nothing"),
        (["--data.size", "0"], "the toy data are empty"),
        (["--trainer.limit_train_batches", "3.5"], "limit_train_batches"),
        (
            ["--trainer.callbacks", "GradientAccumulationScheduler", "--trainer.callbacks.scheduling", "{1:2}"],
            "with a space behind the colon",
        ),
        (["--run_dir", ""], "run_dir is empty; is a variable of the shell not set?"),
        (["--optimizer.lr", "0.1"], "'lr' is not accepted; name its class before it: --optimizer CLASS"),
        (["--optimizer", "SDG"], "optimizer: there is no class 'SDG' known by its name alone"),
        (["--optimizer", "SDG"], "did you mean 'SGD'?"),
        (["--optimizer", "SparseAdam"], "mmnas: SparseAdam does not support dense gradients, please consider Adam"),
        (
            ["--trainer.callbacks", "BackboneFinetuning"],
            "callbacks.finetuning does not fit this module: 'ToyModule' object has no attribute 'backbone'",
        ),
    ],
)
def test_mistakes(args: list[str], message: str, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in _message(capsys, "fit", "--config", str(config), *args)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["report", "runs/a", "--output", ""], "--output is empty; is a variable of the shell not set?"),
        (["tabulate", "watch", "--output="], "--output is empty"),
        (["sample", "--output", "", "--config", "a.yaml"], "--output is empty"),
        (["run", "", "--output", "a"], "an argument is empty"),
        (["show", ""], "an argument is empty"),
    ],
)
def test_an_empty_path_is_not_this_folder(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in _message(capsys, *args)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook"])
@pytest.mark.parametrize("command", ["fit", "test"])
def test_ranks_that_a_signal_does_not_reach_are_refused(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, strategy: str, command: str
) -> None:
    monkeypatch.setattr("sys.argv", ["/usr/bin/mmnas", command])
    args = [command, "--config", str(config), "--trainer.strategy", strategy, "--trainer.devices", "2"]
    assert "trainer.strategy forks or spawns its ranks" in _message(capsys, *args)
    monkeypatch.setattr("sys.argv", ["train.py"])  # a script may
    refuse_forks(Trainer(strategy=strategy, devices=2, accelerator="cpu", logger=False))


def test_mistakes_of_run(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "required: --output" in _message(capsys, "run", "watch")
    assert "invalid int value" in _message(capsys, "run", "watch", "--output=x", "--seed=x")
    assert "no folder" in _message(capsys, "run", str(tmp_path / "none"), "--output", str(file))


def test_unwritable_folder_of_fit(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()
    text = _message(capsys, "fit", "--config", str(config), "--run_dir", str(file / "x"))
    assert str(file) in text


def test_a_config_of_the_users_own(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "run" / "search" / "config.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("mine: 1\n")
    assert f"{mine} is no configuration that a training has written" in _message(capsys, "fit", "--config", str(config))
    assert mine.read_text() == "mine: 1\n"


def test_checkpoint_of_another_architecture(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config", str(config)]) == 0
    import torch

    path = next((tmp_path / "run").rglob("*.ckpt"))
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"] = {}
    torch.save(checkpoint, path)
    args = ["test", "--config", str(config), "--model.hidden", "9", "--ckpt_path", str(path)]
    assert "the checkpoint belongs to another architecture" in _message(capsys, *args)


STAGE = """
trainer: {accelerator: cpu, logger: false, enable_progress_bar: false, enable_model_summary: false}
model:
  class_path: EncoderPretraining
  init_args: {encoders: {motion: {class_path: MotionEncoder, init_args: {channels: [4, 4]}}}}
data:
  class_path: WatchDataModule
  init_args: {stride: 512, batch_size: 8, labels: false}
"""


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_stage_without_weights_is_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    config, run_dir = tmp_path / "encoders.yaml", tmp_path / "run"
    config.write_text(STAGE)
    arguments = [command, "--config", str(config), "--run_dir", str(run_dir)]
    text = _message(capsys, *arguments)
    last = run_dir / "checkpoints" / "last.ckpt"
    assert f"mmnas {command} would score a network that is not trained" in text
    assert f"there is no {last}" in text
    assert not run_dir.exists()
    last.parent.mkdir(parents=True)
    last.touch()
    assert f"--ckpt_path {last}" in _message(capsys, *arguments)


def test_debug_raises(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMNAS_DEBUG", "1")
    with pytest.raises(Exception, match="hiden"):
        main(["fit", "--config", str(config), "--model.hiden", "3"])


def test_interrupt(tmp_path: Path, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flag = tmp_path / "flag"
    flag.touch()
    model = ["--model", "tests.commands.toys.InterruptedModule", "--model.flag", str(flag)]
    content = yaml.safe_load(config.read_text())
    del content["model"]
    config.write_text(yaml.safe_dump(content))
    text = _message(capsys, "fit", "--config", str(config), *model, "--trainer.max_epochs=2")
    assert "interrupted; continue with the same command and --ckpt_path" in text


def test_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    from lightning_mmnas import FusionSpace

    space = FusionSpace(inputs=("a/0", "b/0"))
    genotype = space.sample(torch.Generator().manual_seed(0))
    path, picture = tmp_path / "genotype.json", tmp_path / "genotype.png"
    genotype.save(path)
    assert main(["show", str(path)]) == 0
    assert "a/0" in capsys.readouterr().out
    assert main(["show", str(path), "--output", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["show", str(path), "--output", str(tmp_path / "x.PNG")]) == 0
    assert (tmp_path / "x.PNG").read_bytes().startswith(b"\x89PNG")
    capsys.readouterr()

    run = tmp_path / "runs" / "watch"
    (run / "search").mkdir(parents=True)
    assert "is no run of mmnas" in _message(capsys, "show", str(run))
    (run / "manifest.json").write_text("{}")
    assert "has no genotype yet" in _message(capsys, "show", str(run))
    genotype.save(run / "genotype.json")
    assert main(["show", str(run)]) == 0
    assert "a/0" in capsys.readouterr().out
    assert f"did you mean {run}?" in _message(capsys, "show", str(run.parent / "wacht"))
    assert f"did you mean {run}?" in _message(capsys, "show", str(run / "search"))

    assert "there is no file" in _message(capsys, "show", str(tmp_path / "none.json"))
    assert "suffixes" in _message(capsys, "show", str(path), "--output", str(tmp_path / "x.abc"))
    path.write_text("{}")
    assert "genotype" in _message(capsys, "show", str(path))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_is_told_in_a_line(number: int) -> None:
    message = explain(OSError(number, os.strerror(number)))
    assert message == f"{os.strerror(number)}; make room on the disk that is written to, and the same command goes on"
    assert explain(OSError(number, os.strerror(number), "a.ckpt")) == f"{os.strerror(number)}: a.ckpt"
    assert explain(OSError(errno.EPIPE, os.strerror(errno.EPIPE))) is None  # ours


@pytest.mark.parametrize(
    "text",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:34987.",
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:7581: Connection reset by peer.",
    ],
)
def test_a_lost_process_is_told_in_a_line(text: str) -> None:
    message = explain(RuntimeError(text))
    assert message is not None
    assert message.startswith("another process of this training has ended")
    assert explain(RuntimeError("Connection to the moon reset")) is None


def test_what_a_worker_of_a_loader_says_is_a_line() -> None:
    wrapper: Any = ExceptionWrapper  # as a loader uses it
    try:
        raise DataError("row 3 is damaged: mend it") from ValueError("it is no number")
    except DataError:
        from_worker = wrapper(where="in DataLoader worker process 1")
    with pytest.raises(DataError, match="Caught DataError in DataLoader worker") as raised:
        from_worker.reraise()
    assert explain(raised.value) == "row 3 is damaged: mend it"
    assert explain(DataError(f"stage search: {raised.value}")) == "stage search: row 3 is damaged: mend it"


def test_what_lightning_refuses_is_said_in_a_line() -> None:
    with pytest.raises(ValueError, match="numpy accepts") as refused:
        seed_everything(-1, verbose=False)
    assert explain(refused.value) == "-1 is not in bounds, numpy accepts from 0 to 4294967295"
    with pytest.raises(ValueError, match="invalid literal") as ours:
        int("a")
    assert explain(ours.value) is None
