"""A data module and LightningModules as small as can be, for the command line to plug together."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_mmnas.errors import DataError


@dataclass(frozen=True)
class Spec:
    kind: str
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32


class ToyEncoder(nn.Linear):
    def __init__(self, spec: Spec, channels: int = 2) -> None:
        super().__init__(spec.shape[-1], channels)


class ToyData(LightningDataModule):
    def __init__(self, size: int = 8, batch_size: int = 4) -> None:
        super().__init__()
        if size == 0:
            raise DataError("the toy data are empty; check data.init_args.size")
        self.size = size
        self.batch_size = batch_size

    @property
    def modalities(self) -> dict[str, Spec]:
        return {"a": Spec("motion", (8,))}

    @property
    def num_classes(self) -> int | None:
        return 3

    def train_dataloader(self) -> DataLoader[Any]:
        inputs = torch.linspace(-1, 1, self.size * 8).view(self.size, 8)
        return DataLoader(TensorDataset(inputs), self.batch_size)

    val_dataloader = train_dataloader
    test_dataloader = train_dataloader
    predict_dataloader = train_dataloader


class BareData(LightningDataModule):
    """A data module that knows nothing of modalities."""

    train_dataloader = ToyData.train_dataloader


class ToyModule(LightningModule):
    """Takes nothing from the data module."""

    def __init__(self, hidden: int = 2, learning_rate: float = 0.1, folder: str = "") -> None:
        super().__init__()
        self.save_hyperparameters()
        self.layer = nn.Linear(8, hidden)
        self.learning_rate = learning_rate

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = self.layer(inputs)
        return output

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        loss: Tensor = self(batch[0]).square().mean()
        self.log("train/loss", loss)
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val/loss", self(batch[0]).square().mean())

    def test_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("test/loss", self(batch[0]).square().mean())

    def predict_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.forward(batch[0])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


class LinkedModule(ToyModule):
    """Takes modalities and num_classes from the data module, and encoders as factories."""

    def __init__(
        self,
        modalities: dict[str, Spec],
        num_classes: int,
        encoders: dict[str, Callable[[Spec], ToyEncoder]] | None = None,
        learning_rate: float = 0.1,
    ) -> None:
        super().__init__(hidden=num_classes, learning_rate=learning_rate)
        factories = encoders or {}
        self.encoders = nn.ModuleDict({k: make(modalities[k]) for k, make in factories.items()})
        self.modalities = modalities


class InterruptedModule(ToyModule):
    """Interrupts the training in its second epoch as long as the file `flag` exists."""

    def __init__(self, flag: str) -> None:
        super().__init__()
        self.flag = Path(flag)
        self.epochs: list[int] = []

    def on_train_epoch_start(self) -> None:
        self.epochs.append(self.current_epoch)
        if self.current_epoch == 1 and self.flag.exists():
            raise KeyboardInterrupt


class Signals(Callback):
    """Sends this very process a signal, in one hook when so many weight steps are done, if the file `flag` exists."""

    def __init__(self, number: int, steps: int, hook: str = "on_train_batch_start", flag: str = "/") -> None:
        self.number, self.steps, self.flag = number, steps, Path(flag)
        setattr(self, hook, self.send)

    def send(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.steps and self.flag.exists():
            os.kill(os.getpid(), self.number)


class Ranks(Callback):
    """Leaves what each rank ends with in the trainer's folder: its parameters and what genotype was chosen."""

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        genotypes = [str(callback.genotype) for callback in callbacks if hasattr(callback, "genotype")]
        found = {"state": dict(pl_module.named_parameters()), "genotypes": genotypes}
        torch.save(found, Path(trainer.default_root_dir) / f"rank{trainer.global_rank}.pt")
