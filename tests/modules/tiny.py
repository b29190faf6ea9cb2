"""A small data set of two sensors whose class is the sign of one of them, and short stages on it."""

from pathlib import Path
from typing import Any, Literal

import torch
from lightning import Trainer
from torch import Tensor, nn

from lightning_mmnas import MotionEncoder, TensorDataModule
from lightning_mmnas.data.spec import ModalitySpec

KINDS: dict[str, Literal["motion"]] = {"left": "motion", "right": "motion"}
ENCODERS: dict[str, Any] = {"motion": lambda spec: MotionEncoder(spec, channels=(4, 6))}


def split_of(size: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    label = torch.arange(size) % 2
    left = torch.randn(size, 3, 16, generator=generator)
    right = torch.randn(size, 3, 16, generator=generator) + (2.0 * label - 1)[:, None, None]
    return {"left": left, "right": right, "label": label}


def data_of(**changes: Any) -> TensorDataModule:
    settings: dict[str, Any] = {"kinds": KINDS, "batch_size": 8, "labels": False}
    return TensorDataModule(split_of(32, 0), split_of(16, 1), split_of(16, 2), **{**settings, **changes})


def modalities() -> dict[str, ModalitySpec]:
    return data_of().modalities


def trainer_of(folder: Path, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {
        "max_epochs": 1,
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
    }
    return Trainer(**{**settings, **changes})


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
