"""Pretrained weights of encoders, from local files; nothing in a file is executed."""

import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_mmnas.data.packages import file_in_package, names_package
from lightning_mmnas.errors import CheckpointError


def load_weights(module: nn.Module, path: str | os.PathLike[str], ignore: tuple[str, ...] = ()) -> None:
    """Loads a state dict into a module, all of its entries and no others.

    Args:
        module: Takes the weights.
        path: A ``.safetensors`` file, or one of `torch.save` that loads with ``weights_only=True``: a state dict, or a
            dict that holds one as ``"state_dict"`` or ``"model"``; ``package:NAME`` is the file in that package.
        ignore: Beginnings of the names of entries that may be in the file or the module and need not match, such as
            the classifier of a backbone.

    Raises:
        CheckpointError: There is no such file, it cannot be read safely, or it is of another architecture; names the
            first entry that differs.
    """
    load_state(module, read_weights(path), path, ignore)


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], path: str | os.PathLike[str], ignore: tuple[str, ...] = ()
) -> None:
    """Loads a state dict that has been read; see `load_weights`.

    Raises:
        CheckpointError: It is of another architecture.
    """
    state = {name: value for name, value in state.items() if not name.startswith(ignore or ("\0",))}
    own = {name: value for name, value in module.state_dict().items() if not name.startswith(ignore or ("\0",))}
    if (found := differences(own, state)) is not None:
        raise CheckpointError(
            f"weights {os.fspath(path)!r} are of another architecture: {found.number} entries differ, "
            f"first {found.first!r}: the encoder has {found.wanted}, the file {found.given}"
        )
    module.load_state_dict(state, strict=False)


class Differences(NamedTuple):
    """How many entries of two state dicts differ in name or shape, and the first of them in both."""

    number: int
    first: str
    wanted: tuple[int, ...] | str
    given: tuple[int, ...] | str


def differences(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Differences | None:
    """What keeps a state dict from being loaded.

    Args:
        own: Entries of the module.
        state: Entries of the file.

    Returns:
        None where names and shapes are the same.
    """
    wanted = {name: tuple(value.shape) for name, value in own.items()}
    given = {name: tuple(value.shape) for name, value in state.items()}
    wrong = sorted(name for name in wanted.keys() | given.keys() if wanted.get(name) != given.get(name))
    if not wrong:
        return None
    return Differences(len(wrong), wrong[0], wanted.get(wrong[0], "nothing"), given.get(wrong[0], "nothing"))


def check_intact(path: str | os.PathLike[str]) -> None:
    """Checks the checksums of a file of `torch.save`, at which `torch.load` does not look.

    Raises:
        ValueError: A part of it has changed since it was written, or is compressed, as torch's are not.
    """
    if not zipfile.is_zipfile(path):  # of an old version
        return
    with zipfile.ZipFile(path) as file:
        packed = [entry.filename for entry in file.infolist() if entry.compress_type != zipfile.ZIP_STORED]
        damaged = packed[0] if packed else file.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} in it is damaged")


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads a state dict; see `load_weights`.

    Raises:
        CheckpointError: There is no such file, or it cannot be read safely.
    """
    name = os.fspath(path)
    if names_package(name):
        path = file_in_package(name, "*.safetensors", "*.pth", "*.pt", "*.bin")
        name = os.fspath(path)
    if not Path(path).is_file():
        raise CheckpointError(f"there is no file of weights {name!r}; give a .safetensors or a .pt file")
    try:
        if Path(path).suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(name)
        else:
            check_intact(name)
            content = torch.load(name, map_location="cpu", weights_only=True)
    except Exception as error:  # either library raises a dozen types for a damaged or unsafe file
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"cannot read weights {name!r} safely: {reason}") from None
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    named = isinstance(content, Mapping) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{os.fspath(path)!r} holds no state dict of tensors by name")
    return dict(content)


def renamed_by_order(state: Mapping[str, Tensor], names: Sequence[tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    """Gives the entries of a state dict other names, one by one in their order; where they do not fit, none of them.

    The same network, written by another project, has the same entries in the same order under other names. They are
    taken for it only if every single one has the same last part of its name and the same shape.

    Args:
        state: Weights by name.
        names: Name and shape of every entry wanted, in order.
    """
    if len(state) != len(names):
        return dict(state)
    renamed = {}
    for (old, value), (new, shape) in zip(state.items(), names, strict=True):
        if old.rpartition(".")[2] != new.rpartition(".")[2] or tuple(value.shape) != shape:
            return dict(state)
        renamed[new] = value
    return renamed
