"""Losses and data that no training survives unharmed: each works, or ends in a line, and never with NaN weights."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from lightning_mmnas import (
    ArchitectureAlternation,
    EncoderPretraining,
    FineTuning,
    FusionPretraining,
    FusionSearch,
    FusionSpace,
    Genotype,
    LastCheckpoint,
    TensorDataModule,
)
from lightning_mmnas.errors import MMNASError
from lightning_mmnas.modules.finite import require_finite
from tests.faults.record import Record, recorded
from tests.modules.tiny import ENCODERS, KINDS, modalities, split_of, trainer_of

SMALL: dict[str, Any] = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4}
SPACE = FusionSpace(inputs=("left/0", "left/1", "right/0", "right/1"), channels=4, length=2)
STAGES = ("encoders", "search", "pretrain", "finetune")


class Poison(Callback):
    """Puts a value into a batch of the second epoch, as a broken augmentation would."""

    def __init__(self, value: float) -> None:
        self.value = value

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 1 and batch_idx == 0:
            for part in batch.values() if "weights" in batch else [batch]:
                part["left"][0] = self.value


def batches(stages: Sequence[str] = STAGES) -> Record:
    """Every fault in some stages."""
    with (
        recorded("batches, losses, data") as record,
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # they are many, and tested where they belong
        for stage in stages:
            for name, fault in FAULTS.items():
                path = Path(folder) / f"{stage}-{name}"
                try:
                    module = _train(stage, path, **fault())
                except (MMNASError, MisconfigurationException) as error:
                    if "\n" in str(error).strip():
                        record.fail(f"{stage}, {name}: said {error}")
                    else:
                        record.refuse()
                        record.moments.append(f"{stage}, {name}: {error}")
                except Exception as error:
                    record.fail(f"{stage}, {name}: {type(error).__name__}: {error}")
                else:
                    record.work()
                    _check(record, f"{stage}, {name}: weights", partial(require_finite, module))
                for checkpoint in path.rglob("*.ckpt"):
                    state = torch.load(checkpoint, weights_only=True)["state_dict"]
                    if not all(torch.isfinite(v).all() for v in state.values() if v.is_floating_point()):
                        record.fail(f"{stage}, {name}: {checkpoint.name} holds NaN")
    return record


def _check(record: Record, what: str, check: Callable[[], None]) -> None:
    try:
        check()
    except MMNASError as error:
        record.fail(f"{what}: {error}")


def _split(size: int, seed: int, change: Callable[[dict[str, Tensor]], None]) -> dict[str, Tensor]:
    split = split_of(size, seed)
    change(split)
    return split


def _data(
    change: Callable[[dict[str, Tensor]], None] = lambda split: None, size: int = 32, **options: Any
) -> dict[str, Any]:
    return {
        "data": lambda **more: TensorDataModule(
            _split(size, 0, change),
            _split(min(size, 16), 1, change),
            kinds=KINDS,
            **{"batch_size": 8, **options, **more},
        )
    }


def _set(name: str, value: float) -> Callable[[dict[str, Tensor]], None]:
    return lambda split: split.update({name: torch.full_like(split[name], value)})


def _zeros(split: dict[str, Tensor]) -> None:
    _set("left", 0.0)(split)
    _set("right", 0.0)(split)


def _bad_sample(value: float) -> Callable[[dict[str, Tensor]], None]:
    def change(split: dict[str, Tensor]) -> None:
        split["left"].view(-1)[5:6] = value

    return change


FAULTS: dict[str, Callable[[], dict[str, Any]]] = {
    "NaN in a batch": lambda: {"callbacks": [Poison(float("nan"))]},
    "infinity in a batch": lambda: {"callbacks": [Poison(float("inf"))]},
    "huge numbers in a batch": lambda: {"callbacks": [Poison(1e38)]},
    "learning rate of 1e30": lambda: {"lr": 1e30},
    "NaN in the data": lambda: _data(_bad_sample(float("nan"))),
    "infinity in the data": lambda: _data(_bad_sample(float("inf"))),
    "a constant modality": lambda: _data(_set("left", 1.0)),
    "all modalities zero": lambda: _data(_zeros),
    "one class": lambda: _data(_set("label", 0)),
    "one sample per batch": lambda: _data(batch_size=1),
    "batches larger than the data": lambda: _data(batch_size=1000),
    "3 samples": lambda: _data(size=3),
    "3 samples in batches of 2": lambda: _data(size=3, batch_size=2),
    "1 sample": lambda: _data(size=1, batch_size=2),
    "no sample": lambda: _data(size=0, batch_size=2),
}


def _train(stage: str, folder: Path, callbacks: list[Callback] | None = None, **changes: Any) -> LightningModule:
    seed_everything(0, verbose=False)
    make: Callable[..., TensorDataModule] = changes.pop("data", None) or _data()["data"]
    known = modalities()
    genotype: Genotype = SPACE.sample(torch.Generator().manual_seed(0))
    more = [*(callbacks or []), LastCheckpoint(folder)]
    module: LightningModule
    if stage == "encoders":
        module, data = (
            EncoderPretraining(known, ENCODERS, projection_hidden=8, projection_out=4, **changes),
            make(labels=False),
        )
    elif stage == "search":
        module, data = FusionSearch(known, ENCODERS, **SMALL, **changes), make(labels=False, architecture_fraction=0.5)
        more = [*more, ArchitectureAlternation(lr=0.1)]
    elif stage == "pretrain":
        ours = {name: value for name, value in SMALL.items() if name.startswith("projection")}
        module, data = FusionPretraining(known, ENCODERS, genotype=genotype, **ours, **changes), make(labels=False)
    else:
        module, data = FineTuning(known, ENCODERS, 2, "multiclass", genotype=genotype, **changes), make()
    trainer = trainer_of(folder, max_epochs=3, callbacks=more, enable_checkpointing=True, num_sanity_val_steps=0)
    trainer.fit(module, datamodule=data)
    return module
