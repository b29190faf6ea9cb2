"""Weights that are no numbers any more end a training, before they take the place of the last good ones."""

import torch
from torch import nn

from lightning_mmnas.errors import TrainingError


def require_finite(module: nn.Module) -> None:
    """Checks parameters and running statistics; one number goes from the device to the processor.

    Raises:
        TrainingError: One is NaN or infinite; names the first.
    """
    statistics = {n: b for n, b in module.named_buffers() if n.endswith(("running_mean", "running_var"))}
    tensors = {**dict(module.named_parameters()), **statistics}
    finite = {name: torch.isfinite(tensor.detach()).all() for name, tensor in tensors.items() if tensor.numel()}
    devices = {flag.device for flag in finite.values()}
    if all(bool(torch.stack([f for f in finite.values() if f.device == device]).all()) for device in devices):
        return
    first = next(name for name, flag in finite.items() if not flag)
    raise TrainingError(
        f"the weights have become NaN or infinite, first {first!r}: a loss was; lower the learning rate, or look for "
        "such values in the data and their views. The last checkpoint, if there is one yet, holds the weights from "
        "before"
    )
