"""Loggers of a run by name: `--logger mlflow` in place of a configuration for each stage."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from lightning_mmnas.commands.parser import nearest
from lightning_mmnas.errors import ConfigError, MissingExtraError

_MLFLOW = "MLFLOW_TRACKING_URI"
LOGGERS = ("csv", "tensorboard", "wandb", "mlflow")


def require_loggers(names: Sequence[str]) -> None:
    """Checks names of loggers.

    Raises:
        ConfigError: One is not known.
        MissingExtraError: The package of one is not installed.
    """
    for name in names:
        if name not in LOGGERS:
            near = nearest(name, LOGGERS)
            hint = f"; did you mean {near!r}?" if near else f"; accepted: {', '.join(LOGGERS)}"
            raise ConfigError(f"--logger {name!r} is not known{hint}")
        if name != "csv" and find_spec(name) is None:
            raise MissingExtraError(
                f"--logger {name} needs the package {name}; run: pip install 'lightning-mmnas[{name}]'"
            )


def logger_options(names: Sequence[str], run: str, stage: str) -> list[str]:
    """Options of `mmnas fit` for the loggers of a stage; none where no logger is named.

    CSV files are always written, where the shipped configurations have them. TensorBoard has all stages in one folder,
    W&B and MLflow a group or an experiment of the run's name, with a run for each stage. MLflow writes into the run's
    folder, unless MLFLOW_TRACKING_URI says where.

    Args:
        names: Names out of `LOGGERS`.
        run: Name of the run.
        stage: Name of the stage.
    """
    entries: dict[str, dict[str, Any]] = {
        "csv": {
            "class_path": "CSVLogger",
            "init_args": {"save_dir": "${trainer.default_root_dir}", "name": "logs"},
        },
        "tensorboard": {
            "class_path": "TensorBoardLogger",
            "init_args": {"save_dir": "${run_dir}/tensorboard", "name": "", "version": stage},
        },
        "wandb": {
            "class_path": "WandbLogger",
            "init_args": {"save_dir": "${run_dir}", "project": "mmnas", "name": stage},
            "dict_kwargs": {"group": run},  # of wandb.init
        },
        "mlflow": {
            "class_path": "MLFlowLogger",
            "init_args": {
                "tracking_uri": os.environ.get(_MLFLOW) or "sqlite:///${run_dir}/mlflow.db",
                "experiment_name": run,
                "run_name": stage,
                "artifact_location": "${run_dir}/mlflow",
            },
        },
    }
    if not names:
        return []
    chosen = [entries[name] for name in dict.fromkeys(["csv", *names])]
    return ["--trainer.logger", json.dumps(chosen)]


@contextmanager
def ended_loggers() -> Iterator[None]:
    """Ends what loggers begin for the whole process: the next stage has a run of its own."""
    address = os.environ.get(_MLFLOW)
    try:
        yield
    finally:
        if address is None:  # MLflow writes down the one in use
            os.environ.pop(_MLFLOW, None)
        wandb = sys.modules.get("wandb")
        if wandb is not None and wandb.run is not None:
            wandb.finish()
