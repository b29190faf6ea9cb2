"""A search that is killed at any moment and resumed ends as if nothing had happened."""

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_mmnas.callbacks import ArchitectureAlternation, ExactResume
from tests.callbacks.searchers import (
    Part,
    Searcher,
    dataset,
    differences,
    loaders,
    trainer,
    values,
)


class Random(Searcher):
    """Draws from every random generator, and fails on demand."""

    def __init__(self, fail_in: str = "", at: int = -1) -> None:
        super().__init__(dropout=0.3, batch_norm=True)
        self.fail_in, self.at = fail_in, at
        self.calls = 0

    def noise(self) -> float:
        return float(np.random.rand()) * 0.1

    def maybe_fail(self, place: str) -> None:
        if place == self.fail_in and self.trainer.fit_loop.total_batch_idx == self.at:
            raise KilledError(place)

    def training_step(self, batch: dict[str, Part], batch_idx: int) -> Tensor:
        self.maybe_fail("before forward")
        loss = super().training_step(batch, batch_idx) * (1 + self.noise())
        self.maybe_fail("after forward")
        return loss

    def architecture_step(self, batch: Part) -> Tensor:
        self.maybe_fail("before architecture")
        loss = super().architecture_step(batch) * (1 + self.noise())
        self.maybe_fail("after architecture")
        return loss

    def on_after_backward(self) -> None:
        self.maybe_fail("after backward")

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.maybe_fail("batch end")


class Validated(Random):
    def validation_step(self, batch: Part, batch_idx: int) -> None:
        self.maybe_fail("validation")
        torch.rand(3)
        self.log("val/loss", self.loss(batch))


class KilledError(Exception):
    """Stands for whatever stops a run."""


class SaveAlways(Checkpoint):
    """Writes a checkpoint at every moment at which Lightning's own may write one."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.paths: list[Path] = []

    def save(self, trainer: Trainer, moment: str) -> None:
        self.paths.append(self.root / f"{len(self.paths):02d}-{moment}.ckpt")
        trainer.save_checkpoint(self.paths[-1])

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        self.save(trainer, "batch")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.save(trainer, "epoch")

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.save(trainer, "validation")


def fit(
    root: Path,
    module: Searcher,
    *callbacks: Any,
    checkpoint: Path | None = None,
    seed: int = 1,
    workers: int = 0,
    arguments: dict[str, Any] | None = None,
    before: Sequence[Any] = (),
    **options: Any,
) -> dict[str, Tensor]:
    """Trains with shuffled loaders of 5 and 3 batches; returns all that must be reproduced."""
    seed_everything(seed, verbose=False)
    settings: dict[str, Any] = {"lr": 0.1, "scheduler": _exponential} | (arguments or {})
    alternation = ArchitectureAlternation(**settings)
    run = trainer(root, *before, alternation, *callbacks, **{"max_epochs": 3, **options})
    val = DataLoader(dataset(6, 3), batch_size=3) if isinstance(module, Validated) else None
    data = loaders(20, 12, shuffle=True, num_workers=workers)
    run.fit(module, data, val, ckpt_path=checkpoint, weights_only=True if checkpoint else None)
    result = values(module)
    state = alternation.state_dict()["architecture"]
    for name, optimizer in {"w": run.optimizers[0].state_dict(), "a": state["optimizer"]}.items():
        for index, moments in optimizer["state"].items():
            for key, value in moments.items():
                result[f"{name}{index}{key}"] = torch.as_tensor(value)
    result["rates"] = torch.tensor([run.optimizers[0].param_groups[0]["lr"], state["steps"]])
    result["global_step"] = torch.tensor(run.global_step)
    return result


def _exponential(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


class OnException(Checkpoint):
    """Like Lightning's own, which also deletes the file again."""

    save_on_exception = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_exception(self, trainer: Trainer, *args: Any) -> None:
        trainer.save_checkpoint(self.path)


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "accumulated": {"accumulate_grad_batches": 2},
    "half": {"precision": "bf16-true", "arguments": {"lr": 1e-3}},
    "validated": {},
    "validated within the epoch": {"val_check_interval": 2},
    "second order, every other step, after a warm-up": {
        "arguments": {"order": 2, "every_n_steps": 2, "warmup_epochs": 1}
    },
    "per epoch": {"arguments": {"schedule": "epoch"}, "accumulate_grad_batches": 2},
    "max_steps": {"max_steps": 12, "max_epochs": -1},
    "max_steps, validated": {"max_steps": 12, "max_epochs": -1},
    "accumulated, validated": {"accumulate_grad_batches": 2, "val_check_interval": 1},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_resumed_from_every_checkpoint(case: str, tmp_path: Path) -> None:
    options = CASES[case]
    module = Validated if "validated" in case else Random
    save = SaveAlways(tmp_path)
    expected = fit(tmp_path, module(), save, **options)
    assert len(save.paths) >= 12
    wrong = {}
    for path in save.paths:
        resumed = fit(tmp_path, module(), checkpoint=path, seed=99, **options)
        if names := differences(resumed, expected):
            wrong[path.name] = names
    assert not wrong


@pytest.mark.parametrize("moment", ["epoch", "after training"])
def test_a_finished_search_goes_on(moment: str, tmp_path: Path) -> None:
    expected = fit(tmp_path, Random(), max_epochs=3)
    checkpoint = tmp_path / "finished.ckpt"
    if moment == "epoch":
        save = SaveAlways(tmp_path)
        fit(tmp_path, Random(), save, max_epochs=2)
        checkpoint = save.paths[-1]
    else:
        module = Random()
        seed_everything(1, verbose=False)
        alternation = ArchitectureAlternation(lr=0.1, scheduler=_exponential)
        run = trainer(tmp_path, alternation, max_epochs=2)
        run.fit(module, loaders(20, 12, shuffle=True))
        run.save_checkpoint(checkpoint)
    resumed = fit(tmp_path, Random(), checkpoint=checkpoint, seed=99, max_epochs=3)
    assert not differences(resumed, expected)


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    "place",
    [
        "before architecture",
        "after architecture",
        "before forward",
        "after forward",
        "batch end",
        "validation",
    ],
)
def test_resumed_after_an_exception(place: str, accumulate: int, tmp_path: Path) -> None:
    options: dict[str, Any] = {"accumulate_grad_batches": accumulate, "max_epochs": 2}
    validated = place == "validation"
    module = Validated if validated else Random
    expected = fit(tmp_path, module(), **options)
    for at in (4, 9) if validated else (0, 3, 4, 5, 8):
        checkpoint = tmp_path / f"{at}.ckpt"
        with pytest.raises(KilledError):
            fit(tmp_path, module(place, at), OnException(checkpoint), **options)
        resumed = fit(tmp_path, module(), checkpoint=checkpoint, seed=99, **options)
        assert not differences(resumed, expected), at


class TwoNames(Random):
    """The searched part stands under two names, as the supernet of `FusionSearch` does."""

    def __init__(self, fail_in: str = "", at: int = -1) -> None:
        super().__init__(fail_in, at)
        self.again = self.net


@pytest.mark.parametrize("place", ["after architecture", "before forward", "after forward"])
def test_an_exception_is_undone_under_every_name(place: str, tmp_path: Path) -> None:
    expected = fit(tmp_path, TwoNames(), max_epochs=2)
    checkpoint = tmp_path / "killed.ckpt"
    with pytest.raises(KilledError):
        fit(tmp_path, TwoNames(place, 4), OnException(checkpoint), max_epochs=2)
    weights = torch.load(checkpoint, weights_only=True)["state_dict"]
    for name in [name for name in weights if name.startswith("net.")]:
        assert torch.equal(weights[name], weights[name.replace("net.", "again.", 1)]), name
    resumed = fit(tmp_path, TwoNames(), checkpoint=checkpoint, seed=99, max_epochs=2)
    assert not differences(resumed, expected)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    ("module", "place", "at"),
    [(TwoNames, "after architecture", 4), (Random, "before forward", 4), (Validated, "validation", 9)],
)
def test_averaged_weights_are_left_alone(
    module: type[Random], place: str, at: int, first: bool, tmp_path: Path
) -> None:
    """What is undone are the weights that are trained, wherever the callback that averages them has put them."""

    def averaged(module: Random, *callbacks: Any, **options: Any) -> dict[str, Tensor]:
        averaging: list[Any] = [WeightAveraging()]
        where: dict[str, Any] = {"before": averaging} if first else {}
        return fit(tmp_path, module, *([] if first else averaging), *callbacks, max_epochs=2, **where, **options)

    expected = averaged(module())
    checkpoint = tmp_path / "killed.ckpt"
    with pytest.raises(KilledError):
        averaged(module(place, at), OnException(checkpoint))
    assert not differences(averaged(module(), checkpoint=checkpoint, seed=99), expected)


def test_a_checkpoint_that_slurm_asks_for_within_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning writes it in the signal's handler: between the architecture step and the weight step, for example."""

    class Asked(Random):
        def maybe_fail(self, place: str) -> None:
            if place == self.fail_in and self.trainer.fit_loop.total_batch_idx == self.at:
                os.kill(os.getpid(), signal.SIGUSR1)

    expected = fit(tmp_path, Random(), max_epochs=2)
    for name, value in {"NTASKS": "1", "JOB_ID": "7", "JOB_NAME": "job", "PROCID": "0", "LOCALID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    (tmp_path / "scontrol").write_text("#!/bin/sh\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for place in ("after architecture", "before forward"):
        folder = tmp_path / place
        assert not differences(fit(folder, Asked(place, 4), max_epochs=2), expected)  # writing it changes nothing
        resumed = fit(tmp_path, Random(), checkpoint=folder / "hpc_ckpt_1.ckpt", seed=99, max_epochs=2)
        assert not differences(resumed, expected)


@pytest.mark.parametrize("order", ["before", "after", "none"])
def test_exact_resume_stands_before_the_alternation(order: str, tmp_path: Path) -> None:
    resume, alternation = ExactResume(), ArchitectureAlternation()
    listed: dict[str, list[Any]] = {
        "before": [resume, alternation],
        "after": [alternation, resume],
        "none": [alternation],
    }
    run = trainer(tmp_path, *listed[order], max_epochs=1)
    run.fit(Random(), loaders())
    found: list[Any] = [c for c in run.callbacks if isinstance(c, ExactResume | ArchitectureAlternation)]  # type: ignore[attr-defined]
    assert [type(callback) for callback in found] == [ExactResume, ArchitectureAlternation]
    assert order == "none" or found[0] is resume
    run.fit_loop.max_epochs = 2
    run.fit(Random(), loaders())  # again: nothing is added twice
    assert [c for c in run.callbacks if isinstance(c, ExactResume)] == found[:1]  # type: ignore[attr-defined]


def test_checkpoints_that_hold_both_states_in_one_are_read(tmp_path: Path) -> None:
    expected = fit(tmp_path, Random(), max_epochs=2)
    save = SaveAlways(tmp_path)
    fit(tmp_path, Random(), save, max_epochs=2)
    path = save.paths[2]  # in the middle of the first epoch
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["callbacks"]["ArchitectureAlternation"]["run"] = checkpoint["callbacks"].pop("ExactResume")
    torch.save(checkpoint, path)
    resumed = fit(tmp_path, Random(), checkpoint=path, seed=99, max_epochs=2)
    assert not differences(resumed, expected)


class FailsFirst(Callback):
    """Fails after exact resume has begun a batch and before the alternation has."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.at:
            raise KilledError("between")


def test_resumed_after_an_exception_between_the_two_callbacks(tmp_path: Path) -> None:
    """The steps of the batch before are not undone a second time."""
    expected = fit(tmp_path, Random(), max_epochs=2)
    for at in (0, 3, 7):
        module = Random()
        seed_everything(1, verbose=False)
        checkpoint = tmp_path / f"{at}.ckpt"
        settings: dict[str, Any] = {"lr": 0.1, "scheduler": _exponential}
        callbacks = [ExactResume(), FailsFirst(at), ArchitectureAlternation(**settings), OnException(checkpoint)]
        with pytest.raises(KilledError):
            trainer(tmp_path, *callbacks, max_epochs=2).fit(module, loaders(20, 12, shuffle=True))
        resumed = fit(tmp_path, Random(), checkpoint=checkpoint, seed=99, max_epochs=2)
        assert not differences(resumed, expected), at
