"""How far a training is: steps, time, data without a length, and what follows it."""

import io
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler, Timer
from lightning.pytorch.utilities import CombinedLoader
from rich.console import Console
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR
from torch.utils.data import DataLoader, IterableDataset

from lightning_mmnas import ArchitectureAlternation, FineTuning, FusionSearch
from lightning_mmnas.callbacks.progress import StageProgress
from lightning_mmnas.errors import ConfigError
from lightning_mmnas.fusion.late_fusion import LateFusion
from lightning_mmnas.fusion.relaxation import Softmax
from lightning_mmnas.modules import length
from lightning_mmnas.objectives.regularisation import BetaDecay
from lightning_mmnas.objectives.training import Schedule, rate_after
from lightning_mmnas.report.progress import Activity, RunProgress
from tests.callbacks.searchers import trainer
from tests.callbacks.test_selection import SENSORS, data_of, search_of
from tests.modules import tiny

# The loaders that are given to the trainer have no validation beside them.
pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")


class Stream(IterableDataset[dict[str, Tensor]]):
    """Thirty-two samples, which nobody has counted."""

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        generator = torch.Generator().manual_seed(0)
        for _ in range(32):
            yield {name: torch.randn(3, 16, generator=generator) for name in SENSORS}


def stream() -> CombinedLoader:
    parts = {name: DataLoader(Stream(), batch_size=8) for name in ("weights", "architecture")}
    return CombinedLoader(parts, "max_size_cycle")


def sized() -> Any:
    data = data_of()
    data.setup("fit")
    return data.train_dataloader()


class Seen(FusionSearch):
    """Notes how far it is, and its rate, in every weight step."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.far = [*getattr(self, "far", []), self.progress()]
        self.rates = [*getattr(self, "rates", []), self.trainer.optimizers[0].param_groups[0]["lr"]]
        return super().training_step(batch, batch_idx)


def fit(folder: Path, loader: Any, *callbacks: Any, schedule: Schedule = "one_cycle", **options: Any) -> Seen:
    module = search_of(Seen, relaxation=Softmax(1.0, 0.1), schedule=schedule)
    run = trainer(folder, ArchitectureAlternation(), *callbacks, limit_val_batches=0, **options)
    run.fit(module, loader)
    assert isinstance(module, Seen)
    return module


@pytest.mark.parametrize(
    ("data", "options", "steps"),
    [
        (sized, {"max_epochs": 3}, 6),
        (sized, {"max_epochs": -1, "max_steps": 5}, 5),
        (sized, {"max_epochs": 3, "max_steps": 5}, 5),
        (sized, {"max_epochs": 3, "limit_train_batches": 1}, 3),
        (sized, {"max_epochs": 3, "accumulate_grad_batches": 2}, 3),
        (sized, {"max_epochs": 3, "max_time": timedelta(days=1)}, 6),
        (stream, {"max_epochs": 3, "max_steps": 5}, 5),
        (stream, {"max_epochs": 3, "limit_train_batches": 2}, 6),
    ],
)
def test_steps_that_are_known(data: Any, options: dict[str, Any], steps: int, tmp_path: Path) -> None:
    module = fit(tmp_path, data(), **options)
    each = options.get("accumulate_grad_batches", 1)
    assert module.far == [i // each / steps for i in range(steps * each)]
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=3e-3)
    expected = OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps + 1)
    for i in range(steps):
        assert module.rates[i * each] == pytest.approx(expected.get_last_lr()[0])
        optimizer.step()
        expected.step()


def test_accumulation_that_changes(tmp_path: Path) -> None:
    module = fit(tmp_path, sized(), GradientAccumulationScheduler({0: 1, 1: 2}), max_epochs=3)
    assert module.far == [0.0, 0.25, 0.5, 0.5, 0.75, 0.75]  # 2 + 1 + 1 steps


class Short(Seen):
    """A schedule that ends before the training does."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW([p for p in self.parameters() if p.requires_grad])
        return [optimizer], [OneCycleLR(optimizer, max_lr=0.1, total_steps=2)]


def test_a_schedule_that_ends_before_the_training(tmp_path: Path) -> None:
    run = trainer(tmp_path, ArchitectureAlternation(), limit_val_batches=0, max_epochs=3)
    message = "OneCycleLR is laid out for total_steps=2, and the training makes 3 .* one for each epoch"
    with pytest.raises(ConfigError, match=message):
        run.fit(search_of(Short), sized())


@pytest.mark.parametrize(("schedule", "kind"), [("one_cycle", "OneCycleLR"), ("cosine", "CosineAnnealingLR")])
def test_a_longer_resume_without_exact_resume(schedule: Schedule, kind: str, tmp_path: Path) -> None:
    def stage() -> FineTuning:
        return FineTuning(tiny.modalities(), tiny.ENCODERS, 2, "multiclass", fusion=LateFusion, schedule=schedule)

    data, path = tiny.data_of(labels=True), tmp_path / "last.ckpt"
    first = tiny.trainer_of(tmp_path, limit_train_batches=2)
    first.fit(stage(), data)
    first.save_checkpoint(path)
    again = tiny.trainer_of(tmp_path, limit_train_batches=2, max_epochs=3)
    with pytest.raises(
        ConfigError, match=rf"{kind} of the checkpoint is laid out for [23] steps, and .* makes 6: resume"
    ):
        again.fit(stage(), data, ckpt_path=path)


@pytest.mark.parametrize("data", [sized, stream])
def test_time_alone(data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time.monotonic", lambda: float(next(clock)))
    module = fit(tmp_path, data(), max_epochs=-1, max_time=timedelta(seconds=100))
    assert module.far == sorted(module.far)
    assert module.far[0] < 0.1 < 0.8 < module.far[-1] <= 1
    peak = max(module.rates)
    assert module.rates[0] < 0.2 * peak < peak <= 3e-3
    assert module.rates[-1] < 0.2 * peak


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_rates_over_time_are_those_over_steps(schedule: Schedule) -> None:
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(1))], lr=2.0)
    steps = 40
    torchs: LRScheduler | None = None
    if schedule == "one_cycle":  # torch counts the first rate as a step
        torchs = OneCycleLR(optimizer, max_lr=2.0, total_steps=steps + 1, pct_start=0.3 + 0.7 / (steps + 1))
    elif schedule == "cosine":
        torchs = CosineAnnealingLR(optimizer, T_max=steps)
    for i in range(steps + 1):
        rate = optimizer.param_groups[0]["lr"]
        assert rate == pytest.approx(2.0 * rate_after(i / steps, schedule), rel=1e-6, abs=1e-6)
        optimizer.step()
        if torchs is not None and i < steps:
            torchs.step()


@pytest.mark.parametrize(
    ("loader", "options"), [(stream, {"max_epochs": 2}), (stream, {"max_epochs": -1}), (sized, {"max_epochs": -1})]
)
def test_nothing_says_how_long(loader: Any, options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"schedule 'one_cycle' needs to know .*: set trainer.max_steps, or .*constant"
    ):
        fit(tmp_path, loader(), **options)
    with pytest.raises(
        ConfigError, match=r"Softmax follows the progress of the training, .*: set trainer.max_steps, or"
    ):
        fit(tmp_path, loader(), schedule="constant", **options)
    growing = search_of(regularisation=[BetaDecay()], schedule="constant")
    run = trainer(tmp_path, ArchitectureAlternation(), limit_val_batches=0, **options)
    with pytest.raises(ConfigError, match="BetaDecay follows the progress of the training"):
        run.fit(growing, loader())


@pytest.mark.parametrize(
    ("options", "total", "unit"),
    [
        ({"max_epochs": 2}, 4, "batches"),
        ({"max_epochs": 2, "max_steps": 3}, 3, "steps"),
        ({"max_epochs": -1, "max_time": timedelta(seconds=1)}, 1, "seconds"),
    ],
)
def test_bars(
    options: dict[str, Any], total: float, unit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    progress = RunProgress(Console(file=io.StringIO()), ["search"])
    begun: list[Any] = []
    told: list[Any] = []
    begin, update = progress.activity, Activity.update

    def activity(what: str, *args: Any, **kwargs: Any) -> Any:
        begun.append((what, *args))
        return begin(what, *args, **kwargs)

    def spy(self: Activity, *args: Any, **kwargs: Any) -> None:
        told.append(args)
        update(self, *args, **kwargs)

    monkeypatch.setattr(progress, "activity", activity)
    monkeypatch.setattr(Activity, "update", spy)
    with progress, progress.stage("search"):
        fit(tmp_path, sized(), StageProgress("search", progress), **options)
    assert ("supernet", total, unit) in begun
    assert told[0][1].startswith("supernet, epoch 1")
    done = [args[0] for args in told]
    assert done == sorted(done)
    assert unit == "seconds" or done[-1] == total


def test_a_bar_without_an_end(tmp_path: Path) -> None:
    progress = RunProgress(Console(file=io.StringIO()), ["search"])
    module = search_of(schedule="constant")
    with progress, progress.stage("search"):
        run = trainer(tmp_path, ArchitectureAlternation(), StageProgress("search", progress), limit_val_batches=0)
        run.fit(module, stream())
    assert run.global_step == 8
    assert (length.weight_steps(run), length.seconds(run), length.fraction_done(run)) == (None, None, None)
    assert not [callback for callback in run.callbacks if isinstance(callback, Timer)]  # type: ignore[attr-defined]
