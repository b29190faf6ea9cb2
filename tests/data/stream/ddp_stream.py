"""A search of two gloo processes over shards, run by test_training.py under torchrun."""

import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from lightning_mmnas import ArchitectureAlternation
from tests.data.stream.make_shards import data_of
from tests.data.stream.test_training import search_of
from tests.modules.tiny import trainer_of


class Rows(Callback):
    """Which samples, and of which part, this rank read in each epoch."""

    def __init__(self) -> None:
        self.seen: dict[tuple[int, str], list[int]] = {}

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        for part, samples in batch.items():
            rows = self.seen.setdefault((trainer.current_epoch, part), [])
            rows += samples["north"][:, 0].mul(1000).round().int().tolist()


def main(folder: Path) -> None:
    warnings.filterwarnings("ignore")
    rows = Rows()
    data = data_of(folder / "shards", architecture_fraction=0.5, batch_size=7)
    module = search_of(data)
    options = {"strategy": "ddp", "devices": 2, "max_epochs": 2, "limit_val_batches": 1}
    trainer_of(folder, **options, callbacks=[rows, ArchitectureAlternation(lr=0.1)]).fit(module, data)
    samples = {name: loader.dataset.indices for name, loader in data.train_dataloader().iterables.items()}  # type: ignore[union-attr]
    parts = {name: data.source("train").batch(indices)["north"][:, 0] for name, indices in samples.items()}
    state = {name: value.clone() for name, value in module.named_parameters()}
    rank = torch.distributed.get_rank()
    torch.save({"seen": rows.seen, "parts": parts, "state": state}, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
