"""The contract of an encoder: one modality in, features from shallow to deep out."""

from abc import ABC, abstractmethod

from torch import Tensor, nn


class Encoder(nn.Module, ABC):
    """Turns one modality into a list of features, from shallow to deep."""

    @property
    @abstractmethod
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c_i, *rest) of every feature, without batch, shallow to deep."""

    @abstractmethod
    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the features of a batch, each of shape (b, c_i, *rest)."""
