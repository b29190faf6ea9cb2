"""A resumed run with other settings: what counts is said, and what cannot be is refused before a step is made."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, seed_everything
from lightning.pytorch.callbacks import BatchSizeFinder, LearningRateFinder, ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.utilities import CombinedLoader
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from lightning_mmnas.callbacks import ArchitectureAlternation, ExactResume, LastCheckpoint
from lightning_mmnas.data.samples import EpochSampler
from lightning_mmnas.modules.base import plain_optimizer
from lightning_mmnas.objectives.training import Schedule
from tests.callbacks.searchers import Searcher, dataset, differences, loaders, trainer, values
from tests.callbacks.test_alternation_resume import SaveAlways


class Scheduled(Searcher):
    """With the optimiser and the schedules of the stages."""

    def __init__(self, schedule: Schedule = "constant", lr: float = 0.05) -> None:
        super().__init__(lr=lr)
        self.schedule: Schedule = schedule

    def configure_optimizers(self) -> OptimizerLRScheduler:
        weights = [p for p in self.parameters() if p.requires_grad]
        return plain_optimizer(self, [{"params": weights, "lr": self.lr}], 0.01, self.schedule)


def fit(
    root: Path,
    module: Searcher,
    *callbacks: Any,
    checkpoint: Path | None = None,
    data: CombinedLoader | None = None,
    max_epochs: int = 2,
    **arguments: Any,
) -> dict[str, Tensor]:
    """Trains on 5 batches an epoch with the alternation's arguments; returns the weights."""
    seed_everything(1, verbose=False)
    alternation = ArchitectureAlternation(**{"lr": 0.1, **arguments})
    run = trainer(root, alternation, *callbacks, max_epochs=max_epochs)
    run.fit(module, loaders(20, 12, shuffle=True) if data is None else data, ckpt_path=checkpoint)
    return values(module)


@pytest.fixture
def saved(tmp_path: Path) -> list[Path]:
    """Checkpoints after every batch and epoch of a search."""
    save = SaveAlways(tmp_path)
    fit(tmp_path, Searcher(), save)
    return save.paths


ANEW = "or train anew from its weights, without ckpt_path"


def test_other_values_do_not_count_and_it_is_said(saved: list[Path], tmp_path: Path) -> None:
    expected = fit(tmp_path, Searcher(), checkpoint=saved[2])
    with pytest.warns(UserWarning, match="Resumed are the settings of the checkpoint") as told:
        resumed = fit(tmp_path, Searcher(lr=0.2), checkpoint=saved[2], lr=0.3, weight_decay=0.0)
    texts = [str(warning.message) for warning in told]
    weights, logits = [text for text in texts if text.startswith("Resumed are")]
    assert "for the weights too; this run's do not count: lr 0.05 (not 0.2). For other ones train anew" in weights
    text = "for the architecture logits too; this run's do not count: lr 0.1 (not 0.3), weight_decay 0.001 (not 0.0)"
    assert text in logits
    assert not differences(resumed, expected)


@pytest.mark.parametrize(
    ("arguments", "now", "earlier"),
    [
        ({"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}, "SGD", False),
        ({"optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9)}, "SGD", True),
        ({"scheduler": partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)}, "Adam with ExponentialLR", False),
    ],
)
def test_another_optimiser_of_the_logits(
    arguments: dict[str, Any], now: str, earlier: bool, saved: list[Path], tmp_path: Path
) -> None:
    message = f"trains the architecture logits by Adam, and this run by {now}: resume with Adam, {ANEW}"
    path = saved[2]
    if earlier:  # as an earlier version wrote it
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["callbacks"]["ArchitectureAlternation"]["architecture"]["settings"]
        for name in ("settings", "length"):
            del checkpoint["callbacks"]["ExactResume"][name]
        path = tmp_path / "earlier.ckpt"
        torch.save(checkpoint, path)
        assert not differences(fit(tmp_path, Searcher(), checkpoint=path), fit(tmp_path, Searcher()))
        message = "by another optimiser.*resume with that optimiser"
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, Searcher(), checkpoint=path, **arguments)


def test_another_optimiser_of_the_weights(saved: list[Path], tmp_path: Path) -> None:
    message = "trains the weights by SGD with StepLR, and this run by AdamW with ConstantLR"
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, Scheduled(), checkpoint=saved[2])


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_more_epochs(schedule: Schedule, tmp_path: Path) -> None:
    last = LastCheckpoint(tmp_path)
    fit(tmp_path, Scheduled(schedule), last)
    path = tmp_path / "last.ckpt"
    if schedule == "constant":
        assert not differences(
            fit(tmp_path, Scheduled(schedule), LastCheckpoint(tmp_path), checkpoint=path, max_epochs=4),
            fit(tmp_path, Scheduled(schedule), max_epochs=4),
        )
        return
    before = path.read_bytes()
    kind, ends = {
        "one_cycle": ("OneCycleLR", r"total_steps 11 \(not 21\)"),
        "cosine": ("CosineAnnealingLR", r"T_max 10 \(not 20\)"),
    }[schedule]
    message = rf"{kind} of the checkpoint is laid out for .* another length \(max_epochs 2 -> 4; {ends}\): resume with"
    with pytest.raises(MisconfigurationException, match=message):
        fit(tmp_path, Scheduled(schedule), LastCheckpoint(tmp_path), checkpoint=path, max_epochs=4)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("data", "change"),
    [
        ({"weights": 12}, "batches in an epoch 5 -> 3"),
        ({"weights": 40, "architecture": 24, "batch_size": 8}, r"\[\[5, 4, 20\], \[3, 4, 12\]\] -> \[\[5, 8, 40\]"),
        ({"weights": 20, "architecture": 8}, r"\[3, 4, 12\]\] -> \[\[5, 4, 20\], \[2, 4, 8\]\]"),
    ],
)
def test_other_batches(data: dict[str, Any], change: str, saved: list[Path], tmp_path: Path) -> None:
    """Within an epoch nobody knows which samples are still to come; after one, the data are as they are now."""
    sizes = {"weights": 20, "architecture": 12, **data}
    with pytest.raises(MisconfigurationException, match=f"after 4 batches, and the batches .* others .*{change}"):
        fit(tmp_path, Searcher(), checkpoint=saved[3], data=loaders(shuffle=True, **sizes))
    assert "epoch" in saved[5].name
    module = Searcher()
    with pytest.warns(UserWarning, match=f"draws from other data than the checkpoint's .*{change}"):
        fit(tmp_path, module, checkpoint=saved[5], data=loaders(shuffle=True, **sizes))
    assert len(module.losses) == len(loaders(**sizes).iterables["weights"])


def seeded(seed: int) -> CombinedLoader:
    parts = {"weights": dataset(20, 1), "architecture": dataset(12, 2)}
    return CombinedLoader(
        {name: DataLoader(part, batch_size=4, sampler=EpochSampler(part, seed)) for name, part in parts.items()},
        "max_size_cycle",
    )


def test_another_seed_of_the_data(tmp_path: Path) -> None:
    """Their order would be another one, and the parts of a search would be divided anew."""
    save = SaveAlways(tmp_path)
    fit(tmp_path, Searcher(), save, data=seeded(0))
    change = r"seeds of the batches \[0, 0\] -> \[3, 3\]"
    with pytest.raises(MisconfigurationException, match=f"after 4 batches, and the batches .* others .*{change}"):
        fit(tmp_path, Searcher(), checkpoint=save.paths[3], data=seeded(3))
    with pytest.warns(UserWarning, match=f"draws from other data than the checkpoint's .*{change}"):
        fit(tmp_path, Searcher(), checkpoint=save.paths[5], data=seeded(3))


def test_weights_alone_are_no_place_to_go_on_from(tmp_path: Path) -> None:
    fit(tmp_path, Searcher(), ModelCheckpoint(tmp_path, filename="weights", save_weights_only=True))
    with pytest.raises(MisconfigurationException, match=r"holds the weights alone \(save_weights_only\).* ckpt_path"):
        fit(tmp_path, Searcher(), checkpoint=tmp_path / "weights.ckpt")


class Plateau(Searcher):
    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD([p for p in self.parameters() if p.requires_grad], lr=0.1)
        return {"optimizer": optimizer, "lr_scheduler": ReduceLROnPlateau(optimizer), "monitor": "train/loss"}


def test_a_schedule_that_follows_a_metric_is_warned_of(tmp_path: Path) -> None:
    save = SaveAlways(tmp_path)
    fit(tmp_path, Plateau(), save)
    with pytest.warns(UserWarning, match="ReduceLROnPlateau leaves out the epoch that the checkpoint was written in"):
        fit(tmp_path, Plateau(), checkpoint=save.paths[0])


class Found(LightningDataModule):
    """With what the finders look for."""

    batch_size = 4

    def train_dataloader(self) -> CombinedLoader:
        return loaders(20, 12, batch_size=self.batch_size, shuffle=True)


@pytest.mark.parametrize("finder", [LearningRateFinder(num_training_steps=2), BatchSizeFinder(max_trials=1)])
def test_finders_do_not_begin_again(finder: Any, tmp_path: Path) -> None:
    trainer(tmp_path, ExactResume(), saving := SaveAlways(tmp_path)).fit(Searcher(), datamodule=Found())
    module, run = Searcher(), trainer(tmp_path, ExactResume(), finder)
    with pytest.raises(
        MisconfigurationException, match=r"Finder would begin again .* give the value that it has found"
    ):
        run.fit(module, datamodule=Found(), ckpt_path=saving.paths[0])
    assert not module.losses


@pytest.mark.filterwarnings("ignore:SWA is currently only supported every epoch")
def test_averages_that_do_not_go_on_are_warned_of(tmp_path: Path) -> None:
    save = SaveAlways(tmp_path)
    trainer(tmp_path, ExactResume(), StochasticWeightAveraging(0.1), save, max_epochs=4).fit(Searcher(), loaders())
    run = trainer(tmp_path, ExactResume(), StochasticWeightAveraging(0.1), max_epochs=4)
    with pytest.warns(
        UserWarning, match="StochasticWeightAveraging keeps no state .* EMAWeightAveraging resumes exactly"
    ):
        run.fit(Searcher(), loaders(), ckpt_path=save.paths[0])


def test_weights_of_64_bits_keep_them(tmp_path: Path) -> None:
    def trained(*callbacks: Any, checkpoint: Path | None = None) -> dict[str, Tensor]:
        module = Searcher(dtype=torch.float32)
        run = trainer(tmp_path, ArchitectureAlternation(lr=0.1), *callbacks, precision="64-true")
        run.fit(module, loaders(shuffle=False), ckpt_path=checkpoint)
        return values(module)

    save = SaveAlways(tmp_path)
    expected = trained(save)
    assert expected["net.head.weight"].dtype == torch.float64
    assert [differences(trained(checkpoint=path), expected) for path in save.paths[:4]] == [[]] * 4
