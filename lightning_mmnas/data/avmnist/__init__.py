"""AV-MNIST: digits seen and heard."""

from lightning_mmnas.data.avmnist.data_module import AVMNISTDataModule

__all__ = ["AVMNISTDataModule"]
