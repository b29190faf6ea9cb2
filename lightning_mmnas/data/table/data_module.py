"""The user's own table: one row per sample, one column or several per modality."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch
from lightning.fabric.utilities import rank_zero_warn
from torch import Tensor

from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.columns.column import Column, ColumnSamples, OnError, SelectedColumn, usable_rows
from lightning_mmnas.data.columns.texts import TextColumn, TextTokenizer
from lightning_mmnas.data.spec import is_modality_name, to_unit
from lightning_mmnas.data.table.columns import ColumnSpec, NumberColumn, StandardisedColumn, file_column
from lightning_mmnas.data.table.reading import Cell, Table, read_table
from lightning_mmnas.data.table.splits import (
    Classes,
    check_classes,
    class_names,
    drawn_splits,
    encode_classes,
    given_splits,
    group_numbers,
    read_classes,
)
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError

Missing = Literal["error", "drop", "mask"]

_NAMED = 5
_MEAN_SAMPLES = 256


class TableDataModule(MultimodalDataModule):
    """Samples of a CSV, JSON lines or Parquet file, one per row; `mmnas init` writes a configuration for it.

    Files are named relative to the table's folder. Numbers and motion are standardised by mean and standard deviation
    of the training rows. Without a split column, 15 % of the rows are for validation and 15 % for test: whole groups
    where there is a group column, otherwise each class by itself. A row without a label serves the stages without
    labels, in which it is -1.

    Args:
        table: A `.csv`, `.jsonl` or `.parquet` file.
        columns: The modalities: how each is read, and from which columns.
        label: Column of the class, or of a list of classes; None: there are no labels.
        label_separator: What parts several classes in one cell, such as "|"; lists need none.
        split: Column that says train, val (valid, validation, dev) or test; None: splits are drawn.
        group: Column of what must not straddle splits, such as the person; None: each row stands alone.
        id: Column that must be different in every row.
        missing: What an empty cell of a modality does: "error"; "drop": its row is left out; "mask": the modality is
            its training mean there, or all padding for a text.
        on_error: "raise": damaged files and cells are an error; "skip": their rows are left out with a warning.
        split_seed: Which draw of the splits.
        modalities: See `MultimodalDataModule`, as for all that follow.
        batch_size: Samples per batch.
        num_workers: Worker processes per loader.
        architecture_fraction: Share of the training data for the architecture step.
        architecture_split: "val": the architecture step reads the validation split.
        labels: Whether samples carry `"label"`.
        labels_per_class: Label budget; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling and of the architecture split.

    Raises:
        ConfigError: A modality is declared in a way that cannot be.
    """

    def __init__(
        self,
        table: str,
        columns: dict[str, ColumnSpec],
        label: str | None = None,
        label_separator: str | None = None,
        split: str | None = None,
        group: str | None = None,
        id: str | None = None,
        missing: Missing = "error",
        on_error: OnError = "raise",
        split_seed: int = 0,
        modalities: Sequence[str] | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        architecture_fraction: float | None = None,
        architecture_split: Literal["val"] | None = None,
        labels: bool = True,
        labels_per_class: int | None = None,
        label_seed: int = 0,
        seed: int = 0,
    ) -> None:
        for name, spec in columns.items():
            if not is_modality_name(name):
                raise ConfigError(f"{name!r} cannot be the name of a modality; check data.init_args.columns")
            spec.check(name)
        for argument, value, accepted in (
            ("missing", missing, ("error", "drop", "mask")),
            ("on_error", on_error, ("raise", "skip")),
        ):
            if value not in accepted:
                raise ConfigError(f"{argument} {value!r} is not in {list(accepted)}; check data.init_args.{argument}")
        if label_separator == "":
            raise ConfigError("label_separator must not be empty; check data.init_args.label_separator")
        if split_seed < 0:
            raise ConfigError(f"split_seed must be at least 0, got {split_seed}; check data.init_args.split_seed")
        self.path = Path(table)
        self.declared = dict(columns)
        self.label = label
        self.label_separator = label_separator
        self.split = split
        self.group = group
        self.id = id
        self.missing: Missing = missing
        self.on_error: OnError = on_error
        self.split_seed = split_seed
        self.tokenizers = {n: TextTokenizer(s.tokenizer, s.vocabulary) for n, s in columns.items() if s.kind == "text"}
        super().__init__(
            modalities=modalities,
            batch_size=batch_size,
            num_workers=num_workers,
            architecture_fraction=architecture_fraction,
            architecture_split=architecture_split,
            labels=labels,
            labels_per_class=labels_per_class,
            label_seed=label_seed,
            seed=seed,
        )

    @property
    def available_modalities(self) -> dict[str, ModalitySpec]:
        """The declared modalities."""
        return {
            name: spec.modality(self.tokenizers[name].vocabulary if name in self.tokenizers else None)
            for name, spec in self.declared.items()
        }

    @property
    def class_names(self) -> list[str]:
        """The classes of the training rows, sorted; reads the table, but no other file."""
        if self.label is None:
            return []
        rows = self.rows  # checks that no class is only in validation or test
        return class_names([self._classes[0][row] for row in rows["train"]])

    @property
    def task(self) -> Task | None:
        """Whether a row has one class or several; None without a label column."""
        return None if self.label is None else "multilabel" if self._classes[1] else "multiclass"

    @cached_property
    def content(self) -> Table:
        """The table; its columns are checked."""
        table = read_table(self.path)
        for name, spec in self.declared.items():
            for column in spec.columns:
                table.need(column, f"data.init_args.columns.{name}")
        for argument in ("label", "split", "group", "id"):
            column = getattr(self, argument)
            if column is not None:
                table.need(column, f"data.init_args.{argument}")
        if self.id is not None:
            first: dict[str, int] = {}
            for row, cells in enumerate(table.rows):
                key = repr(cells[self.id])
                if key in first:
                    raise DataError(
                        f"{table.place(row, self.id)}: id {cells[self.id]!r} is also in line {table.lines[first[key]]}"
                    )
                first[key] = row
        again = table.repeated()
        if again:
            lines = ", ".join(str(table.lines[row]) for row in again[:_NAMED])
            rank_zero_warn(f"{table.path}: {len(again)} row(s) repeat an earlier one: line {lines}")
        return table

    @cached_property
    def rows(self) -> dict[Split, list[int]]:
        """Rows of the table in each split."""
        table, classes = self.content, self._classes if self.label is not None else None
        groups = self._groups
        incomplete = [row for row in range(len(table.rows)) if any(self._empty(row, name) for name in self._selected)]
        if incomplete and self.missing == "error":
            lines = ", ".join(str(table.lines[row]) for row in incomplete[:_NAMED])
            raise DataError(
                f"{table.path}: {len(incomplete)} row(s) lack a modality: line {lines}; set data.init_args.missing to "
                "drop or mask"
            )
        gone = set(incomplete) if self.missing == "drop" else set()
        gone |= {row for row in incomplete if all(self._empty(row, name) for name in self._selected)}
        kept = [row for row in range(len(table.rows)) if row not in gone]
        if len(kept) < 3:
            raise DataError(f"{table.path}: {len(kept)} row(s) are left; training, validation and test need 3")
        if self.split is not None:
            given = given_splits(table, self.split, groups, self.split_seed)
            found: dict[Split, list[int]] = {name: [r for r in rows if r not in gone] for name, rows in given.items()}
        else:
            several = classes is not None and classes[1]
            found = drawn_splits(kept, classes[0] if classes else None, several, groups, self.split_seed)
        if classes is not None and self.label is not None:
            check_classes(table, self.label, classes[0], found)
        return found

    def build(self, split: Split) -> None:
        """Builds one split; errors name the table."""
        try:
            super().build(split)
        except DamagedFilesError:
            raise
        except DataError as error:
            if str(self.path) in str(error):
                raise
            raise DataError(f"{self.path}: {error}") from None

    def words(self, modality: str, ids: Tensor) -> str | None:
        """Returns the words of a text's ids."""
        return self.tokenizers[modality].decode(ids) if modality in self.tokenizers else None

    def _samples(self, split: Split) -> ColumnSamples:
        columns = {name: self._column(name, split) for name in self._selected}
        rows = self.rows[split]
        if not rows:
            raise DataError(f"{self.path}: the {split} split has no rows")
        good = usable_rows(columns, self.on_error, split).tolist()
        if len(good) < len(rows):
            columns = {name: SelectedColumn(column, good) for name, column in columns.items()}
            rows = [rows[i] for i in good]
        labels = None
        if self.label is not None:
            classes, several = self._classes
            labels = encode_classes([classes[row] for row in rows], self.class_names, several)
        groups = None if self._groups is None else group_numbers([self._groups[row] for row in rows])
        return ColumnSamples(columns, labels, groups)

    @cached_property
    def _classes(self) -> tuple[list[Classes | None], bool]:
        if self.label is None:
            raise DataError("there is no label column")
        return read_classes(self.content, self.label, self.label_separator)

    @cached_property
    def _groups(self) -> list[Cell] | None:
        if self.group is None:
            return None
        table = self.content
        for row, cells in enumerate(table.rows):
            if cells[self.group] is None or isinstance(cells[self.group], list | dict):
                raise DataError(f"{table.place(row, self.group)}: {cells[self.group]!r} is no group")
        return [str(cells[self.group]).strip() for cells in table.rows]

    def _empty(self, row: int, modality: str) -> bool:
        return any(self.content.rows[row][column] is None for column in self.declared[modality].columns)

    def _column(self, name: str, split: Split) -> Column:
        spec, rows = self.declared[name], self.rows[split]
        places, there = _places([not self._empty(row, name) for row in rows])
        whole = [rows[i] for i in there]
        if spec.kind == "text":
            tokenizer = self.tokenizers[name]
            tokenizer.fit(lambda: self._texts(name, self.rows["train"]))
            sources = [self.content.place(row, spec.columns[0]) for row in rows]
            return TextColumn(self._texts(name, rows), tokenizer, spec.length, str(self.path), sources)
        column = self._plain(name, whole)
        mean, std, fill = self.statistics[name]
        return StandardisedColumn(column, places, fill, mean, std, name)

    def _plain(self, name: str, rows: Sequence[int]) -> Column:
        spec = self.declared[name]
        numbers = spec.kind == "features" and not spec.files
        return NumberColumn(self.content, spec.columns, rows) if numbers else file_column(spec, self.content, rows)

    def _texts(self, name: str, rows: Sequence[int]) -> list[str]:
        column = self.declared[name].columns[0]
        return ["" if (cell := self.content.rows[row][column]) is None else str(cell) for row in rows]

    @cached_property
    def statistics(self) -> Mapping[str, tuple[Tensor | None, Tensor | None, Tensor]]:
        """Mean and deviation of standardised modalities, and what stands for an empty cell."""
        return {n: self._measure(n) for n in self._selected if self.declared[n].kind != "text"}

    def _measure(self, name: str) -> tuple[Tensor | None, Tensor | None, Tensor]:
        spec, modality = self.declared[name], self.available_modalities[name]
        rows = [row for row in self.rows["train"] if not self._empty(row, name)]
        if not spec.standardised:
            if self.missing != "mask":  # no cell is empty then
                return None, None, torch.zeros(modality.shape, dtype=modality.dtype)
            drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:_MEAN_SAMPLES].tolist()
            rows = [rows[i] for i in drawn]
        column = self._plain(name, rows)
        count, total = 0, torch.zeros(modality.shape, dtype=torch.float64)
        sums = torch.zeros(len(total), 2, dtype=torch.float64)
        first: Tensor | None = None  # squares are summed around it, for numbers far from zero
        for index in range(len(rows)):
            try:
                value = to_unit(column.read(index)).double()
            except DamagedFilesError:  # named when the split is checked
                continue
            if first is None:
                first = value.reshape(len(value), -1)[:, :1]
            around = value.reshape(len(value), -1) - first
            count, total = count + 1, total + value
            sums += torch.stack((around.mean(1), around.square().mean(1)), 1)
        if count == 0 or first is None:
            if self.on_error == "raise":  # the check of the split names the files
                return None, None, torch.zeros(modality.shape, dtype=modality.dtype)
            raise DataError(f"{self.path}: no training row has a usable {name!r}")
        if not spec.standardised:
            unit = total / count
            pixels = modality.dtype == torch.uint8
            return None, None, ((unit * 255).round() if pixels else unit).to(modality.dtype)
        mean, square = (sums / count).unbind(1)
        std = (square - mean.square()).clamp(min=0).sqrt()
        std = torch.where(std > 1e-12, std, 1.0)  # a constant column becomes zero
        shape = (-1, *[1] * (len(modality.shape) - 1))
        centre = (mean + first[:, 0]).view(shape).float()
        return centre, std.view(shape).float(), torch.zeros(modality.shape)


def _places(present: Sequence[bool]) -> tuple[list[int | None], list[int]]:
    """Place of each sample among those that are there, None for the others; and which those are."""
    there = [index for index, here in enumerate(present) if here]
    place = {index: number for number, index in enumerate(there)}
    return [place.get(index) for index in range(len(present))], there
