"""``torch.compile`` of a fusion network: the same numbers from fewer kernels, for GPUs, which wait for launches."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_mmnas.errors import ConfigError
from lightning_mmnas.fusion.batch_norm import SynchronisedBatchNorm
from lightning_mmnas.fusion.relaxation import RandomRelaxation

OPTIONS: dict[str, Any] = {"options": {"fallback_random": True}}
"""For ``torch.compile``: GPUs draw the masks of dropout that they draw without it; CPUs draw others."""


def compile_fusion(fusion: nn.Module, device: torch.device) -> None:
    """Has a fusion network or supernet compiled, in place: the first passes of each kind take up to a minute.

    Weights keep their names; copies of the module are not compiled.

    Args:
        fusion: Features by name -> (b, out_features).
        device: Where it is trained.

    Raises:
        ConfigError: It draws, or talks to other ranks, in the middle of a pass, or there is no C++ compiler for a CPU;
            in a pass: it could not be compiled.
    """
    way_out = "leave model.init_args.compile at false"
    for part in fusion.modules():
        if isinstance(part, RandomRelaxation):
            raise ConfigError(f"{type(part).__name__} draws anew in each pass, which is not compiled: {way_out}")
        if isinstance(part, SynchronisedBatchNorm):
            raise ConfigError(f"batch norm that is synchronised over ranks is not compiled: {way_out}")
    compilers = (os.environ.get("CXX", "g++"), "g++", "clang++", "c++", "cl")
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise ConfigError(f"compiling for a CPU needs a C++ compiler, and none was found: install g++, or {way_out}")
    plain: Callable[..., Any] = fusion._call_impl
    compiled: Callable[..., Any] = torch.compile(plain, **OPTIONS)

    def call(features: Any, *args: Any, **kwargs: Any) -> Any:
        # One layout in memory, for each makes a graph of its own: those of joined views and of expanded means differ.
        if isinstance(features, Mapping):
            features = {n: f.contiguous() if isinstance(f, Tensor) else f for n, f in features.items()}
        try:
            return compiled(features, *args, **kwargs)
        except Exception as error:
            if not any(base.__module__ == "torch._dynamo.exc" for base in type(error).__mro__):
                raise
            plain(features, *args, **kwargs)  # says itself what it does not take
            lines = [line.strip() for line in str(error).splitlines()]
            reason = next((line for line in lines if line and not line.endswith("raised:")), type(error).__name__)
            raise ConfigError(f"{type(fusion).__name__} cannot be compiled ({reason}): {way_out}") from error

    fusion._compiled_call_impl = call  # where `nn.Module.compile` has it: copies leave it out


def leave_uncompiled(fusion: nn.Module) -> None:
    """Undoes `compile_fusion`."""
    fusion._compiled_call_impl = None


@contextmanager
def uncompiled(module: nn.Module) -> Iterator[None]:
    """While it lasts, compiled parts run as if they were not: compiled functions have no second derivative."""
    if any(part._compiled_call_impl is not None for part in module.modules()):
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield
