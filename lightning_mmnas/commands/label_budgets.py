"""Labels that the last stage and the comparison need and the data do not have, told before anything is trained."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.utilities.seed import isolate_rng

from lightning_mmnas.callbacks.progress import quiet
from lightning_mmnas.commands.data_summary import build_data
from lightning_mmnas.commands.lightning_cli import ConfigCheck
from lightning_mmnas.comparison.label_draws import check_budgets
from lightning_mmnas.comparison.settings import ComparisonSettings
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.errors import DataError, MMNASError


def check_label_budgets(finetune: Sequence[str], settings: ComparisonSettings) -> None:
    """Refuses label budgets that are larger than a class, or than all the samples.

    Labels are read, and no files of samples. What a class of the user's own raises is left to its stage.

    Args:
        finetune: Arguments of the fine-tuning stage, without the command ``fit``.
        settings: Those of the comparison.

    Raises:
        MMNASError: Labels are too few for a budget or missing, or the data cannot be read.
    """
    config = ConfigCheck(["fit", *finetune]).config.fit
    names = ("labels_per_class", "labels_total")
    own: list[Any] = [budget for name in names if (budget := config.get(f"data.init_args.{name}")) is not None]
    data = _read(config)
    if data is None or (labels := data.part("train").labels) is None:
        return
    for place, budgets in (("stage finetune", own), ("comparison", settings.budgets(data.task))):
        try:
            check_budgets(labels, budgets, data.task, data.class_names)
        except DataError as error:
            raise error.at(place) from None


def _read(config: Namespace) -> MultimodalDataModule | None:
    """The data of a stage, with the labels of the training split; None where they are of a class that is not known."""
    ours = [str(config.get(f"{part}.class_path")).startswith("lightning_mmnas.") for part in ("data", "model")]
    with isolate_rng(), quiet(), warnings.catch_warnings(), suppress(*() if ours[0] else (Exception,)):
        warnings.simplefilter("ignore")  # the stages will warn
        try:
            data = build_data(config)
            if data.task is None and all(ours):
                raise DataError(
                    "it needs labels, but the data have none; name them in its data, or leave finetune.yaml (and "
                    "comparison.yaml) away: the run then ends after pretraining"
                )
            if hasattr(data, "most_read"):
                data.most_read = 0
            data.build("train")
        except MMNASError as error:
            raise error.at("stage finetune") from None
        return data
    return None
