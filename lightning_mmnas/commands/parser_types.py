"""Types that the command line's parser is told how to read and write."""

import torch
from jsonargparse.typing import register_type


def register_types() -> None:
    """Registers them; a second call changes nothing."""
    # A ModalitySpec in a checkpoint's hyperparameters is plain values only; this reads its dtype back.
    register_type(torch.dtype, serializer=str, deserializer=_dtype, fail_already_registered=False)
    # The default of an argument of `StochasticWeightAveraging`.
    register_type(torch.device, serializer=str, deserializer=torch.device, fail_already_registered=False)


def _dtype(name: str) -> torch.dtype:
    dtype = getattr(torch, name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"{name!r} is not the name of a torch.dtype, such as 'float32'")
    return dtype
