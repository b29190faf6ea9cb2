"""A small searchable module, its data, and a plain trainer for the tests of the callbacks."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_mmnas.callbacks import ArchitectureAlternation

Part = tuple[Tensor, Tensor]


def dataset(n: int, seed: int, dtype: torch.dtype = torch.float64) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 6, generator=generator, dtype=torch.float64)
    return TensorDataset(x.to(dtype), (x[:, :1] * x[:, 1:2]).to(dtype))


def loaders(
    weights: int = 12,
    architecture: int = 8,
    batch_size: int = 4,
    shuffle: bool = False,
    dtype: torch.dtype = torch.float64,
    **options: Any,
) -> CombinedLoader:
    parts = {
        "weights": dataset(weights, 1, dtype),
        "architecture": dataset(architecture, 2, dtype),
    }
    return CombinedLoader(
        {name: DataLoader(part, batch_size=batch_size, shuffle=shuffle, **options) for name, part in parts.items()},
        "max_size_cycle",
    )


class Mixture(nn.Module):
    """Two branches mixed by the softmax of alpha; the logits of a third are never used."""

    def __init__(self, dropout: float = 0.0, batch_norm: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 5), nn.Linear(6, 5)
        self.norm = nn.BatchNorm1d(5) if batch_norm else nn.Identity()
        self.dropout, self.head = nn.Dropout(dropout), nn.Linear(5, 1)
        self.alpha = nn.Parameter(torch.zeros(2), requires_grad=False)
        self.gamma = nn.Parameter(torch.zeros(2, 1), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(1), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.alpha.softmax(0)
        c, d = self.gamma.sigmoid()
        mixed = a * torch.tanh(c * self.first(x)) + b * torch.relu(self.second(x) - d)
        out: Tensor = self.head(self.dropout(self.norm(mixed)))
        return out

    def logits(self) -> list[nn.Parameter]:
        return [self.alpha, self.gamma, self.unused]


class Searcher(LightningModule):
    """Regression with a mixture, the weights by SGD with momentum and a falling learning rate."""

    sizes = (12, 8)  # samples of the weights' and of the architecture's part

    def __init__(
        self,
        dropout: float = 0.0,
        batch_norm: bool = False,
        dtype: torch.dtype = torch.float64,
        lr: float = 0.05,
        step_size: int = 2,
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = Mixture(dropout, batch_norm).to(dtype)
        self.lr, self.step_size = lr, step_size
        self.losses: list[float] = []
        self.architecture_losses: list[float] = []

    def loss(self, part: Part) -> Tensor:
        x, y = part
        return nn.functional.mse_loss(self.net(x), y)

    def training_step(self, batch: dict[str, Part], batch_idx: int) -> Tensor:
        loss = self.loss(batch["weights"])
        self.losses.append(loss.item())
        self.log("train/loss", loss)
        return loss

    def architecture_step(self, batch: Part) -> Tensor:
        loss = self.loss(batch)
        self.architecture_losses.append(loss.item())
        self.log("arch/loss", loss)
        return loss

    def architecture_parameters(self) -> list[nn.Parameter]:
        return self.net.logits()

    def configure_optimizers(self) -> Any:
        weights = [p for p in self.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(weights, lr=self.lr, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, self.step_size, 0.5)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


def trainer(root: Path, *callbacks: Any, **options: Any) -> Trainer:
    settings: dict[str, Any] = {
        "default_root_dir": root,
        "callbacks": list(callbacks) or [ArchitectureAlternation(lr=0.1)],
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "logger": False,
        "enable_checkpointing": any(isinstance(c, Checkpoint) for c in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    return Trainer(**(settings | options))


def values(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def differences(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    """The names of the tensors that are not bit-identical."""
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]
