"""From what a user has to what the encoders take: the transforms of training, with the numbers of training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal as ExactNumber
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.audio import fit_waveform
from lightning_mmnas.data.columns.column import FileColumn
from lightning_mmnas.data.columns.images import picture_pixels
from lightning_mmnas.data.columns.texts import TextTokenizer, check_text
from lightning_mmnas.data.spec import ModalitySpec
from lightning_mmnas.data.table.columns import ColumnSpec, read_cell, read_values
from lightning_mmnas.data.table.embedded import decode_media, media_in
from lightning_mmnas.data.table.listed import holds_array
from lightning_mmnas.data.table.numbers import Decimal, is_empty, number
from lightning_mmnas.data.table.paths import locate
from lightning_mmnas.data.table.standardised import standardise
from lightning_mmnas.errors import DamagedFilesError, DataError

RAW_DIMENSIONS = {"image": (2, 3), "video": (3, 4), "audio": (1, 2), "motion": (1, 2), "skeleton": (3, 4)}
"""Dimensions of one array of a kind as a table's file holds it."""

_PREPARED = "prepared_by_transforms"
"""Attribute of tensors that are no raw values any more."""


@dataclass(frozen=True)
class Statistics:
    """What training knew of a modality.

    Attributes:
        mean: Broadcast to a sample; None: it is not standardised.
        std: Likewise.
        fill: What stands for a missing value, in the shape of a sample; None: nothing may be missing.
    """

    mean: Tensor | None = None
    std: Tensor | None = None
    fill: Tensor | None = None


@dataclass(frozen=True)
class Wrong:
    """A cell that is no number.

    Attributes:
        reason: Why.
    """

    reason: str


class MissingValueError(DataError):
    """A sample lacks a modality, and the model was not trained with any missing."""


class Transforms:
    """Turns one sample of raw values into tensors, as the data module did in training.

    Args:
        modalities: What the encoders take.
        columns: How a table's columns are read; of a modality that is not among them a value is a tensor as the data
            module gives it.
        tokenizers: Of the texts.
        statistics: Of the modalities.
        decimal: The decimal mark of numbers that are texts.
    """

    def __init__(
        self,
        modalities: Mapping[str, ModalitySpec],
        columns: Mapping[str, ColumnSpec],
        tokenizers: Mapping[str, TextTokenizer],
        statistics: Mapping[str, Statistics],
        decimal: Decimal = ".",
    ) -> None:
        self.modalities = dict(modalities)
        self.columns = dict(columns)
        self.tokenizers = dict(tokenizers)
        self.statistics = dict(statistics)
        self.decimal: Decimal = decimal

    def with_decimal(self, decimal: Decimal) -> "Transforms":
        """The same with another decimal mark."""
        return Transforms(self.modalities, self.columns, self.tokenizers, self.statistics, decimal)

    def __call__(self, sample: Mapping[str, Any], source: str = "the sample") -> dict[str, Tensor]:
        """Raw values of one sample by modality -> tensors by modality, as the encoders take them but for the batch.

        Args:
            sample: A path, an array, a text, numbers, or None where it is missing; see `DeliveredModel.predict`.
            source: What to call it in messages.

        Raises:
            DataError: A value cannot be read, or has another shape.
            MissingValueError: A modality is missing, or all of them.
        """
        if not isinstance(sample, Mapping):
            raise DataError(
                f"{source}: transforms take one sample, a dict of values by modality, not {type(sample).__name__}; of "
                "several, take each in turn, and torch.utils.data.default_collate makes a batch of them"
            )
        if all(sample.get(name) is None for name in self.modalities):
            raise MissingValueError(f"{source}: it has none of the modalities {list(self.modalities)}")
        found = {}
        for name in self.modalities:
            value = self.modality(name, sample.get(name), source)
            found[name] = value.view_as(value)  # never one that others hold, such as what stands for a missing value
            vars(found[name])[_PREPARED] = True
        return found

    def modality(self, name: str, value: Any, source: str) -> Tensor:
        """One modality of one sample."""
        known = self.statistics.get(name, Statistics())
        spec = self.modalities[name]
        if value is None:
            return self._missing(name, source)
        where = f"{source}, modality {name!r}"
        try:
            found = self._prepared(name, value, where) if name not in self.columns else self._raw(name, value, where)
        except DamagedFilesError as error:
            reason = "; ".join(f"{file}: {reason}" for file, reason in error.files)
            raise DataError(reason if source in reason else f"{source}: {reason}") from error
        if known.mean is not None and known.std is not None:
            found = standardise(found, known.mean, known.std)
        if tuple(found.shape) != spec.shape:
            raise DataError(f"{where}: shape {tuple(found.shape)} instead of {spec.shape}")
        return found

    def is_single(self, name: str, value: Any) -> bool | None:
        """Whether a value is that of one sample, and not one per sample; None: one number in a list may be both.

        Raises:
            DataError: It has been prepared already: it would be standardised once more.
        """
        if _PREPARED in getattr(value, "__dict__", ()):
            raise DataError(
                f"modality {name!r} is what transforms made of a sample, not raw values: give raw values, or let the "
                "model itself take it, model(torch.utils.data.default_collate([sample]))"
            )
        column, spec = self.columns.get(name), self.modalities[name]
        if value is None or isinstance(value, str | bytes | Path | dict) or hasattr(value, "convert"):
            return True
        if not hasattr(value, "__len__") or getattr(value, "ndim", None) == 0:
            return True
        if spec.kind == "audio" and isinstance(value, tuple):  # waveform and rate
            return True
        if type(value).__name__ == "Series":
            return False
        if not hasattr(value, "ndim") or getattr(getattr(value, "dtype", None), "kind", "f") in "OUS":
            if column is None or spec.kind != "features":
                return False
            return _is_row(value, None if column.files else len(column.columns))
        if column is not None and spec.kind == "features" and not column.files and len(column.columns) == 1:
            return None if value.shape == (1,) else False
        if column is None or spec.kind in ("features", "text"):
            return bool(value.ndim == len(spec.shape))
        if column.axes is not None and spec.kind != "features":
            return bool(value.ndim == len(column.axes))
        dimensions = RAW_DIMENSIONS[spec.kind]
        if spec.kind == "image" and value.ndim == 3:
            return value.shape[-1] in (1, 3, 4) or value.shape[0] in (1, 3)
        if spec.kind == "video" and value.ndim == 4:
            return value.shape[-1] in (1, 3) or value.shape[0] in (1, 3)
        if spec.kind == "audio" and value.ndim == 2:
            return bool(value.shape[0] == 1)
        if spec.kind == "motion" and value.ndim == 2:
            return column.channels > 1 or 1 in value.shape
        if spec.kind == "skeleton" and value.ndim == 4:
            return bool(value.shape[2] == 3 and value.shape[1] == column.joints)
        return value.ndim in dimensions

    def _missing(self, name: str, source: str) -> Tensor:
        fill = self.statistics.get(name, Statistics()).fill
        if fill is None:
            raise MissingValueError(
                f"{source}: modality {name!r} is missing, and the model was trained without missing ones "
                "(data.init_args.missing: mask)"
            )
        return fill.clone()

    def _prepared(self, name: str, value: Any, where: str) -> Tensor:
        """A sample as the data module gives it."""
        spec = self.modalities[name]
        found = _tensor(value, where)
        if tuple(found.shape) != spec.shape:
            raise DataError(f"{where}: shape {tuple(found.shape)} instead of {spec.shape}")
        floats = found.is_floating_point()
        if spec.dtype == torch.int64:
            if floats:
                raise DataError(f"{where}: token ids are whole numbers, not {found.dtype}")
            return found.long()
        return found.float() if floats or spec.dtype.is_floating_point else found.to(spec.dtype)

    def _raw(self, name: str, value: Any, where: str) -> Tensor:
        """A sample as a cell of a table, or the file that it names, holds it."""
        column, spec = self.columns[name], self.modalities[name]
        if spec.kind == "text":
            if isinstance(value, str | int | float):  # a table's numbers are texts there, too
                return self.tokenizers[name].encode([check_text(str(value), where)], spec.shape[0])[0]
            return _ids(_tensor(value, where), spec, where)
        if spec.kind == "features" and not column.files:
            return _numbers(value, column.columns, self.decimal, where)
        if isinstance(value, str) and holds_array(value):
            return _embedded(value, column, where)
        if isinstance(value, str | Path):
            path, decode = locate(Path(), str(value)), partial(read_cell, spec=column)
            return FileColumn([path], decode, folders=spec.kind == "video").read(0)
        if spec.kind == "image" and hasattr(value, "convert"):  # a picture of Pillow
            return picture_pixels(
                value, column.size, 1 if column.channels == 1 else 3, where, column.maximum, column.clip
            )
        if isinstance(value, bytes | dict):  # as a table's cell holds them
            return _embedded(value, column, where)
        if spec.kind == "audio":
            return _waveform(value, column, where)
        found = _tensor(value, where)
        if column.axes is not None and found.ndim == len(column.axes):
            return read_values(found.numpy(), column, where)
        column = replace(column, axes=None)
        return read_values(_as_in_a_file(found, spec.kind, column), column, where)


def _as_in_a_file(value: Tensor, kind: str, column: ColumnSpec) -> np.ndarray[Any, np.dtype[Any]]:
    """Channels first, as torch has them, become channels last, as files have them; one channel is no axis."""
    colours = {"image": 3, "video": 4}.get(kind)
    if colours is not None and value.ndim == colours:
        if value.shape[-1] not in (1, 3) and value.shape[0] in (1, 3):
            value = value.movedim(0, -1)
        value = value[..., 0] if value.shape[-1] == 1 else value
    if kind == "motion" and value.ndim == 2 and value.shape[1] != column.channels == value.shape[0]:
        value = value.T
    found: np.ndarray[Any, np.dtype[Any]] = value.numpy()
    return found


def _waveform(value: Any, column: ColumnSpec, where: str) -> Tensor:
    rate = column.rate
    if isinstance(value, tuple):
        if len(value) != 2 or not isinstance(value[1], int):
            raise DataError(f"{where}: a waveform, or a tuple of a waveform and its rate in Hz")
        value, rate = value
    waveform = _tensor(value, where)
    if not waveform.is_floating_point():
        raise DataError(f"{where}: a waveform is floats in [-1, 1], not {waveform.dtype}")
    if waveform.ndim not in (1, 2) or waveform.numel() == 0:
        raise DataError(f"{where}: it is empty, or not of shape (t,) or (channels, t) but {tuple(waveform.shape)}")
    try:
        return fit_waveform(waveform.float().reshape(-1, waveform.shape[-1]), rate, column.rate, column.seconds)
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None


def _embedded(value: str | bytes | dict[str, Any], column: ColumnSpec, where: str) -> Tensor:
    try:
        media = media_in(value, partial(locate, Path()))
    except ValueError as error:
        raise DataError(f"{where}: {error}") from None
    decode = partial(read_cell, spec=column)
    return FileColumn([media], decode).read(0) if isinstance(media, Path) else decode_media(media, decode, where)


def cells_of(value: Any) -> list[Any]:
    """The cells of a modality of numbers in one sample: those of an array or a list, or the one that was given."""
    values = value.tolist() if hasattr(value, "tolist") else value
    return list(values) if isinstance(values, list | tuple) else [values]


def _is_row(values: Sequence[Any], count: int | None) -> bool | None:
    """Whether a list is the numbers of one sample, and not of several; None: it may be both.

    Args:
        values: The list.
        count: How many cells a sample has; texts are numbers then. None: the numbers lie in a file that a text names.
    """
    kinds = int | float | np.number | np.bool_ | ExactNumber
    if count is None:
        return len(values) > 0 and isinstance(values[0], kinds)
    if count == 1:
        return None if len(values) == 1 and not isinstance(values[0], list | tuple | np.ndarray | Tensor) else False
    numbers = [isinstance(value, kinds | str) for value in values]
    return any(numbers) and all(here or is_empty(value) for here, value in zip(numbers, values, strict=True))


def _numbers(value: Any, names: Sequence[str], decimal: Decimal, where: str) -> Tensor:
    values = cells_of(value)
    if len(values) != len(names):
        raise DataError(f"{where}: {len(values)} numbers instead of {len(names)} ({', '.join(names)})")
    found = []
    for name, cell in zip(names, values, strict=True):
        if isinstance(cell, Wrong):
            raise DataError(f"{where}, column {name!r}: {cell.reason}")
        try:
            found.append(number(cell, decimal))
        except ValueError as error:
            raise DataError(f"{where}, column {name!r}: {error}") from None
    return torch.tensor(found, dtype=torch.float64)


def _ids(value: Tensor, spec: ModalitySpec, where: str) -> Tensor:
    size = 0 if spec.vocabulary is None else spec.vocabulary.size
    if value.is_floating_point() or (value.numel() and not 0 <= int(value.min()) <= int(value.max()) < size):
        raise DataError(f"{where}: a text, or ids from 0 to {size - 1}")
    return value.long()


def _tensor(value: Any, where: str) -> Tensor:
    try:
        found = value.detach().cpu() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: {type(value).__name__} is no array of numbers: {error}") from None
    if found.is_floating_point() and not bool(torch.isfinite(found).all()):
        raise DataError(f"{where}: it holds NaN or infinity")
    return found
