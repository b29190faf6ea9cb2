"""Run by two ranks: a progress bar, which one of them has, and averages of the epoch over both."""

import sys
from datetime import timedelta
from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor, ones
from torch.utils.data import DataLoader, TensorDataset

from lightning_mmnas.callbacks import ExactResume, LastCheckpoint
from lightning_mmnas.callbacks.ending import EndTogether
from tests.callbacks.searchers import trainer
from tests.commands.toys import ToyModule


class Averaged(ToyModule):
    """Its loss of an epoch is that of all ranks, and in the bar."""

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self(batch[0]).square().mean()
        self.log("train/loss", loss, on_step=False, on_epoch=True, prog_bar=True, sync_dist=True)
        return loss


class Meeting(Callback):
    """Has all ranks wait for each other at the end of an epoch."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert sorted(trainer.strategy.all_gather(ones(()) * trainer.global_rank).tolist()) == [0, 1]


def fit(folder: Path, *callbacks: Callback) -> None:
    strategy = DDPStrategy(process_group_backend="gloo", timeout=timedelta(seconds=60))
    run = trainer(folder, *callbacks, strategy=strategy, devices=2, enable_progress_bar=True)
    run.fit(Averaged(), DataLoader(TensorDataset(ones(16, 8)), batch_size=4))
    assert run.current_epoch == 2


def main(folder: Path) -> None:
    fit(folder, ExactResume(), RichProgressBar(), LastCheckpoint(folder))
    fit(folder, EndTogether(), RichProgressBar(), Meeting())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
