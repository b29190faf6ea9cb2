"""Writes the model that a trained stage 3 leaves behind: one folder, which appears whole or not at all."""

import json
import os
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.delivery.card import (
    CARD,
    FORMAT,
    WEIGHTS,
    DataCard,
    LabelCard,
    ModalityCard,
    ModelCard,
    NetworkCard,
    PartCard,
    TableCard,
    digests_of,
    own_digest,
)
from lightning_mmnas.delivery.classifier import classifier_of
from lightning_mmnas.delivery.loading import weights_of
from lightning_mmnas.delivery.parts import describe_encoder
from lightning_mmnas.delivery.transforms import Statistics
from lightning_mmnas.errors import ModelError, RunDirectoryError
from lightning_mmnas.files import write_text
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.modules.finetune import FineTuning
from lightning_mmnas.modules.pretrain import FusionPretraining

_README = """\
A model of lightning_mmnas {version}: {what} from {modalities}.

    import lightning_mmnas

    model = lightning_mmnas.load("{name}")
    model.{verb}(...)

or `mmnas {verb} {name} TABLE --output new.csv`. model.json says how it was made.
"""


def save(
    module: FineTuning | FusionPretraining,
    data: MultimodalDataModule,
    folder: str | os.PathLike[str],
    *,
    metrics: Mapping[str, float] | None = None,
    data_card: DataCard | None = None,
    fusion: PartCard | None = None,
    made_by: Mapping[str, Any] | None = None,
) -> ModelCard:
    """Writes a trained model as a folder that `lightning_mmnas.load` reads; a model that was there is replaced.

    Args:
        module: Trained; of `FusionPretraining` the model embeds, and predicts nothing.
        data: That it was trained with, set up.
        folder: Where to.
        metrics: What is known of it, by name.
        data_card: Where the data came from, for its splits to be read again.
        fusion: Class and arguments of a fusion network of the user's own.
        made_by: Command, seed, versions.

    Raises:
        ModelError: An encoder or the network cannot be built again from what it was given; or the folder holds other
            files, which would be lost.
        RunDirectoryError: The folder cannot be written.
    """
    if not isinstance(module, FineTuning | FusionPretraining) or not isinstance(data, MultimodalDataModule):
        raise ModelError(
            "save takes a trained FineTuning or FusionPretraining and its data module, not "
            f"{type(module).__name__} and {type(data).__name__}"
        )
    target = Path(folder).expanduser().resolve()
    if target.is_file() or (target.is_dir() and not (target / CARD).is_file() and any(target.iterdir())):
        raise ModelError(f"{target} is no model that could be replaced; give a folder of its own: {target / 'model'}")
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        card = _write(module, data, temporary, metrics or {}, data_card, fusion, made_by or {})
        text = _README.format(
            version=card.made_by["versions"]["lightning_mmnas"],
            what=_what(card),
            verb="predict" if card.task else "embed",
            modalities=", ".join(card.modalities),
            name=target.name,
        )
        write_text(temporary / "README.txt", text)
        _replace(temporary, target)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {target}: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return card


def _write(
    module: FineTuning | FusionPretraining,
    data: MultimodalDataModule,
    folder: Path,
    metrics: Mapping[str, float],
    data_card: DataCard | None,
    fusion: PartCard | None,
    made_by: Mapping[str, Any],
) -> ModelCard:
    modalities = data.modalities
    encoders = {
        name: describe_encoder(encoder, folder, f"encoders/{name}")
        for name, encoder in module.encoders.encoders.items()
    }
    table, statistics = _table(data, folder)
    classifier = classifier_of(module)
    task = module.task if isinstance(module, FineTuning) else None
    part = data.part("train")
    card = ModelCard(
        format=FORMAT,
        task=task,
        class_names=tuple(data.class_names) if task else (),
        modalities={name: ModalityCard.of(spec) for name, spec in modalities.items()},
        encoders=encoders,
        network=_network(module.network, fusion),
        linear=classifier.linear is not None,
        labels=LabelCard(
            per_class=data.labels_per_class or "all",
            samples=len(part) if task else 0,
            total=(data.labels_total or "all") if task == "regression" else None,
        ),
        metrics=dict(metrics),
        table=table,
        data=data_card,
        made_by={**made_by, "versions": {**_versions(), **made_by.get("versions", {})}},
        target_scale=module.target_scale if isinstance(module, FineTuning) else None,
    )
    save_file(weights_of(classifier, statistics), folder / WEIGHTS)
    card = card.model_copy(update={"digests": digests_of(folder)})
    card = card.model_copy(update={"digest": own_digest(json.loads(card.model_dump_json()))})
    write_text(folder / CARD, card.model_dump_json(indent=1) + "\n")
    return card


def _what(card: ModelCard) -> str:
    """What the model says of a sample, in words."""
    if card.task is None:
        return "vectors, without labels,"
    return f"the target {card.class_names[0]!r}" if card.task == "regression" else f"{len(card.class_names)} classes"


def _network(network: nn.Module, fusion: PartCard | None) -> NetworkCard:
    if isinstance(network, FusionNetwork):
        genotype = network.genotype.model_dump(mode="json")
        return NetworkCard(genotype=genotype, **network.options)
    if fusion is None:
        raise ModelError(
            f"{type(network).__qualname__} cannot be delivered: how it was built is known only where a configuration "
            "names it as model.init_args.fusion"
        )
    return NetworkCard(part=fusion)


def _table(data: MultimodalDataModule, folder: Path) -> tuple[TableCard | None, dict[str, Statistics]]:
    """How rows are read, and the numbers that it takes; tokenizers are written."""
    if not isinstance(data, TableDataModule):
        return None, {}
    masked = data.missing == "mask"
    found = {
        name: Statistics(mean, std, fill if masked else None) for name, (mean, std, fill) in data.statistics.items()
    }
    for name, spec in data.modalities.items():
        if spec.vocabulary is not None:
            data.tokenizers[name].save(folder / "tokenizers", name)
            if masked:
                found[name] = Statistics(fill=data.tokenizers[name].encode([""], spec.shape[0])[0])
    columns = {name: spec for name, spec in data.declared.items() if name in data.modalities}
    card = TableCard(
        columns=columns,
        label=data.label,
        label_separator=data.label_separator,
        group=data.group,
        id=data.id,
        missing=data.missing,
        on_error=data.on_error,
        separator=data.content.separated,
        decimal=data.decimal,
        header=data.reading.header,
        empty=None if data.reading.empty is None else list(data.reading.empty),
        files_from=data.files_from,
    )
    return card, found


def _versions() -> dict[str, str]:
    return {"lightning_mmnas": version("lightning-mmnas"), "torch": torch.__version__}


def _replace(temporary: Path, target: Path) -> None:
    """Puts a finished folder in the place of another one, which is gone only when the new one is there."""
    old = target.with_name(f".{target.name}.old.{os.getpid()}")
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(temporary, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)
