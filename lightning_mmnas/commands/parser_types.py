"""Types that the command line's parser is told how to read and write."""

from functools import reduce
from operator import or_
from typing import Any, get_args

import torch
from jsonargparse.typing import register_type
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelPruning


def register_types() -> None:
    """Registers them; a second call changes nothing."""
    # A ModalitySpec in a checkpoint's hyperparameters is plain values only; this reads its dtype back.
    register_type(torch.dtype, serializer=str, deserializer=_dtype, fail_already_registered=False)
    # The default of an argument of `StochasticWeightAveraging`.
    register_type(torch.device, serializer=str, deserializer=torch.device, fail_already_registered=False)


def read_whole_numbers_first() -> None:
    """Lets a command line read the trainer's numbers as they are written: 1 is one batch, 1.0 all of them.

    To Python's cache of types ``Optional[Union[int, float]]`` is what another module has called so before, perhaps with
    float first, of which 1 is one, too.
    """
    hints: dict[str, Any] = Trainer.__init__.__annotations__
    for name, hint in hints.items():
        kinds = list(get_args(hint))
        if int in kinds and float in kinds and kinds.index(float) < kinds.index(int):
            kinds.remove(int)
            kinds.insert(kinds.index(float), int)
            hints[name] = reduce(or_, kinds)


def write_names_as_names() -> None:
    """Lets `ModelPruning` be given a function's name, which the parser would write as what cannot be a function."""
    hints: dict[str, Any] = ModelPruning.__init__.__annotations__
    if kinds := get_args(hints.get("pruning_fn")):
        hints["pruning_fn"] = reduce(or_, sorted(kinds, key=lambda kind: kind is not str))


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is not the name of a torch.dtype, such as 'float32'")
    return dtype
