"""Types that the command line's parser is told how to read and write."""

from typing import Any

import torch
from jsonargparse.typing import register_type

from lightning_mmnas.data.table.columns import ColumnNames


def register_types() -> None:
    """Registers them; a second call changes nothing."""
    # A ModalitySpec in a checkpoint's hyperparameters is plain values only; this reads its dtype back.
    register_type(torch.dtype, serializer=str, deserializer=_dtype, fail_already_registered=False)
    # The default of an argument of `StochasticWeightAveraging`.
    register_type(torch.device, serializer=str, deserializer=torch.device, fail_already_registered=False)
    # Lists of other types are copied once for each of their items: of 2,000 columns that took minutes.
    register_type(ColumnNames, serializer=list, deserializer=_names, fail_already_registered=False)


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is not the name of a torch.dtype, such as 'float32'")
    return dtype


def _names(value: Any) -> ColumnNames:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{str(value)[:80]!r} is no list of names of columns; quote names that are numbers")
    return ColumnNames(value)
