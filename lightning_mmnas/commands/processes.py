"""Processes that would be too many for this machine, or would wait for others that nobody starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from lightning_mmnas.errors import ConfigError

_OF_A_CORE = 4
"""Processes of a core from which on somebody has mistaken what devices of a CPU are."""

_BY_HAND = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
"""What tells a process that the user starts on each machine where the others are."""


def refuse_processes(trainer: Mapping[str, Any]) -> None:
    """Refuses numbers of devices and machines that cannot be meant.

    Args:
        trainer: The configuration of the trainer, of plain values.

    Raises:
        ConfigError: There are many times as many processes as the CPU has cores, or several machines without anything
            that would tell them of each other.
    """
    devices, cores = trainer.get("devices"), os.cpu_count() or 1
    if isinstance(devices, str) and devices.strip().isdigit():
        devices = int(devices)
    if isinstance(devices, int) and devices > _OF_A_CORE * cores and _is_cpu(trainer.get("accelerator")):
        raise ConfigError(
            f"trainer.devices {devices} would start {devices} processes on the {cores} core(s) of this machine, each "
            f"with a model of its own; give {cores} or fewer (one process uses several cores by itself)"
        )
    nodes = trainer.get("num_nodes") or 1
    known = {*os.environ, *(["NODE_RANK"] if "GROUP_RANK" in os.environ else [])}
    missing = [name for name in _BY_HAND if name not in known]
    if nodes > 1 and missing and not trainer.get("plugins") and not _is_launched():
        raise ConfigError(
            f"trainer.num_nodes is {nodes}, but nothing tells this process where the other machines are, and it would "
            f"wait for them for ever: start it by torchrun or srun (docs/many.md), or set {', '.join(missing)} on each"
        )


def _is_cpu(accelerator: Any) -> bool:
    return accelerator == "cpu" or (accelerator in (None, "auto") and not torch.accelerator.is_available())


def _is_launched() -> bool:
    """Whether one of the programs that Lightning knows has started this process."""
    known = (TorchElasticEnvironment, SLURMEnvironment, LSFEnvironment, MPIEnvironment)
    return any(environment.detect() for environment in known)
