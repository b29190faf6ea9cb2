"""Run by torchrun: a rank without a validation batch is refused on all ranks."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from lightning_mmnas.callbacks.ending import EndTogether
from tests.callbacks.searchers import trainer
from tests.commands.toys import ToyModule

RANK = int(os.environ.get("RANK", 0))


class Endless(IterableDataset[list[Tensor]]):
    def __init__(self, batches: int) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[Tensor]]:
        return iter([[torch.ones(4, 8)]] * self.batches)


class Uneven(LightningDataModule):
    """Allows what Lightning refuses otherwise, on the rank that has no batch, while the other one goes on."""

    def __init__(self, val: Any) -> None:
        super().__init__()
        self.allow_zero_length_dataloader_with_multiple_devices = True
        self.val = val

    def train_dataloader(self) -> DataLoader[Any]:
        some: Any = [[torch.ones(4, 8)]] * 3
        return DataLoader(some, batch_size=None)

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.val, batch_size=None)


class Steps(Callback):
    def __init__(self) -> None:
        self.steps = 0

    def on_train_batch_start(self, trainer: Trainer, *args: Any) -> None:
        self.steps += 1


def fit(folder: Path, val: Any, **options: Any) -> int:
    steps = Steps()
    given = {"strategy": "ddp", "devices": 2, "max_epochs": 1, "num_sanity_val_steps": 0, **options}
    run = trainer(folder, EndTogether(), steps, use_distributed_sampler=False, **given)
    try:
        run.fit(ToyModule(), datamodule=Uneven(val))
    finally:
        folder.with_name(f"steps{RANK}").write_text(str(steps.steps))
    return steps.steps


def main(folder: Path) -> None:
    some = [[torch.ones(4, 8)]] * 3
    assert fit(folder / "both", some) == 3
    with pytest.raises(MisconfigurationException, match="a rank has no validation batch, another has 3"):
        fit(folder / "empty", some[: 3 * (1 - RANK)])
    assert (folder / f"steps{RANK}").read_text() == "0"
    with pytest.raises(MisconfigurationException, match="a rank has no validation batch, another has 2"):
        fit(folder / "endless", Endless(2 * RANK))
    assert fit(folder / "none", some[: 3 * (1 - RANK)], limit_val_batches=0) == 3


if __name__ == "__main__":
    main(Path(sys.argv[1]))
