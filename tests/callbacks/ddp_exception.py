"""Run by two ranks: an error of one of them leaves a checkpoint, and ends the other too."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch.utils.data import DataLoader, TensorDataset

from lightning_mmnas.callbacks import ExactResume, LastCheckpoint
from tests.callbacks.searchers import trainer
from tests.commands.toys import ToyModule

RANK = int(os.environ.get("RANK", 0))


class Broken(Callback):
    def on_train_batch_start(self, run: Trainer, *args: Any) -> None:
        if run.global_step == 3 and run.global_rank == 1:
            raise ValueError("no such file")


def main(folder: Path) -> None:
    run = trainer(folder, ExactResume(), LastCheckpoint(folder), Broken(), strategy="ddp", devices=2)
    data = DataLoader(TensorDataset(torch.ones(16, 8)), batch_size=4)
    with pytest.raises(ValueError if RANK == 1 else RuntimeError, match="no such file" if RANK == 1 else ""):
        run.fit(ToyModule(), data)
    if RANK == 0:
        checkpoint = torch.load(folder / "last.ckpt", weights_only=True)
        assert (checkpoint["epoch"], checkpoint["global_step"]) == (1, 3)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
