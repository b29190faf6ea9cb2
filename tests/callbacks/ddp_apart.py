"""Run by two ranks: one that leaves its epoch, or the training, alone is told on both."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_mmnas.callbacks import LastCheckpoint
from lightning_mmnas.callbacks.ending import EndTogether
from tests.callbacks.searchers import trainer
from tests.commands.toys import ToyModule

RANK = int(os.environ.get("RANK", 0))


class Batches(IterableDataset[list[Tensor]]):
    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Tensor]]:
        return iter([[torch.ones(4, 8)]] * self.batches)


class Stop(Callback):
    """Ends the training of rank 1 after some steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_train_batch_end(self, run: Trainer, *args: Any) -> None:
        run.should_stop = run.should_stop or (RANK == 1 and run.global_step == self.steps)


class Skips(ToyModule):
    """Leaves its epoch before some batch, on some ranks."""

    def __init__(self, at: int, *ranks: int) -> None:
        super().__init__()
        self.at, self.ranks, self.skipped = at, ranks, 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        skips = RANK in self.ranks and batch_idx == self.at
        self.skipped += skips
        return -1 if skips else None


def fit(folder: Path, batches: int, *callbacks: Any, val: bool = False) -> None:
    loaders = [DataLoader(Batches(size), batch_size=None) for size in (batches, 2)]
    run = trainer(folder, EndTogether(), LastCheckpoint(folder), *callbacks, strategy="ddp", devices=2, max_epochs=3)
    run.fit(ToyModule(), loaders[0], loaders[1] if val else None)
    assert run.global_step == 3 * batches


def main(folder: Path) -> None:
    message = "a rank has left its epoch, and another would train on .* give all ranks equally many batches"
    fit(folder, 3, val=True)
    for batches, steps, val in (
        (3 + RANK, 100, False),
        (3 + RANK, 100, True),
        (4, 2, False),
        (4, 2, True),
        (4, 4, True),
    ):
        with pytest.raises(MisconfigurationException, match=message):
            fit(folder / f"{batches - RANK}-{steps}-{val}", batches, Stop(steps), val=val)


def skip(folder: Path) -> None:
    """A module that ends its epoch on all ranks trains on, one that does so on some of them is told."""
    loader, message = (
        DataLoader(Batches(4), batch_size=None),
        "a rank has left its epoch.*or -1 of on_train_batch_start",
    )
    for at in (0, 2):
        module = Skips(at, 0, 1)
        run = trainer(folder, EndTogether(), LastCheckpoint(folder), strategy="ddp", devices=2, max_epochs=3)
        run.fit(module, loader)
        assert (run.global_step, module.skipped) == (3 * at, 3)
        assert "on_train_batch_start" not in vars(module)
        for rank in (0, 1):
            alone = Skips(at, rank)
            run = trainer(folder, EndTogether(), LastCheckpoint(folder), strategy="ddp", devices=2, max_epochs=3)
            with pytest.raises(MisconfigurationException, match=message):
                run.fit(alone, loader)
            assert "on_train_batch_start" not in vars(alone)


if __name__ == "__main__":
    {"main": main, "skip": skip}[sys.argv[2]](Path(sys.argv[1]))
