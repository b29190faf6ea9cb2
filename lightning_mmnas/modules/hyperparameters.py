"""Hyperparameters that a checkpoint can hold and give back: plain values only."""

import inspect
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from numbers import Real
from os import PathLike
from pathlib import PurePath
from types import FrameType, FunctionType
from typing import Any

import numpy as np
import torch
from lightning import LightningModule
from lightning.fabric.utilities import rank_zero_warn
from omegaconf import Container, OmegaConf
from torch import nn
from typing_extensions import Self, override

from lightning_mmnas.data.choices import check_choices
from lightning_mmnas.errors import CheckpointError, ConfigError
from lightning_mmnas.fusion.compiling import compile_fusion, leave_uncompiled
from lightning_mmnas.modules.averaging import prepare_averages
from lightning_mmnas.modules.finite import require_finite
from lightning_mmnas.modules.frozen import brought_by, read_checkpoint, require_brought
from lightning_mmnas.modules.length import require_long_schedules
from lightning_mmnas.modules.ranks import draw_apart
from lightning_mmnas.space.genotype import Genotype

_RATES = ("lr", "head_lr", "weight_decay")


class StageModule(LightningModule):
    """Base of all stages: whatever hyperparameters a subclass saves, its checkpoints load with ``weights_only=True``.

    What is no plain value, such as encoders or a loss, is left out with a warning: a subclass may call
    ``self.save_hyperparameters()`` without an ``ignore``, and `load_from_checkpoint` is given those arguments.

    Attributes:
        built_with: The plain arguments of the stage itself, whatever arguments a subclass has. (The hyperparameters are
            those that build the subclass again.)
    """

    built_with: dict[str, Any]
    _compiled: str | None = None  # the name of the submodule that is to be compiled

    def on_train_start(self) -> None:
        """Lets every rank draw its own views; refuses what would train nothing or does not fit; compiles, if wanted."""
        self._require_steps()
        draw_apart(self.trainer)
        prepare_averages(self.trainer)
        require_long_schedules(self.trainer)
        if self._compiled is not None:
            compile_fusion(self.get_submodule(self._compiled), self.device)

    def on_train_end(self) -> None:
        """Leaves the module as one that was never compiled: what follows may be on another device."""
        if self._compiled is not None:
            leave_uncompiled(self.get_submodule(self._compiled))

    def _require_steps(self) -> None:
        """Refuses a loss from which nobody steps, or that nothing could lower.

        Raises:
            ConfigError: Optimisation is manual, and the training step is one of this package's; or all weights are
                frozen.
        """
        if not any(parameter.requires_grad for parameter in self.parameters()):
            raise ConfigError(
                f"all weights of {type(self).__name__} are frozen, as freeze() leaves them, so that nothing would be "
                "trained: build it anew, or set requires_grad of those that are to be trained"
            )
        if not self.automatic_optimization and type(self).training_step.__module__.startswith("lightning_mmnas."):
            raise ConfigError(
                f"{type(self).__name__} has automatic_optimization=False and no training_step of its own that steps, "
                "so that nothing would be trained: leave automatic_optimization=True, or write a training_step"
            )

    @override
    def save_hyperparameters(
        self,
        *args: Any,
        ignore: Sequence[str] | str | None = None,
        frame: FrameType | None = None,
        logger: bool = True,
    ) -> None:
        """As Lightning's, but plain values only are kept."""
        here = inspect.currentframe()
        caller = here.f_back if frame is None and here is not None else frame
        if caller is not None and "built_with" not in self.__dict__:  # called by the stage itself, then by a subclass
            arguments = inspect.getargvalues(caller)
            names = set(arguments.args) - {"self"} - ({ignore} if isinstance(ignore, str) else set(ignore or ()))
            self.built_with = {name: arguments.locals[name] for name in names}
            self._check_arguments(caller, arguments.locals)
        given = [OmegaConf.to_container(a, resolve=True) if isinstance(a, Container) else a for a in args]
        super().save_hyperparameters(*given, ignore=ignore, frame=caller, logger=logger)
        plain, left_out = plain_values(self.hparams)
        self.hparams.update(plain)
        for name in left_out:
            del self.hparams[name]
        warn_of_left_out(left_out, type(self).__name__)

    @classmethod
    @override
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """As Lightning's; a genotype that the checkpoint holds need not be given.

        Nor need the files of earlier stages be where they were: the checkpoint brings all weights.
        """
        stored: dict[str, Any] = {}
        if isinstance(checkpoint_path, str | PathLike):
            with suppress(CheckpointError):  # Lightning says what is wrong with a file, and reads addresses too
                stored = read_checkpoint(checkpoint_path, "load_from_checkpoint")
        genotype = Genotype.from_json(stored["genotype"]) if "genotype" in stored else None
        taken = [*inspect.signature(cls.__init__).parameters, *stored.get("hyper_parameters", {})]
        given = kwargs.get("genotype") is not None or kwargs.get("fusion") is not None
        if genotype is not None and "genotype" in taken and not given:
            kwargs["genotype"] = genotype
        names = frozenset(stored.get("state_dict", ()))
        del stored  # Lightning reads it again
        with brought_by(genotype) as brought:
            module = super().load_from_checkpoint(checkpoint_path, *args, **kwargs)
        require_brought(module, names, brought)
        return module

    def _check_arguments(self, caller: FrameType, given: Mapping[str, Any]) -> None:
        """Looks at words and rates that a script has given.

        Raises:
            ConfigError: One of them is none that the stage takes.
        """
        for kind in type(self).__mro__:
            constructor = vars(kind).get("__init__")
            if isinstance(constructor, FunctionType) and constructor.__code__ is caller.f_code:
                check_choices(constructor, given)
        for name in _RATES:
            value = given.get(name)
            if value is not None and not (isinstance(value, Real) and 0 <= float(value) < math.inf):
                raise ConfigError(f"{name} must be a number of at least 0, got {value!r}; check model.init_args.{name}")

    def on_train_epoch_end(self) -> None:
        """Ends a training whose weights are no numbers any more, before a checkpoint is written of them."""
        require_finite(self)


def plain_values(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The values that a checkpoint gives back with ``weights_only=True``, and the names of the others.

    Paths become text, NumPy's numbers Python's, and OmegaConf's containers plain ones.
    """
    plain = {str(name): _plain(value) for name, value in values.items()}
    left_out = [name for name, value in plain.items() if not _loads(value)]
    return {name: value for name, value in plain.items() if name not in left_out}, left_out


def warn_of_left_out(names: Sequence[str], where: str) -> None:
    """Says which hyperparameters are not saved, if there are such."""
    if names:
        rank_zero_warn(
            f"The hyperparameters {list(names)} of {where} are no plain values and are not saved, so that checkpoints"
            " load with weights_only=True: give them to load_from_checkpoint, or name them in"
            " save_hyperparameters(ignore=…)."
        )


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Container):
        return OmegaConf.to_container(value, resolve=True)
    if type(value) is dict:
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(item) for item in value)
    return value


def _loads(value: Any) -> bool:
    if isinstance(value, nn.Module):
        return False
    file = BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        torch.load(file, weights_only=True)
    except Exception:  # pickling raises nearly anything
        return False
    return True
