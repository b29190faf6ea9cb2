"""The contract of an encoder: one modality in, features from shallow to deep out."""

import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from typing_extensions import Self


class Encoder(nn.Module, ABC):
    """Turns one modality into a list of features, from shallow to deep.

    Attributes:
        arguments: What it was built with, by name, so that it can be built again; see `lightning_mmnas.load`.
    """

    arguments: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Notes the arguments."""
        self = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        bound = signature.bind_partial(self, *args, **kwargs).arguments
        names = list(signature.parameters)
        self.__dict__["arguments"] = {name: value for name, value in bound.items() if name != names[0]}
        return self

    @property
    @abstractmethod
    def feature_shapes(self) -> list[tuple[int, ...]]:
        """Shape (c_i, *rest) of every feature, without batch, shallow to deep."""

    @abstractmethod
    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns the features of a batch, each of shape (b, c_i, *rest)."""

    def write_files(self, folder: Path) -> dict[str, str]:
        """Writes what arguments stand for that mean nothing elsewhere, such as the name of a model to be downloaded.

        Args:
            folder: Where to, a folder of this encoder alone that may not exist yet. Nothing is written by default.

        Returns:
            By name of the argument, the file or folder in `folder` that takes its place.
        """
        return {}
