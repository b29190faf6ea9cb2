"""Samples on their way to a delivered model: rows before their transforms, chunks of tensors behind them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from torch import Tensor
from torch.utils.data import default_collate

from lightning_mmnas.data.samples import LABEL
from lightning_mmnas.data.spec import check_batch, check_pixels
from lightning_mmnas.data.table.numbers import Decimal
from lightning_mmnas.data.table.reading import Cell
from lightning_mmnas.delivery.transforms import MissingValueError, Transforms, Wrong
from lightning_mmnas.errors import DataError

OnError = Literal["raise", "skip"]


@dataclass(frozen=True)
class Row:
    """One sample before its transforms.

    Attributes:
        place: What to call it in messages.
        values: Raw values by modality.
        cells: The row of the table that it comes from; empty where there is none.
        numbers: Its columns of numbers as such: None where a cell is empty, or what is wrong with it.
    """

    place: str
    values: Mapping[str, Any]
    cells: Mapping[str, Cell] = field(default_factory=dict)
    numbers: Mapping[str, float | Wrong | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Chunk:
    """Some samples, ready for the model.

    Attributes:
        tensors: By modality, (m, ...), of the samples that can be used.
        usable: Which of the rows these are.
        rows: All of the rows; none for samples that come as tensors.
        labels: Of samples that come as tensors with labels.
    """

    tensors: dict[str, Tensor]
    usable: list[int]
    rows: list[Row]
    labels: Tensor | None = None


@dataclass(frozen=True)
class Samples:
    """Samples to be predicted.

    Attributes:
        single: Whether a single sample was given, not a list of one.
        rows: The samples as rows; or
        batches: as batches of tensors.
        decimal: The decimal mark of numbers that are texts among the rows' values; None: there are none.
    """

    single: bool = False
    rows: Iterable[Row] = ()
    batches: Iterable[Mapping[str, Tensor]] | None = None
    decimal: Decimal | None = None

    def chunks(self, transforms: Transforms, size: int, on_error: OnError, missing: OnError) -> Iterator[Chunk]:
        """Chunks of samples, transformed.

        Args:
            transforms: Of the model.
            size: Samples of a chunk.
            on_error: What a sample that cannot be read does: "skip": it is not among the usable ones.
            missing: Likewise for a sample that lacks a modality which must not be missing.
        """
        if self.batches is not None:
            for batch in self.batches:
                if not isinstance(batch, Mapping) or not batch:
                    names = list(transforms.modalities)
                    raise DataError(f"a batch is a {type(batch).__name__}, not a dict with the modalities {names}")
                count = len(next(iter(batch.values())))
                yield Chunk(_named(batch, transforms), list(range(count)), [], batch.get(LABEL))
            return
        transforms = transforms if self.decimal is None else transforms.with_decimal(self.decimal)
        rows = iter(self.rows)
        while some := list(islice(rows, size)):
            samples, usable = [], []
            for index, row in enumerate(some):
                try:
                    samples.append(transforms(row.values, row.place))
                except MissingValueError:
                    if missing == "raise":
                        raise
                    continue
                except DataError:
                    if on_error == "raise":
                        raise
                    continue
                usable.append(index)
            yield Chunk(default_collate(samples) if samples else {}, usable, some)


def _named(batch: Mapping[str, Tensor], transforms: Transforms) -> dict[str, Tensor]:
    lacking = [name for name in transforms.modalities if name not in batch and f"{name}/0" not in batch]
    if lacking:
        raise DataError(f"a batch lacks the modalities {lacking}; it has {list(batch)}")
    check_batch(batch, transforms.modalities)
    for name, spec in transforms.modalities.items():
        if spec.kind in ("image", "video") and isinstance(batch.get(name), Tensor):
            check_pixels(batch[name], f"modality {name!r} of a batch")
    return {name: value for name, value in batch.items() if name != LABEL}
