"""Thousands of alternations of a search: memory, descriptors and threads stay what they are after the first ones."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, seed_everything
from lightning.pytorch import Callback, Trainer

from lightning_mmnas import ArchitectureAlternation, FusionSearch, LastCheckpoint
from tests.faults.batches import SMALL
from tests.faults.record import Record, recorded
from tests.modules.tiny import ENCODERS, data_of, modalities, trainer_of

_MEASUREMENTS = 20
GROWTH = 2_000
"""Bytes per alternation of the second half that are still no growth; a batch and its views take more."""
NOISE = 2_000_000
"""Bytes by which what the allocator keeps goes up and down."""


class Meter(Callback):
    """Notes what the process holds every so many weight steps."""

    def __init__(self, every: int) -> None:
        self.every = every
        self.steps: list[int] = []
        self.memory: list[int] = []
        self.descriptors: list[int] = []
        self.threads: list[int] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        if trainer.global_step % self.every == 0:
            self.steps.append(trainer.global_step)
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
            self.descriptors.append(len(os.listdir("/proc/self/fd")))
            self.threads.append(threading.active_count())

    @property
    def growth(self) -> float:
        """Bytes per alternation in the second half, by least squares."""
        half = len(self.steps) // 2
        x = torch.tensor(self.steps[half:], dtype=torch.float64)
        y = torch.tensor(self.memory[half:], dtype=torch.float64)
        x = x - x.mean()
        return float((x * (y - y.mean())).sum() / (x * x).sum())


def alternations(count: int, seed: int = 0) -> Record:
    """Weight steps with an architecture step each, a checkpoint after every epoch of two."""
    with recorded(f"{count} alternations") as record, tempfile.TemporaryDirectory() as folder:
        seed_everything(seed, verbose=False)
        meter = Meter(max(count // _MEASUREMENTS, 1))
        alternation = ArchitectureAlternation(lr=0.1)
        callbacks = [alternation, LastCheckpoint(folder), meter]
        trainer = trainer_of(
            Path(folder), max_steps=count, max_epochs=-1, callbacks=callbacks, enable_checkpointing=True
        )
        trainer.fit(FusionSearch(modalities(), ENCODERS, **SMALL), datamodule=data_of(architecture_fraction=0.5))
        half = len(meter.steps) // 2
        held = {"descriptors": meter.descriptors, "threads": meter.threads}
        grown = [f"{name} {n[half]} -> {n[-1]}" for name, n in held.items() if n[-1] > n[half]]
        if meter.growth > max(GROWTH, NOISE / (count / 2)):
            grown.append(f"memory by {meter.growth:,.0f} bytes per alternation")
        if trainer.global_step != count or alternation.steps != count:
            grown.append(f"{trainer.global_step} weight steps, {alternation.steps} architecture steps")
        last = f"{meter.descriptors[-1]} descriptors, {meter.threads[-1]} threads"
        record.moments.append(f"{meter.growth:,.0f} bytes per alternation, {last}")
        record.cases = count
        record.worked = 0 if grown else count
        record.failures = grown
    return record
