"""What the command line builds: linked values, plain hyperparameters, and errors of ours in place of the parser's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.utilities import rank_zero_warn

from lightning_mmnas.callbacks.lightning_private import given_hyperparameters
from lightning_mmnas.commands.messages import shorten_parser_error
from lightning_mmnas.errors import CheckpointError, ConfigError, MMNASError

LINKED = ("modalities", "num_classes", "task", "target_scale")
"""Attributes of the data module that a model may ask for by naming an argument so."""


def instantiation_error(error: Exception) -> MMNASError:
    """The error of ours inside what the parser raises when it builds a class, a long error about types."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    own = next((cause for cause in causes if isinstance(cause, MMNASError)), None)
    if own is not None:
        return own
    # Where an argument is of one type or another, the parser's own text has what all of them say.
    several = str(error).startswith("Does not validate against any of the Union subtypes")
    reason = str(causes[-1])
    if several:
        reason = shorten_parser_error(str(error)).removesuffix(" Expected a <class 'bool'>")  # of trainer.logger
    return ConfigError(f"model, data or trainer cannot be built: {reason}")


class Instantiator:
    """Builds the model or the data module, and hands `save_hyperparameters` plain values only.

    Lightning's own also stores linked values that the class does not take, and stores them as
    objects, with which a checkpoint neither loads with weights_only=True nor builds its class.

    Args:
        resolved: Gives the configuration as plain values, without the command's name.
        key: "model" or "data".
    """

    def __init__(self, resolved: Callable[[], dict[str, Any]], key: str) -> None:
        self.resolved = resolved
        self.key = key

    def __call__(
        self,
        class_type: Callable[..., Any],
        *args: Any,
        applied_instantiation_links: dict[str, Any],
        **kwargs: Any,
    ) -> Any:
        """Called by the parser: the class, its arguments, and the values of links by their targets."""
        config = self.resolved().get(self.key) or {}
        hparams = {"_class_path": config.get("class_path"), **config.get("init_args", {})}
        hparams.update(config.get("dict_kwargs", {}))
        prefix = f"{self.key}.init_args."
        for target, value in applied_instantiation_links.items():
            name = target.removeprefix(prefix)
            if target.startswith(prefix) and name in kwargs:
                hparams[name] = plain(value)
        if self.key == "model":
            self._require_links(class_type, kwargs)
        with given_hyperparameters(hparams):
            return class_type(*args, **kwargs)

    def _require_links(self, class_type: Callable[..., Any], kwargs: dict[str, Any]) -> None:
        # A link whose source does not exist is skipped by the parser without a word.
        for name, parameter in inspect.signature(class_type).parameters.items():
            required = parameter.default is inspect.Parameter.empty
            if name not in LINKED or not required or kwargs.get(name) is not None:
                continue
            if "None" in str(parameter.annotation):
                continue
            data = (self.resolved().get("data") or {}).get("class_path")
            what = f"the data module {data} has none" if data else "no data module is given"
            model = getattr(class_type, "__name__", class_type)
            raise ConfigError(
                f"{model} needs the {name!r} of a data module, but {what}; "
                f"give --data a MultimodalDataModule, or a class with a property {name!r}"
            )


def plain(value: Any) -> Any:
    """Dataclasses as dicts, tuples as lists, types of numbers by their names."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, torch.dtype) else value


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values by their full key."""

    def items(node: Any, key: str) -> Iterator[tuple[str, Any]]:
        if isinstance(node, Namespace):
            node = node.as_dict()
        if isinstance(node, dict) and node:
            for name, child in node.items():
                yield from items(child, f"{key}.{name}" if key else str(name))
        else:
            yield key, node

    return dict(items(value, prefix))


def compare_with_checkpoint(path: str, before: dict[str, Any], after: dict[str, Any]) -> None:
    """Refuses a checkpoint of another class, and says which hyperparameters it changes; see `flatten`."""
    asked, found = before.get("class_path"), after.get("class_path")
    if asked is not None and asked != found:
        raise CheckpointError(f"checkpoint {path} holds a {found}, but the configuration asks for a {asked}")
    changes = [
        f"{name}: {before[key]!r} -> {after[key]!r}"
        for key in sorted(before.keys() & after.keys())
        # Linked values are not known before the data module is built.
        if (name := key.removeprefix("init_args.")).partition(".")[0] not in LINKED
        and plain(before[key]) != plain(after[key])
    ]
    if changes:
        rank_zero_warn(
            f"hyperparameters in checkpoint {path} replace those of the configuration: " + ", ".join(changes)
        )
