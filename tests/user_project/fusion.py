"""A module that adds two sensors or multiplies them, and data for which a product is right."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset


class SumOrProduct(LightningModule):
    def __init__(self, width: int = 8, lr: float = 0.01) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.lr = lr
        self.left, self.right = nn.Linear(3, width), nn.Linear(3, width)
        self.head = nn.Linear(width, 1)
        self.choice = nn.Parameter(torch.zeros(2), requires_grad=False)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        a, b = self.left(left), self.right(right)
        add, multiply = self.choice.softmax(0)
        out: Tensor = self.head(add * (a + b) + multiply * a * b)
        return out

    def loss(self, batch: list[Tensor]) -> Tensor:
        left, right, target = batch
        return nn.functional.mse_loss(self(left, right), target)

    def training_step(self, batch: dict[str, list[Tensor]]) -> Tensor:
        loss = self.loss(batch["weights"])
        self.log("train/loss", loss)
        return loss

    def architecture_step(self, batch: list[Tensor]) -> Tensor:
        return self.loss(batch)

    def architecture_parameters(self) -> list[nn.Parameter]:
        return [self.choice]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        weights = [p for p in self.parameters() if p.requires_grad]
        return torch.optim.Adam(weights, lr=self.lr)


class Products(LightningDataModule):
    def __init__(self, n: int = 64, batch_size: int = 16) -> None:
        super().__init__()
        self.n, self.batch_size = n, batch_size

    def train_dataloader(self) -> CombinedLoader:
        generator = torch.Generator().manual_seed(0)
        left, right = torch.randn(2, 2 * self.n, 3, generator=generator)
        data = TensorDataset(left, right, (left * right).sum(1, keepdim=True))
        parts = torch.utils.data.random_split(data, [self.n, self.n], generator)
        return CombinedLoader(
            {
                name: DataLoader(part, self.batch_size, shuffle=True)
                for name, part in zip(("weights", "architecture"), parts, strict=True)
            },
            "max_size_cycle",
        )
