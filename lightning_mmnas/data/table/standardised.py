"""Numbers of a table as samples, and samples less their mean, divided by their standard deviation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import Column, Flaws, damaged
from lightning_mmnas.data.samples import tensor_digest
from lightning_mmnas.data.spec import ModalitySpec, to_unit
from lightning_mmnas.data.table.reading import Table
from lightning_mmnas.errors import DamagedFilesError

Statistics = tuple[Tensor | None, Tensor | None, Tensor]
"""Mean and standard deviation, None where samples stay as they are; and what stands for an empty cell."""


class NumberColumn(Column):
    """Numbers in the cells of one or several columns, in double precision: they are not standardised yet.

    Args:
        table: The table.
        names: The columns; or one, of lists of one length, which are float32 where that is exact.
        rows: Which rows are the samples.
    """

    def __init__(self, table: Table, names: Sequence[str], rows: Sequence[int]) -> None:
        self.table = table
        self.names = list(names)
        self.rows = np.asarray(rows, np.int64)
        if (vectors := table.vectors(self.names[0])) is not None:
            self.values, self._wrong = torch.from_numpy(vectors[self.rows]), set[int]()
            return
        found = [table.parsed(name) for name in self.names]
        self.values = torch.from_numpy(np.stack([column.values[self.rows] for column in found], 1))  # (n, d)
        wrong = np.zeros(len(table), bool)
        for column in found:
            wrong[column.wrong] = True
        self._wrong = set(np.flatnonzero(wrong[self.rows]).tolist())

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, index: int) -> Tensor:
        """Returns the numbers of one row, shape (d,).

        Raises:
            DamagedFilesError: A cell is no number; names line and column.
        """
        if index in self._wrong:
            raise damaged(*self._flaw(index))
        return self.values[index]

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Returns the numbers of several rows, shape (b, d)."""
        if not self._wrong.isdisjoint(indices):
            return super().batch(indices)  # names the cell
        return self.values[torch.as_tensor(indices, dtype=torch.long)]

    def flaws(self) -> Flaws:
        """Cells that are no numbers."""
        return {index: [self._flaw(index)] for index in sorted(self._wrong)}

    def good(self) -> Tensor:
        """The rows without a wrong cell, shape (m, d)."""
        if not self._wrong:
            return self.values
        kept = torch.ones(len(self), dtype=torch.bool)
        kept[torch.tensor(sorted(self._wrong), dtype=torch.long)] = False
        return self.values[kept]

    def source(self, index: int) -> str:
        """File and line."""
        return self.table.row(int(self.rows[index]))

    def fingerprint(self, index: int) -> str:
        """The numbers."""
        return self.values[index].numpy().tobytes().hex()

    def digest(self, index: int) -> str:
        """Hash of the numbers."""
        return tensor_digest(self.read(index))

    def _flaw(self, index: int) -> tuple[str, str]:
        row = int(self.rows[index])
        name = next(name for name in self.names if _holds(self.table.parsed(name).wrong, row))
        return self.table.place(row, name), self.table.wrong(row, name)


def _holds(rows: np.ndarray[Any, np.dtype[np.int64]], row: int) -> bool:
    place = int(np.searchsorted(rows, row))
    return place < len(rows) and int(rows[place]) == row


class StandardisedColumn(Column):
    """Another column, less its mean and divided by its standard deviation; its empty cells are filled.

    Args:
        column: The samples that are there.
        places: Place of each sample in `column`; None where the cell is empty.
        fill: What stands for an empty cell, in the unit of the result.
        mean: Broadcast to a sample, in double precision; None: samples stay as they are.
        std: Likewise.
        name: What to call an empty cell in messages.
    """

    def __init__(
        self,
        column: Column,
        places: Sequence[int | None],
        fill: Tensor,
        mean: Tensor | None = None,
        std: Tensor | None = None,
        name: str = "",
    ) -> None:
        self.column = column
        self.places = list(places)
        self.fill = fill
        self.mean = mean
        self.std = std
        self.name = name
        self._empty_fingerprint = f"empty {tensor_digest(fill)}"
        self._statistics = "" if mean is None or std is None else f" {tensor_digest(mean)} {tensor_digest(std)}"

    def __len__(self) -> int:
        return len(self.places)

    def read(self, index: int) -> Tensor:
        """Reads one sample."""
        place = self.places[index]
        if place is None:
            return self.fill.clone()
        return self._standardised(self.column.read(place))

    def check(self, index: int) -> None:
        """As the other column does."""
        if (place := self.places[index]) is not None:
            self.column.check(place)

    def glance(self, index: int) -> None:
        """As the other column does."""
        if (place := self.places[index]) is not None:
            self.column.glance(place)

    def batch(self, indices: Sequence[int]) -> Tensor:
        """Reads several samples."""
        places = [self.places[index] for index in indices]
        there = [place for place in places if place is not None]
        if len(there) == len(places):
            return self._standardised(self.column.batch(there))
        found = self.fill.expand(len(places), *self.fill.shape).clone()
        if there:
            mask = torch.tensor([place is not None for place in places])
            found[mask] = self._standardised(self.column.batch(there)).to(found.dtype)
        return found

    def flaws(self) -> Flaws | None:
        """Those of the other column."""
        known = self.column.flaws()
        if not known:
            return known
        return {index: known[place] for index, place in enumerate(self.places) if place is not None and place in known}

    def source(self, index: int) -> str:
        """That of the other column."""
        place = self.places[index]
        return f"{self.name}, sample {index}, an empty cell" if place is None else self.column.source(place)

    def fingerprint(self, index: int) -> str:
        """That of the other column."""
        place = self.places[index]
        return (self._empty_fingerprint if place is None else self.column.fingerprint(place)) + self._statistics

    def digest(self, index: int) -> str:
        """That of the other column; of an empty cell, the row's own."""
        place = self.places[index]
        return f"empty {self.name} {index}" if place is None else self.column.digest(place)

    def _standardised(self, values: Tensor) -> Tensor:
        if self.mean is None or self.std is None:
            return values
        return standardise(values, self.mean, self.std)


def standardise(value: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """(value - mean) / std as float32, which comes last: unix times within a minute are one number in it."""
    if value.dtype == torch.float64:
        return ((value - mean.double()) / std.double()).float()
    return (value - mean.float()) / std.float()


def mean_and_deviation(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the columns of (n, d), both (d,), float64; a constant column has deviation 1."""
    found = []
    for column in map(Tensor.double, values.unbind(1)):  # one at a time: there may be millions of rows
        mean = column.mean()
        std = (column - mean).square().mean().sqrt()
        constant = bool((column == column[0]).all()) or not bool(std > 0)
        found.append((column[0], torch.ones_like(std)) if constant else (mean, std))
    means, deviations = zip(*found, strict=True)
    return torch.stack(means), torch.stack(deviations)


def measure(column: Column, modality: ModalitySpec, standardised: bool) -> Statistics | None:
    """The statistics of samples, read one after another; damaged ones are left out.

    Args:
        column: The samples.
        modality: What they are; the first axis is that of channels.
        standardised: Whether they are to be standardised, each channel by itself; otherwise only their mean is wanted.

    Returns:
        The statistics, None where no sample can be read.
    """
    count, total = 0, torch.zeros(modality.shape, dtype=torch.float64)
    sums = torch.zeros(len(total), 2, dtype=torch.float64)
    first: Tensor | None = None  # squares are summed around it, for numbers far from zero
    for index in range(len(column)):
        try:
            value = to_unit(column.read(index)).double()
        except DamagedFilesError:
            continue
        if first is None:
            first = value.reshape(len(value), -1)[:, :1]
        around = value.reshape(len(value), -1) - first
        count, total = count + 1, total + value
        sums += torch.stack((around.mean(1), around.square().mean(1)), 1)
    if first is None:
        return None
    if not standardised:
        unit = total / count
        return None, None, ((unit * 255).round() if modality.dtype == torch.uint8 else unit).to(modality.dtype)
    mean, square = (sums / count).unbind(1)
    std = (square - mean.square()).clamp(min=0).sqrt()
    mean = mean + first[:, 0]
    # A constant channel becomes zero; what varies by rounding errors alone is constant.
    std = torch.where(std > 16 * torch.finfo(torch.float64).eps * mean.abs(), std, 1.0)
    shape = (-1, *[1] * (len(modality.shape) - 1))
    return mean.view(shape), std.view(shape), torch.zeros(modality.shape)
