"""What Lightning's own `predict` has computed, as a file."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor
from typing_extensions import override

from lightning_mmnas.files import replacing


class PredictionFile(BasePredictionWriter):
    """Writes the probabilities (or targets) of `FineTuning` in ``predictions.csv``: a line per sample, in their order.

    With several processes the first one writes those of all, each sample once.

    Args:
        output: The file; None: ``predictions.csv`` in the trainer's root folder.
    """

    def __init__(self, output: str | None = None) -> None:
        super().__init__("epoch")
        self.output = output

    @override
    def write_on_epoch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        predictions: Sequence[Any],
        batch_indices: Sequence[Any],
    ) -> None:
        """Gathers the predictions and writes the file; outputs that are no tensors of shape (b, k) are left alone."""
        if not all(isinstance(batch, Tensor) and batch.ndim == 2 for batch in predictions):
            return
        places = [int(index) for loader in batch_indices for batch in loader for index in batch]
        values = torch.cat([batch.cpu() for batch in predictions]).double()
        own: dict[int, list[float]] = dict(zip(places, values.tolist(), strict=True))
        gathered: list[Any] = [own]
        if trainer.world_size > 1:
            gathered = [None] * trainer.world_size
            torch.distributed.all_gather_object(gathered, own)
        if not trainer.is_global_zero:
            return
        whole = {place: row for part in gathered for place, row in part.items()}
        names = list(getattr(getattr(trainer, "datamodule", None), "class_names", None) or range(values.shape[1]))
        path = Path(self.output or Path(trainer.default_root_dir) / "predictions.csv")
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            regression = getattr(pl_module, "task", None) == "regression"
            head = ["prediction"] if regression else ["class", *(f"probability:{name}" for name in names)]
            writer.writerow(["row", *head])
            for place in sorted(whole):
                row = whole[place]
                if regression:
                    writer.writerow([place, f"{row[0]:.12g}"])
                    continue
                writer.writerow([place, _decided(pl_module, row, names), *(f"{value:.6g}" for value in row)])
        print(f"{len(whole)} samples written to {path}")


def _decided(module: Any, row: list[float], names: Sequence[Any]) -> str:
    """The class, or the labels above their thresholds."""
    if getattr(module, "task", "multiclass") == "multiclass":
        return str(names[max(range(len(row)), key=row.__getitem__)])
    thresholds = module.get_buffer("thresholds").tolist()
    return "|".join(str(name) for name, value, least in zip(names, row, thresholds, strict=True) if value > least)
