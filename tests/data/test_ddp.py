"""Two gloo processes: Lightning puts its `DistributedSampler` into our loaders."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning import LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import DistributedSampler

from lightning_mmnas.data import TensorDataModule
from tests.ranks import start_ranks

_SAMPLES, _PROCESSES, _EPOCHS = 120, 2, 2


class Reader(LightningModule):
    """Notes which samples it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.seen: list[tuple[int, str, list[int]]] = []

    def training_step(self, batch: dict[str, dict[str, Tensor]], batch_idx: int) -> Tensor:
        for key, part in batch.items():
            assert set(part) == {"index"}
            self.seen.append((self.current_epoch, key, part["index"][:, 0].int().tolist()))
        loss: Tensor = self.layer(batch["weights"]["index"]).mean()
        return loss

    def configure_optimizers(self) -> Optimizer:
        return SGD(self.parameters(), lr=0.0)


def train(rank: int, folder: str) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    split = {"index": torch.arange(_SAMPLES, dtype=torch.float32).unsqueeze(1)}
    data = TensorDataModule(
        split,
        split,
        kinds={"index": "features"},
        groups=torch.arange(_SAMPLES) // 6,
        labels=False,
        architecture_fraction=0.5,
        batch_size=8,
    )
    trainer = Trainer(
        accelerator="cpu",
        devices=_PROCESSES,
        strategy="ddp",
        max_epochs=_EPOCHS,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Reader()
    trainer.fit(module, data)
    assert trainer.train_dataloader is not None
    samplers = {type(loader.sampler) for loader in trainer.train_dataloader.values()}
    assert samplers == {DistributedSampler}
    torch.save(module.seen, Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_ranks_share_both_parts_out(tmp_path: Path) -> None:
    start_ranks(train, (str(tmp_path),), _PROCESSES)
    seen = [torch.load(tmp_path / f"{rank}.pt") for rank in range(_PROCESSES)]
    orders = []
    for epoch in range(_EPOCHS):
        read: dict[str, set[int]] = {}
        for key in ("weights", "architecture"):
            batches = [[b for e, k, b in rank if (e, k) == (epoch, key)] for rank in seen]
            # 60 samples, 30 per rank: 3 full batches of 8 each, the rest is dropped.
            assert [[len(b) for b in rank] for rank in batches] == [[8] * 3] * 2
            first, second = ({i for b in rank for i in b} for rank in batches)
            assert not first & second
            read[key] = first | second
            assert len(read[key]) == 48
            orders.append(tuple(batches[0][0]))
        groups = [{i // 6 for i in part} for part in read.values()]
        assert not groups[0] & groups[1]
    assert len(set(orders)) == len(orders)  # shuffled anew every epoch
