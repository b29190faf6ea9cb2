"""What Lightning's commands leave in the trainer's folder: configuration, predictions, metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from lightning.pytorch.cli import SaveConfigCallback as LightningSaveConfigCallback
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from lightning_mmnas.callbacks.predictions import PredictionFile
from lightning_mmnas.files import write_json, write_text
from lightning_mmnas.modules.finetune import FineTuning


class SaveConfigCallback(LightningSaveConfigCallback):
    """Writes the resolved configuration into the run's folder, and again on every rerun.

    `config.yaml` belongs to `fit`; the other commands write `config_<command>.yaml` beside it.
    """

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.already_saved:
            return
        log_dir = trainer.log_dir  # a collective call: on every rank
        if trainer.is_global_zero:
            name = Path(self.config_filename)
            if stage != "fit":  # an enum member, whose text differs between Python versions
                name = name.with_stem(f"{name.stem}_{TrainerFn(stage).value}")
            text = unanchored(self.parser.dump(self.config, skip_none=False))
            for folder in {trainer.default_root_dir, log_dir or trainer.default_root_dir}:
                write_text(Path(folder) / name, text)
        self.already_saved = True


def unanchored(text: str) -> str:
    """A resolved configuration whose paths below `run_dir` follow it again: `--run_dir` moves them all."""
    config = yaml.safe_load(text)
    run_dir = config.get("run_dir") if isinstance(config, dict) else None
    if not run_dir:
        return text

    def relative(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: relative(item) for key, item in value.items()}
        if isinstance(value, list):
            return [relative(item) for item in value]
        if isinstance(value, str) and (value == run_dir or value.startswith(f"{run_dir}/")):
            return f"${{run_dir}}{value[len(run_dir) :]}"
        return value

    config = {key: value if key == "run_dir" else relative(value) for key, value in config.items()}
    head = [line for line in text.splitlines()[:1] if line.startswith("#")]
    return "\n".join([*head, yaml.safe_dump(config, sort_keys=False)])


def keep_predictions(trainer: Trainer, model: LightningModule) -> None:
    """Has `mmnas predict --config` write what `FineTuning` computes, unless a callback does so already."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    if isinstance(model, FineTuning) and not any(isinstance(c, BasePredictionWriter) for c in callbacks):
        callbacks.insert(0, PredictionFile())


def keep_metrics(trainer: Trainer, command: str) -> None:
    """Writes what `mmnas test` or `mmnas validate` has computed, as JSON in the trainer's root folder."""
    metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
    if trainer.is_global_zero and metrics:
        path = Path(trainer.default_root_dir) / f"metrics_{command}.json"
        write_json(path, metrics)
        print(f"metrics written to {path}")
