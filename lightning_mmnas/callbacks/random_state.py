"""The random state of a process, as a checkpoint may hold it."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer


def random_state(trainer: Trainer) -> dict[str, Any]:
    """The random state of this process, as plain values and tensors."""
    state = state_on_cpu()
    if trainer.strategy.root_device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(trainer.strategy.root_device)
    return state


def state_on_cpu() -> dict[str, Any]:
    """The random state without that of accelerators."""
    numpy: Any = np.random.get_state(legacy=True)
    _, keys, position, has_gauss, gauss = numpy
    return {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), gauss),
        "torch": torch.get_rng_state(),
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Puts a state back that `random_state` returned."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
