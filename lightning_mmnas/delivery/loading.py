"""`lightning_mmnas.load`: a delivered model, read from its folder; nothing in it is executed."""

import os
from collections.abc import Collection
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lightning_mmnas.data.columns.texts import TextTokenizer
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.delivery.card import CARD, WEIGHTS, NetworkCard, read_card
from lightning_mmnas.delivery.classifier import FusionClassifier
from lightning_mmnas.delivery.model import DeliveredModel
from lightning_mmnas.delivery.parts import build_encoder, load_class
from lightning_mmnas.delivery.transforms import Statistics, Transforms
from lightning_mmnas.encoders.weights import differences
from lightning_mmnas.errors import MMNASError, ModelError
from lightning_mmnas.fusion.network import FusionNetwork
from lightning_mmnas.modules.frozen import FrozenEncoders
from lightning_mmnas.space.genotype import Genotype
from lightning_mmnas.space.value import describe_errors

FOLDER = "model"
"""Of a run, where the model lies."""
_STATISTICS = "transforms."
_MODEL = "model."


def load(
    path: str | os.PathLike[str], *, device: str | torch.device = "cpu", allow: Collection[str] = ()
) -> DeliveredModel:
    """Loads the model that a run has delivered.

    Args:
        path: The run directory, or its folder ``model``, wherever it was moved or copied to.
        device: Where the model shall be.
        allow: Class paths of your own that the model may use, or packages with all that is in them. Nothing else is
            imported but the classes of this package.

    Returns:
        The model, in eval mode.

    Raises:
        ModelError: There is no model, it is damaged or of a newer version, or it needs a class that is not allowed.
        MissingExtraError: It needs a package that is not installed.

    Examples:
        >>> model = lightning_mmnas.load("runs/x")  # doctest: +SKIP
        >>> model.predict({"image": "cat.png", "text": "a cat"})  # doctest: +SKIP
        'cat'
    """
    allow = [allow] if isinstance(allow, str) else allow
    folder = find_model(Path(path).expanduser())
    card = read_card(folder)
    state = _read_weights(folder / WEIGHTS)
    try:
        modalities = {name: modality.spec() for name, modality in card.modalities.items()}
        encoders = {name: build_encoder(card.encoders[name], modalities[name], folder, allow) for name in modalities}
        tokenizers = {
            name: _tokenizer(folder, name, spec.vocabulary.size)
            for name, spec in modalities.items()
            if spec.vocabulary is not None and card.table is not None
        }
    except KeyError as error:
        raise ModelError(f"{folder / CARD} is damaged: the modality {error} has no encoder") from None
    statistics = {
        name: Statistics(**{key: state.pop(f"{_STATISTICS}{name}.{key}", None) for key in ("mean", "std", "fill")})
        for name in modalities
    }
    frozen = FrozenEncoders(encoders)
    try:
        network = _network(card.network, frozen.feature_shapes, allow)
        classifier = FusionClassifier(frozen, network, len(card.class_names), card.linear, card.task == "multilabel")
    except MMNASError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:  # also of memory
        raise ModelError(f"{folder / CARD} describes a network that cannot be built: {error}") from error
    _fill(classifier, {name.removeprefix(_MODEL): value for name, value in state.items()}, folder / WEIGHTS)
    columns: dict[str, ColumnSpec] = {} if card.table is None else card.table.columns
    decimal = (None if card.table is None else card.table.decimal) or "."
    transforms = Transforms(modalities, columns, tokenizers, statistics, decimal)
    model = DeliveredModel(card, classifier, transforms, allow)
    return model.to(device).eval()


def find_model(path: Path) -> Path:
    """The folder of a model: the one given, that of the run, or that of a file of the model.

    Raises:
        ModelError: There is none; says what is there instead.
    """
    for folder in (path / FOLDER, path, path.parent) if path.name in (CARD, WEIGHTS) else (path / FOLDER, path):
        if (folder / CARD).is_file():
            return folder
    if path.is_file():
        raise ModelError(f"{path} is a file; give the folder of the run, or the {FOLDER}/ in it that holds {CARD}")
    if not path.is_dir():
        raise ModelError(f"there is no run {path}; give the folder that was --output of `mmnas run`")
    if (path / "manifest.json").is_file():
        state = "is finished, but has no model" if (path / "results.json").is_file() else "is not finished"
        raise ModelError(f"the run {path} {state}; the command of the run, given again, goes on and writes {FOLDER}/")
    raise ModelError(f"{path} is no run of mmnas and no model: it has neither manifest.json nor {CARD}")


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those too that a state dict leaves out, such as the mean of pictures."""
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def weights_of(classifier: nn.Module, statistics: dict[str, Statistics]) -> dict[str, Tensor]:
    """All that is stored as tensors, by name."""
    found = {f"{_MODEL}{name}": value.detach() for name, value in tensors_of(classifier).items()}
    for name, known in statistics.items():
        for key in ("mean", "std", "fill"):
            value = getattr(known, key)
            if value is not None:
                found[f"{_STATISTICS}{name}.{key}"] = value
    return {name: value.cpu().contiguous().clone() for name, value in found.items()}


def _read_weights(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError:
        raise ModelError(f"{path} is missing; `mmnas run` with the run's command writes it again") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {error}; `mmnas run` with the run's command writes it again") from None


def _network(card: NetworkCard, shapes: dict[str, tuple[int, ...]], allow: Collection[str]) -> nn.Module:
    if card.part is not None:
        network: nn.Module = load_class(card.part.class_path, allow, nn.Module)(shapes, **card.part.arguments)
        return network
    try:
        genotype = Genotype.model_validate(card.genotype)
    except ValidationError as error:
        raise ModelError(f"{CARD} is damaged: network.genotype: {describe_errors(error)}") from None
    for name in genotype.space.primitives:
        if "." in name:
            load_class(name, allow, nn.Module)
    return FusionNetwork(genotype, shapes, card.readout, card.dropout, card.pool, card.grid)


def _tokenizer(folder: Path, name: str, size: int) -> TextTokenizer:
    learnt = folder / "tokenizers" / f"{name}.json"
    source = learnt if learnt.is_file() else folder / "tokenizers" / name
    if not source.exists():
        raise ModelError(f"{source} is missing; `mmnas run` with the run's command writes it again")
    return TextTokenizer(str(source), size)


def _fill(module: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    own = tensors_of(module)
    if (found := differences(own, state)) is not None:
        raise ModelError(
            f"{path} is not of the model that {CARD} describes: {found.number} tensors differ, first {found.first!r}: "
            f"{found.wanted} there, {found.given} here"
        )
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(state[name])
