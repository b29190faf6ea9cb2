"""Somebody else's module and data search their architecture by a line in a YAML file."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI

from lightning_mmnas.callbacks import ArchitectureAlternation, ExactResume

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[1] / "user_project" / "search.yaml"


@pytest.fixture(autouse=True)
def _no_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["python"])  # else Lightning warns of pytest's


def cli(root: Path, *arguments: str) -> Any:
    return LightningCLI(
        LightningModule,
        LightningDataModule,
        subclass_mode_model=True,
        subclass_mode_data=True,
        save_config_callback=None,
        args=["fit", "--config", str(CONFIG), "--trainer.default_root_dir", str(root), *arguments],
    )


def test_a_user_s_module_is_searched(tmp_path: Path) -> None:
    run = cli(tmp_path)
    resume, alternation, *_ = run.trainer.callbacks
    assert isinstance(resume, ExactResume)  # which the alternation added, in front of itself
    assert isinstance(alternation, ArchitectureAlternation)
    state = alternation.state_dict()["architecture"]
    assert state["steps"] == 13 * 2
    assert state["optimizer"]["param_groups"][0]["lr"] == pytest.approx(0.1 * 0.95**26)
    assert run.trainer.global_step == 15 * 2
    add, multiply = run.model.choice.softmax(0)
    assert multiply > add + 0.1  # a product made the data
    assert not run.model.choice.requires_grad


def test_a_user_s_search_resumes(tmp_path: Path) -> None:
    unbroken = cli(tmp_path / "unbroken")
    killed = tmp_path / "killed"
    cli(killed, "--trainer.max_steps=9")
    checkpoint = killed / "checkpoints" / "last.ckpt"
    assert torch.load(checkpoint, weights_only=True)["global_step"] == 9  # within an epoch
    resumed = cli(killed, "--ckpt_path", str(checkpoint), "--seed_everything=7")
    for name, value in unbroken.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_wrong_arguments_in_the_file_are_refused(tmp_path: Path) -> None:
    callback = "--trainer.callbacks.init_args"
    with pytest.raises(SystemExit):
        cli(tmp_path, f"{callback}.order=3")
    with pytest.raises(ValueError, match="warmup_epochs=-1 is negative"):
        cli(tmp_path, f"{callback}.warmup_epochs=-1")
