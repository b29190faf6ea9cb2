"""After the last stage of `mmnas run`: the trained classifier becomes `model/`, and is scored as it lies there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_mmnas.commands.compare import read_features
from lightning_mmnas.commands.lightning_cli import MMNASCLI
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.targets import rescaled_loader
from lightning_mmnas.delivery.card import DataCard, PartCard
from lightning_mmnas.delivery.loading import FOLDER, load
from lightning_mmnas.delivery.parts import plain
from lightning_mmnas.delivery.writing import save
from lightning_mmnas.errors import ModelError
from lightning_mmnas.modules.finetune import FineTuning
from lightning_mmnas.modules.frozen import read_checkpoint
from lightning_mmnas.modules.metrics import main_metric
from lightning_mmnas.modules.pretrain import FusionPretraining
from lightning_mmnas.modules.transfer import BatchTransfer
from lightning_mmnas.report.budgets import PER_CLASS, TOTAL


def deliver(arguments: list[str], run_dir: Path, made_by: Mapping[str, Any]) -> dict[str, Any]:
    """Writes the model of a finished last stage, reads it again and scores it on the test split.

    The weights are those of the epoch that was best on the validation split, where the stage has kept them.

    Args:
        arguments: Of the stage, without the command ``fit``.
        run_dir: The run directory.
        made_by: Command, seed, versions.

    Returns:
        ``labels_per_class`` (or ``labels_total``) and ``samples``, the labels it was trained with; ``metric`` and
        ``score`` on the test split; and ``checkpoint``, its weights. Of a run without labels, the checkpoint and the
        ``samples`` that the network was pretrained with.

    Raises:
        ModelError: The stage, an encoder or the network is of a kind that cannot be delivered.
    """
    cli = MMNASCLI(arguments, run=False, save_config_callback=None)
    module, data = cli.model, cli.datamodule
    if not isinstance(module, FineTuning | FusionPretraining) or not isinstance(data, MultimodalDataModule):
        raise ModelError("only FineTuning (or FusionPretraining) on a MultimodalDataModule can be delivered")
    if hooks := [name for name in BatchTransfer(module, data).hooks if name != "transfer_batch_to_device"]:
        raise ModelError(
            f"{' and '.join(hooks)} of {type(data).__name__} or {type(module).__name__} would not be in it; change "
            "samples where they are read, or in an encoder"
        )
    weights = delivered_weights(Path(cli.trainer.default_root_dir))
    if not weights.is_file():
        raise ModelError(f"there is no checkpoint {weights}")
    checkpoint = read_checkpoint(weights, "the trained model")
    module.on_load_checkpoint(checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    data.setup("fit")
    known = {"checkpoint": str(weights.relative_to(run_dir)), **made_by}
    config = cli.resolved()
    options: dict[str, Any] = {
        "data_card": _data_card(config),
        "fusion": _fusion(config),
        "made_by": known,
    }
    target = run_dir / FOLDER
    card = save(module, data, target, **options)
    if isinstance(module, FusionPretraining):
        return {"samples": len(data.part("train")), "checkpoint": known["checkpoint"]}
    metric = main_metric(module.task)
    regression = module.task == "regression"
    data.setup("test")
    read_features(cli, ["test"], module.device)
    test = rescaled_loader(data.plain_loader("test"), module.data_scale, module.target_scale)
    scores = load(target, allow=card.classes).evaluate(test)
    metrics = {f"test/{name}": value for name, value in scores["metrics"].items()}
    save(module, data, target, metrics=metrics, **options)
    return {
        TOTAL if regression else PER_CLASS: card.labels.total if regression else card.labels.per_class,
        "samples": card.labels.samples,
        "metric": metric,
        "score": scores["metrics"][metric],
        "checkpoint": known["checkpoint"],
    }


def delivered_weights(stage: Path) -> Path:
    """The checkpoint in the last stage's folder that is delivered: of the best epoch where it was kept, or the last."""
    best = stage / "checkpoints" / "best.ckpt"
    return best if best.is_file() else best.with_name("last.ckpt")


def _data_card(config: Mapping[str, Any]) -> DataCard | None:
    """The data module as configured; None where it cannot be written down."""
    data = config.get("data") or {}
    arguments = {**(data.get("init_args") or {}), **(data.get("dict_kwargs") or {})}
    arguments.pop("columns", None)  # they are in the table's card
    try:
        return DataCard(class_path=data["class_path"], arguments=plain(arguments, "data"))
    except (KeyError, ModelError):
        return None


def _fusion(config: Mapping[str, Any]) -> PartCard | None:
    """The user's own fusion module, where one is configured."""
    fusion = ((config.get("model") or {}).get("init_args") or {}).get("fusion")
    if not isinstance(fusion, Mapping) or "class_path" not in fusion:
        return None
    arguments = plain(fusion.get("init_args") or {}, "model.init_args.fusion")
    return PartCard(class_path=fusion["class_path"], arguments=arguments)
