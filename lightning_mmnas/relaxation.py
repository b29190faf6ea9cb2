"""Relaxations: architecture logits -> mixture weights."""

import torch
from torch import Tensor, nn


class Softmax(nn.Module):
    """softmax(logits / temperature) over the last axis (DARTS, eq. 2).

    Args:
        temperature: Softmax temperature, unitless, > 0; small values sharpen the mixture.

    Raises:
        ValueError: Temperature not above zero.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"temperature must be > 0, not {temperature}")
        self.temperature = temperature

    def forward(self, logits: Tensor) -> Tensor:
        """Mixture weights of the same shape as the logits; every row sums to 1."""
        return torch.softmax(logits / self.temperature, dim=-1)
