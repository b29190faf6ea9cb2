"""Configurations that cannot work, told before anything is built, read or trained."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from lightning_mmnas.callbacks.contract import require_search
from lightning_mmnas.callbacks.lightning_private import forks_or_spawns
from lightning_mmnas.errors import ConfigError


def refuse_impossible(config: Mapping[str, Any]) -> None:
    """Refuses the configuration of `mmnas fit` where it cannot lead to what it is for.

    Args:
        config: The resolved configuration, of plain values.

    Raises:
        ConfigError: There are two alternations, the search would be over before its warm-up is, a number of the
            trainer's cannot be, or `run_dir` is empty.
    """
    trainer = config.get("trainer") or {}
    if config.get("run_dir") == "":
        raise ConfigError("run_dir is empty; is a variable of the shell not set? Give . for this folder")
    if (batches := trainer.get("accumulate_grad_batches", 1)) is None or batches < 1:
        raise ConfigError(f"trainer.accumulate_grad_batches is {batches}, and a step needs a batch: give 1 or more")
    if (clip := trainer.get("gradient_clip_val")) is not None and not float(clip) >= 0:
        raise ConfigError(f"trainer.gradient_clip_val is {clip}, which would turn gradients round: give 0 or more")
    if len(list(_of(trainer, "ArchitectureAlternation"))) > 1:
        raise ConfigError(
            "trainer.callbacks has several ArchitectureAlternation, which would train the same logits; keep one "
            "(callbacks+: and --trainer.callbacks+ append to those of earlier files)"
        )
    for arguments in _of(trainer, "ArchitectureAlternation"):
        warmup, trial = int(arguments.get("warmup_epochs") or 0), bool(trainer.get("fast_dev_run"))
        try:
            require_search(warmup, trainer.get("max_epochs"), trial)
        except MisconfigurationException as error:
            raise ConfigError(str(error).rstrip(".")) from error


def refuse_forks(trainer: Trainer) -> None:
    """Refuses ranks that are no commands of their own, and that a signal to this one does not reach.

    Raises:
        ConfigError: The strategy forks or spawns, and this is the `mmnas` command; in scripts and notebooks it may.
    """
    program = Path(sys.argv[0])
    is_command = program.stem == "mmnas" or program.parts[-2:] == ("lightning_mmnas", "__main__.py")
    if is_command and forks_or_spawns(trainer):
        raise ConfigError(
            "trainer.strategy forks or spawns its ranks, which would go on alone when this command is ended; give "
            "ddp, or a DDPStrategy with start_method popen (ddp_spawn and ddp_notebook are for scripts and notebooks)"
        )


def callbacks_of(trainer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The callbacks of a trainer's configuration, of which one may stand without a list."""
    callbacks = trainer.get("callbacks") or []
    return [callbacks] if isinstance(callbacks, Mapping) else list(callbacks)


def _of(trainer: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    """Arguments of the callbacks of a class."""
    for callback in callbacks_of(trainer):
        if str(callback.get("class_path", "")).rpartition(".")[2] == name:
            yield callback.get("init_args") or {}
