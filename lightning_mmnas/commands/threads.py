"""How many threads of a processor a stage or a comparison gets."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from lightning_mmnas.data.spec import ModalitySpec

_WEIGHTS, _NUMBERS = 1_000_000, 20_000
"""Weights of encoders, and numbers in a sample, up to which one thread is as fast as several."""


def is_small(encoders: nn.Module, modalities: Iterable[ModalitySpec]) -> bool:
    """Whether one thread computes the encoders as fast as several, which wait for each other."""
    weights = sum(parameter.numel() for parameter in encoders.parameters())
    return weights <= _WEIGHTS and sum(math.prod(spec.shape) for spec in modalities) <= _NUMBERS


@contextmanager
def one_thread(device: torch.device, where: bool) -> Iterator[None]:
    """One thread on a CPU where nothing large is computed, then as many as before.

    Args:
        device: Where it is computed.
        where: Whether it is small.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu" and where:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
