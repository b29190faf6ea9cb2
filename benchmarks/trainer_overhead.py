"""What Lightning's loop, `ArchitectureAlternation` and logging add to a bare loop of the same steps."""

import tempfile
import time
import warnings
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.our_alternation import Alternation
from benchmarks.speed_cases import PlainLoss, Setting
from lightning_mmnas import ArchitectureAlternation
from lightning_mmnas.callbacks.progress import hide_advertisements, quiet
from lightning_mmnas.fusion.pairing import Pairing

SKIPPED = 3
"""Steps at the start that are not measured."""


class Search(LightningModule):
    """A search of the kind of `FusionSearch`, over states that are there already."""

    def __init__(self, loss: PlainLoss) -> None:
        super().__init__()
        self.loss = loss
        self.marks: list[float] = []

    def architecture_parameters(self) -> list[nn.Parameter]:
        found: list[nn.Parameter] = self.loss.fusion.architecture_parameters()
        return found

    def architecture_step(self, batch: Any) -> Tensor:
        loss: Tensor = self.loss(batch)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss: Tensor = self.loss(batch["weights"])
        size = len(next(iter(batch["weights"].values())))
        self.log("train/loss", loss, on_step=True, on_epoch=True, batch_size=size, sync_dist=True)
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.marks.append(time.process_time())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(weights, lr=1e-3, fused=True)


def _loader(setting: Setting, batch: int, steps: int) -> CombinedLoader:
    torch.manual_seed(0)
    batches = [setting.features(setting.states(batch)) for _ in range(2)]
    parts = {name: [batches[k]] * steps for k, name in enumerate(("weights", "architecture"))}
    return CombinedLoader({name: DataLoader(part, batch_size=None) for name, part in parts.items()}, "max_size_cycle")  # type: ignore[arg-type]


def trainer_milliseconds(setting: Setting, pairing: Pairing, batch: int, steps: int) -> float:
    """CPU time of one alternation within a `Trainer` that logs to a CSV file every ten steps."""
    search = Search(PlainLoss(setting.supernet(pairing)))
    hide_advertisements()
    with tempfile.TemporaryDirectory() as folder, quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=CSVLogger(folder),
            log_every_n_steps=10,
            callbacks=[ArchitectureAlternation()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(search, _loader(setting, batch, steps))
    marks = search.marks[SKIPPED - 1 :]
    return 1e3 * (marks[-1] - marks[0]) / (len(marks) - 1)


def bare_milliseconds(setting: Setting, pairing: Pairing, batch: int, steps: int) -> float:
    """CPU time of one alternation in a plain loop over the same batches."""
    loss = PlainLoss(setting.supernet(pairing))
    alternation = Alternation(list(loss.parameters()), loss.fusion.architecture_parameters(), loss)
    marks = []
    for parts, *_ in _loader(setting, batch, steps):
        alternation(parts["weights"], parts["architecture"])
        marks.append(time.process_time())
    marks = marks[SKIPPED - 1 :]
    return 1e3 * (marks[-1] - marks[0]) / (len(marks) - 1)
