"""Batches as Lightning's loop hands them to a module, for whatever reads samples or loaders outside of the loop."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities.model_helpers import is_overridden
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from typing_extensions import override

from lightning_mmnas.data.spec import Split
from lightning_mmnas.modules import fingerprint

_BEFORE, _MOVE, _AFTER = "on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"
_STAGES = {"train": RunningStage.TRAINING, "val": RunningStage.VALIDATING, "test": RunningStage.TESTING}


class BatchTransfer:
    """What the loop does to a batch: the precision's types, the batch transfer hooks, the device.

    A hook is the data module's, if that overrides it, or the module's, and is called as the loop calls it: with a
    trainer that is in the stage of the split. Batches of a search have two parts; a hook is given both. Stored features
    are no raw samples: hooks that change them are left out.

    Where a module is not of the type that the trainer's precision makes it, because no training has begun, it works in
    its own type.

    Args:
        module: Whose batches they are.
        data: The data module; None: that of the trainer.
        trainer: Whose precision it is; None: that of the module, or none.
        split: The split that is read.
    """

    def __init__(
        self,
        module: LightningModule,
        data: LightningDataModule | None = None,
        trainer: Trainer | None = None,
        split: Split = "train",
    ) -> None:
        self.module = module
        self.trainer = trainer or attached_trainer(module)
        self.data = data or getattr(self.trainer, "datamodule", None)
        self.split = split

    @property
    def hooks(self) -> list[str]:
        """The overridden hooks."""
        owners = [owner for owner in (self.data, self.module) if owner is not None]
        return [name for name in (_BEFORE, _MOVE, _AFTER) if any(is_overridden(name, owner) for owner in owners)]

    @property
    def precision(self) -> Precision:
        """The trainer's, if the module is of its type, else one of the module's own type."""
        dtype = next((p.dtype for p in self.module.parameters() if p.is_floating_point()), None)
        if self.trainer is None or dtype is None:
            return Precision()
        plugin = self.trainer.precision_plugin
        fits = type(plugin) is Precision or plugin.convert_input(torch.zeros(())).dtype == dtype
        return plugin if fits else _OwnType(dtype)

    def __call__(self, batch: Any, part: str | None = None) -> Any:
        """The batch as the module's steps see it, on the module's device.

        Args:
            batch: Raw samples, or stored features.
            part: Which part of a search's batch it is, ``"weights"`` or ``"architecture"``; None: it is a whole batch.
        """
        batch = self.precision.convert_input(batch)
        if not self.hooks:
            return self.module.transfer_batch_to_device(batch, self.module.device, 0)
        names = ("weights", "architecture")
        whole = batch if part is None else {name: batch if name == part else _copy(batch) for name in names}
        changes = not is_stored(whole)
        with self._attached():
            whole = self._hook(_BEFORE)(whole, 0) if changes else whole
            whole = self._hook(_MOVE)(whole, self.module.device, 0)
            whole = self._hook(_AFTER)(whole, 0) if changes else whole
        return whole if part is None else whole[part]

    def code(self) -> str:
        """Hash of the overridden hooks' names and code; empty where there are none."""
        state = [f"{name} {fingerprint.code(type(self._owner(name)))}" for name in self.hooks]
        return hashlib.blake2b("\n".join(state).encode(), digest_size=16).hexdigest() if state else ""

    def loader(self, loader: Iterable[Any], part: str | None = None) -> "Transferred":
        """The batches of a loader, each as the module's steps see it, as often as they are asked for."""
        return Transferred(self, loader, part)

    def context(self) -> AbstractContextManager[Any]:
        """In which the module computes."""
        context: AbstractContextManager[Any] = self.precision.forward_context()
        return context

    def _owner(self, name: str) -> Any:
        return self.data if self.data is not None and is_overridden(name, self.data) else self.module

    def _hook(self, name: str) -> Callable[..., Any]:
        hook: Callable[..., Any] = getattr(self._owner(name), name)
        return hook

    @contextmanager
    def _attached(self) -> Iterator[None]:
        """Lets hooks see the trainer, in the stage of the split."""
        trainer, data, module = self.trainer, self.data, self.module
        if trainer is None:
            yield
            return
        stage, alone = trainer.state.stage, attached_trainer(module) is None
        detached = data is not None and data.trainer is None
        trainer.state.stage = _STAGES[self.split]
        if alone:
            module.trainer = trainer
        if detached:
            data.trainer = trainer  # type: ignore[union-attr]
        try:
            yield
        finally:
            trainer.state.stage = stage
            if alone:
                module.trainer = None
            if detached:
                data.trainer = None  # type: ignore[union-attr]


class Transferred:
    """The batches of a loader after a `BatchTransfer`; it can be iterated as often as the loader.

    Args:
        transfer: What is done to a batch.
        loader: Gives the batches.
        part: See `BatchTransfer`.
    """

    def __init__(self, transfer: BatchTransfer, loader: Iterable[Any], part: str | None = None) -> None:
        self.transfer = transfer
        self.wrapped = loader
        self.part = part

    @property
    def dataset(self) -> Any:
        """What the loader reads."""
        return self.wrapped.dataset  # type: ignore[attr-defined]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.wrapped:
            yield self.transfer(batch, self.part)


class _OwnType(Precision):
    """Floating-point values in a module's own type."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype

    @override
    def convert_input(self, data: Any) -> Any:
        return apply_to_collection(data, Tensor, lambda x: x.to(self.dtype) if x.is_floating_point() else x)


def attached_trainer(module: LightningModule) -> Trainer | None:
    """The trainer that a module is attached to, if any."""
    try:
        return module.trainer
    except RuntimeError:
        return None


def is_stored(batch: Any) -> bool:
    """Whether a batch, or any of its parts, holds features under ``<modality>/<level>``, and no raw samples."""
    if not isinstance(batch, Mapping):
        return False
    return any("/" in str(name) or is_stored(value) for name, value in batch.items())


def spare_stored(owner: LightningModule | LightningDataModule) -> None:
    """Has the hooks of a module or data module leave stored features alone: the samples went through them before."""
    for name in (_BEFORE, _AFTER):
        hook = getattr(owner, name)
        if is_overridden(name, owner) and not hasattr(hook, "spares"):
            setattr(owner, name, _sparing(hook))


def _sparing(hook: Callable[[Any, int], Any]) -> Callable[[Any, int], Any]:
    @wraps(hook)
    def sparing(batch: Any, dataloader_idx: int) -> Any:
        return batch if is_stored(batch) else hook(batch, dataloader_idx)

    sparing.spares = True  # type: ignore[attr-defined]
    return sparing


def _copy(batch: Any) -> Any:
    return apply_to_collection(batch, Tensor, Tensor.clone)
