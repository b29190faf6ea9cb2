"""Encoders and other modules written down as class and arguments, and built again from that."""

import importlib
import inspect
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.delivery.card import ModelCard, PartCard
from lightning_mmnas.encoders.base import Encoder
from lightning_mmnas.errors import DataError, MissingExtraError, MMNASError, ModelError

T = TypeVar("T")

_OWN = "lightning_mmnas."


def describe_encoder(encoder: nn.Module, folder: Path, place: str) -> PartCard:
    """Writes an encoder down, and the files that it needs.

    Args:
        encoder: The encoder.
        folder: Of the model.
        place: Of the encoder's files in it, such as ``encoders/text``.

    Raises:
        ModelError: It is no `Encoder`, or an argument is neither a plain value nor the class of another encoder.
    """
    path = class_path(type(encoder))
    if not isinstance(encoder, Encoder):
        raise ModelError(f"{path} is no lightning_mmnas.Encoder, so it cannot be delivered")
    parameters = inspect.signature(type(encoder).__init__).parameters
    spec_name = list(parameters)[1]
    given: dict[str, Any] = {}
    for name, value in encoder.arguments.items():
        if parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            given |= value
        elif name != spec_name:
            given[name] = value
    files = {name: f"{place}/{file}" for name, file in encoder.write_files(folder / place).items()}
    parts: dict[str, PartCard] = {}
    arguments: dict[str, Any] = {}
    for name, value in given.items():
        inner = getattr(encoder, name, None)
        if name in files or name == "weights":
            continue
        if callable(value) and isinstance(inner, Encoder):
            parts[name] = describe_encoder(inner, folder, f"{place}/{name}")
        else:
            arguments[name] = plain(value, f"{path}, argument {name}")
    if "weights" in parameters:
        arguments["weights"] = None
    return PartCard(class_path=path, arguments=arguments, files=files, parts=parts)


def build_encoder(card: PartCard, spec: ModalitySpec, folder: Path, allow: Collection[str]) -> Encoder:
    """Builds an encoder that `describe_encoder` wrote down, with random weights.

    Args:
        card: The encoder.
        spec: Its modality.
        folder: Of the model.
        allow: See `load_class`.

    Raises:
        ModelError: Its class may not be loaded, or does not take these arguments.
    """
    found = load_class(card.class_path, allow, Encoder)  # type: ignore[type-abstract]
    arguments = dict(card.arguments)
    for name, file in card.files.items():
        path = folder / file
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelError(f"{card.class_path}: {file} lies outside of {folder}")
        arguments[name] = str(path)
    for name, part in card.parts.items():
        arguments[name] = _Factory(part, folder, allow)
    try:
        encoder = found(spec, **arguments)
    except MissingExtraError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError, MMNASError) as error:  # also of memory
        raise ModelError(f"{card.class_path} cannot be built with {arguments}: {error}") from error
    return encoder


class _Factory:
    """Builds an inner encoder for the specification that the outer one gives it."""

    def __init__(self, card: PartCard, folder: Path, allow: Collection[str]) -> None:
        self.card, self.folder, self.allow = card, folder, allow

    def __call__(self, spec: ModalitySpec) -> Encoder:
        return build_encoder(self.card, spec, self.folder, self.allow)


def build_data(card: ModelCard, allow: Collection[str] = ()) -> MultimodalDataModule:
    """The data module of the run.

    Raises:
        DataError: It is not known.
    """
    if card.data is None:
        raise DataError("the model does not know where its data came from; give a table, a dict or a DataLoader")
    arguments = dict(card.data.arguments)
    if card.table is not None:
        arguments["columns"] = card.table.columns
    kind = load_class(card.data.class_path, allow, MultimodalDataModule)  # type: ignore[type-abstract]
    return kind(**arguments)


def load_class(path: str, allow: Collection[str], base: type[T]) -> type[T]:
    """Imports a class of this package, or another one that the caller allows; nothing but such a class is ever called.

    Args:
        path: ``package.module.Class``.
        allow: Class paths, or packages and modules with all that is in them.
        base: What the class must be.

    Raises:
        ModelError: It is not allowed, or there is none, or it is something else.
    """
    own = path.startswith(_OWN)
    if not own and not any(path == name or path.startswith(f"{name}.") for name in allow):
        raise ModelError(
            f"the model needs the class {path}, which is not part of lightning_mmnas; if you trust it, allow it: "
            f"lightning_mmnas.load(..., allow=[{path!r}]), or --allow {path}"
        )
    module, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ModelError(f"the model needs the class {path}, which cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, base)):
        raise ModelError(f"the model needs the class {path}, but that is no {base.__module__}.{base.__qualname__}")
    return found


def class_path(kind: type) -> str:
    """``package.module.Class``.

    Raises:
        ModelError: Nobody else could import it.
    """
    if "<locals>" in kind.__qualname__ or kind.__module__ == "__main__":
        raise ModelError(
            f"{kind.__module__}.{kind.__qualname__} cannot be delivered: put the class into a module of its own"
        )
    return f"{kind.__module__}.{kind.__qualname__}"


def plain(value: Any, what: str) -> Any:
    """A value as JSON knows it.

    Raises:
        ModelError: It is none; names it.
    """
    if isinstance(value, Mapping):
        return {str(key): plain(item, what) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, what) for item in value]
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ModelError(f"{what}: {value!r} is no plain value, so it cannot be delivered") from None
    return value
