"""The user's own table: one row per sample, one column or several per modality."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.fabric.utilities import rank_zero_warn
from torch import Tensor

from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split, Task
from lightning_mmnas.data.columns.column import Column, ColumnSamples, OnError, SelectedColumn, usable_rows
from lightning_mmnas.data.columns.texts import TextColumn, TextTokenizer
from lightning_mmnas.data.names import flaw
from lightning_mmnas.data.spec import TargetScale
from lightning_mmnas.data.table.columns import ColumnSpec, file_column, holds_vectors
from lightning_mmnas.data.table.label_notes import label_notes
from lightning_mmnas.data.table.labels import (
    Classes,
    class_names,
    encode_classes,
    read_classes,
)
from lightning_mmnas.data.table.reading import Cell, Decimal, Mask, Reading, Table, read_table
from lightning_mmnas.data.table.splits import check_classes, drawn_splits, given_splits, group_numbers, read_groups
from lightning_mmnas.data.table.standardised import (
    NumberColumn,
    StandardisedColumn,
    Statistics,
    mean_and_deviation,
    measure,
)
from lightning_mmnas.data.table.targets import read_targets
from lightning_mmnas.data.targets import measure_scale, standardised
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError

Missing = Literal["error", "drop", "mask"]

_MEAN_SAMPLES = 256


class TableDataModule(MultimodalDataModule):
    """Samples of a table, one per row; `mmnas init` writes a configuration for it.

    Files are named relative to the table's folder, or to `files_from`. Numbers and motion are standardised by mean and
    standard deviation of the training rows. Without a split column, 15 % of the rows are for validation and 15 % for
    test: whole groups where there is a group column, otherwise each class by itself. A row without a label serves the
    stages without labels, in which it is -1.

    Args:
        table: A file with suffix `.csv`, `.tsv`, `.jsonl`, `.json` or `.parquet`, a folder of Parquet files,
            or a folder that Hugging Face's `datasets` has saved.
        columns: The modalities: how each is read, and from which columns.
        label: Column of the class, of a list of classes, or of a regression's target; None: there are no labels.
        label_separator: What parts several classes in one cell, such as "|"; lists need none.
        split: Column that says train, val (validation, dev, eval) or test (holdout); None: splits are drawn.
        group: Column of what must not straddle splits, such as the person; None: each row stands alone.
        id: Column that must be different in every row.
        missing: What an empty cell of a modality does: "error"; "drop": its row is left out; "mask": the modality is
            its training mean there, or all padding for a text.
        on_error: "raise": damaged files and cells are an error; "skip": their rows are left out with a warning.
        separator: What parts the cells of a text: one character, or "tab"; None: recognised.
        decimal: Decimal mark of numbers that are texts; None: recognised.
        header: Whether the first row of a text names the columns; None: it does, and one that looks otherwise is an
            error.
        empty: What stands for an empty cell beside white space; None: NaN, NA, N/A, null, None, ?, - and the like.
        split_seed: Which draw of the splits.
        files_from: Folder that files are named relative to; None: that of the table.
        modalities: See `MultimodalDataModule`, as for all that follow.
        batch_size: Samples per batch.
        num_workers: Worker processes per loader.
        architecture_fraction: Share of the training data for the architecture step.
        architecture_split: "val": the architecture step reads the validation split.
        labels: Whether samples carry `"label"`.
        labels_per_class: Label budget; None: all.
        label_seed: Which draw of the label budget.
        seed: Seed of the shuffling and of the architecture split.
        labels_total: Label budget of a regression.
        task: "regression": the label is a real number, to be predicted as such; None: classes.

    Raises:
        ConfigError: A modality is declared in a way that cannot be, or an argument does not fit the task.
    """

    most_read: int | None = None
    """Samples of each split that are read to find damaged ones, where there are more; None: all."""

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
        separator: str | None = None,
        decimal: Literal[".", ","] | None = None,
        header: bool | None = None,
        empty: Sequence[str] | None = None,
        split_seed: int = 0,
        files_from: str | None = None,
        modalities: Sequence[str] | None = None,
        batch_size: int = 128,
        num_workers: int = 0,
        architecture_fraction: float | None = None,
        architecture_split: Literal["val"] | None = None,
        labels: bool = True,
        labels_per_class: int | None = None,
        label_seed: int = 0,
        seed: int = 0,
        labels_total: int | None = None,
        task: Literal["regression"] | None = None,
    ) -> None:
        for name, spec in columns.items():
            if (reason := flaw(name)) is not None:
                raise ConfigError(f"{name!r} cannot be the name of a modality: {reason}; check data.init_args.columns")
            spec.check(name)
        for argument, value, accepted in (
            ("missing", missing, ("error", "drop", "mask")),
            ("on_error", on_error, ("raise", "skip")),
            ("task", task, (None, "regression")),
        ):
            if value not in accepted:
                raise ConfigError(f"{argument} {value!r} is not in {list(accepted)}; check data.init_args.{argument}")
        if label_separator == "":
            raise ConfigError("label_separator must not be empty; check data.init_args.label_separator")
        if task == "regression" and (label is None or label_separator is not None):
            raise ConfigError(
                "task regression needs a label column of one number per row, and no label_separator; check "
                "data.init_args.label and label_separator"
            )
        if split_seed < 0:
            raise ConfigError(f"split_seed must be at least 0, got {split_seed}; check data.init_args.split_seed")
        self.path = Path(table)
        self.files_from = files_from
        self.declared = dict(columns)
        self.label = label
        self.label_separator = label_separator
        self.split = split
        self.group = group
        self.id = id
        self.missing: Missing = missing
        self.on_error: OnError = on_error
        self.reading = Reading(separator, decimal, header, None if empty is None else list(empty))
        self.split_seed = split_seed
        self._regression = task == "regression"
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
            labels_total=labels_total,
        )
        if self._regression:  # of classes the table has to be read first
            self._check_budget(task)

    @property
    def available_modalities(self) -> dict[str, ModalitySpec]:
        """The declared modalities."""
        return {
            name: spec.modality(self.tokenizers[name].vocabulary if name in self.tokenizers else None)
            for name, spec in self.declared.items()
        }

    @property
    def class_names(self) -> list[str]:
        """The classes of the training rows, sorted; reads the table, but no other file. Of a regression the column."""
        if self.label is None:
            return []
        if self._regression:
            return [self.label]
        rows = self.rows  # checks that no class is only in validation or test
        return class_names([self._classes[0][row] for row in rows["train"]])

    @property
    def task(self) -> Task | None:
        """Whether a row has one class, several, or a target; None without a label column."""
        if self._regression:
            return "regression"
        return None if self.label is None else "multilabel" if self._classes[1] else "multiclass"

    @cached_property
    def target_scale(self) -> TargetScale | None:
        """Mean and deviation of the training rows' targets; reads the table, but no other file."""
        if not self._regression:
            return None
        return measure_scale(self._targets, self.rows["train"], f"{self.path}, column {self.label!r}")

    @cached_property
    def content(self) -> Table:
        """The table; its columns are checked."""
        return self._checked(read_table(self.path, self.reading))

    def take(self, table: Table) -> None:
        """Uses a table that has been read already, in place of reading its file again."""
        self.content = self._checked(table)

    def _checked(self, table: Table) -> Table:
        for name, spec in self.declared.items():
            for column in spec.columns:
                table.need(column, f"data.init_args.columns.{name}")
        for argument in ("label", "split", "group", "id"):
            column = getattr(self, argument)
            if column is not None:
                table.need(column, f"data.init_args.{argument}")
        if self.id is not None and (again := table.repeated([self.id])):
            cells = table.cells(self.id)
            cell, first = cells[again[0]], cells.index(cells[again[0]])
            what = f"an empty id{table.spelt_empty([self.id])}" if cell is None else f"id {cell!r}"
            ways = f"; leave id out, or set data.init_args.group to {self.id!r} in its place"
            raise DataError(f"{table.place(again[0], self.id)}: {what} is also in {table.lines([first])}{ways}")
        if again := table.repeated():
            rank_zero_warn(f"{table.path}: {len(again)} row(s) repeat an earlier one: {table.lines(again)}")
        return table

    @property
    def decimal(self) -> Decimal | None:
        """Decimal mark of the numbers; None: there are none, and it was not given."""
        some = any(spec.kind == "features" and not spec.files for spec in self.declared.values())
        return self.content.decimal if some else self.reading.decimal

    @cached_property
    def rows(self) -> dict[Split, list[int]]:
        """Rows of the table in each split."""
        table, classes = self.content, self._row_classes()
        groups = self._groups
        there = np.stack([self._present[name] for name in self._selected])
        incomplete = np.flatnonzero(~there.all(0)).tolist()
        if incomplete and self.missing == "error":
            raise DataError(
                f"{table.path}: {len(incomplete)} row(s) lack a modality: {table.lines(incomplete)}"
                f"{table.spelt_empty([c for name in self._selected for c in self.declared[name].columns])}; set "
                "data.init_args.missing to drop or mask"
            )
        gone = set(incomplete) if self.missing == "drop" else set(np.flatnonzero(~there.any(0)).tolist())
        kept = [row for row in range(len(table)) if row not in gone]
        if len(kept) < 3:
            raise DataError(
                f"{table.path}: {len(kept)} of {len(table)} row(s) can be used; train, val and test need one each"
            )
        if self.split is not None:
            given = given_splits(table, self.split, groups, self.split_seed)
            found: dict[Split, list[int]] = {name: [r for r in rows if r not in gone] for name, rows in given.items()}
            if lost := [name for name, rows in found.items() if not rows]:
                lacks = "all modalities" if self.missing == "mask" else "a modality; set data.init_args.missing to mask"
                raise DataError(f"{table.path}: every row of the {lost[0]} split lacks {lacks}")
        else:
            several = classes is not None and classes[1]
            place = str(table.path) if self.label is None else f"{table.path}, column {self.label!r}"
            found = drawn_splits(kept, classes[0] if classes else None, several, groups, self.split_seed, place)
        if classes is not None and self.label is not None:
            check_classes(table, self.label, classes[0], found)
        return found

    @property
    def notes(self) -> list[str]:
        """What was read in a way that somebody may not expect, in sentences; `mmnas init` prints them too."""
        found = [
            f"{self.path}: {name}: Latin letters keep their accents, since half of the texts with any are Vietnamese "
            "or alike"
            for name, tokenizer in self.tokenizers.items()
            if tokenizer.keeps_accents
        ]
        if self.label is None or self._regression:
            return found
        return found + label_notes(self.content, self.label, *self._classes)

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
        good = usable_rows(columns, self.on_error, split, most=self.most_read).tolist()
        if len(good) < len(rows):
            columns = {name: SelectedColumn(column, good) for name, column in columns.items()}
            rows = [rows[i] for i in good]
        labels = None
        if self.target_scale is not None:
            labels = standardised(self._targets[rows], self.target_scale)
        elif self.label is not None:
            classes, several = self._classes
            labels = encode_classes([classes[row] for row in rows], self.class_names, several)
        groups = None if self._groups is None else group_numbers(self._groups)[rows]  # in all splits alike
        return ColumnSamples(columns, labels, groups, rows)

    def _row_classes(self) -> tuple[Sequence[Classes | None], bool] | None:
        """What splits are drawn by: the classes of each row; of a target only whether there is one."""
        if self._regression:
            return [None if missing else () for missing in self._targets.isnan().tolist()], True
        return None if self.label is None else self._classes

    @cached_property
    def _targets(self) -> Tensor:
        assert self.label is not None
        return read_targets(self.content, self.label)

    @cached_property
    def _classes(self) -> tuple[list[Classes | None], bool]:
        if self.label is None:
            raise DataError("there is no label column")
        return read_classes(self.content, self.label, self.label_separator)

    @cached_property
    def _groups(self) -> list[Cell] | None:
        return None if self.group is None else read_groups(self.content, self.group)

    @cached_property
    def _present(self) -> dict[str, Mask]:
        """By modality, the rows that have it, shape (n,); a cell that is no number is damaged, not absent."""
        found = {}
        for name in self._selected:
            there = np.ones(len(self.content), bool)
            for column in self.declared[name].columns:
                there &= self.content.filled(column)
            found[name] = there
        return found

    def _column(self, name: str, split: Split) -> Column:
        spec, rows = self.declared[name], self.rows[split]
        places, there = _places(self._present[name][rows].tolist())
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
        numbers = spec.kind == "features" and (not spec.files or holds_vectors(spec, self.content))
        return NumberColumn(self.content, spec.columns, rows) if numbers else self._files(spec, rows)

    def _files(self, spec: ColumnSpec, rows: Sequence[int]) -> Column:
        return file_column(spec, self.content, rows, self.files_from)

    def _texts(self, name: str, rows: Sequence[int]) -> list[str]:
        column = self.declared[name].columns[0]
        cells = self.content.cells(column)
        return ["" if cells[row] is None else str(cells[row]) for row in rows]

    @cached_property
    def statistics(self) -> Mapping[str, Statistics]:
        """Mean and deviation of standardised modalities, and what stands for an empty cell."""
        return {n: self._measure(n) for n in self._selected if self.declared[n].kind != "text"}

    def _measure(self, name: str) -> Statistics:
        spec, modality = self.declared[name], self.available_modalities[name]
        present = self._present[name]
        rows = [row for row in self.rows["train"] if present[row]]
        if not spec.standardised:
            if self.missing != "mask":  # no cell is empty then
                return None, None, torch.zeros(modality.shape, dtype=modality.dtype)
            drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:_MEAN_SAMPLES].tolist()
            rows = [rows[i] for i in drawn]
        column = self._plain(name, rows)
        if isinstance(column, NumberColumn) and len(values := column.good()):
            mean, std = mean_and_deviation(values)
            return mean, std, torch.zeros(modality.shape)
        found = measure(column, modality, spec.standardised)
        if found is None and self.on_error == "skip":
            raise DataError(f"{self.path}: no training row has a usable {name!r}")
        # Otherwise the check of the split names the files.
        return found or (None, None, torch.zeros(modality.shape, dtype=modality.dtype))


def _places(present: Sequence[bool]) -> tuple[list[int | None], list[int]]:
    """Place of each sample among those that are there, None for the others; and which those are."""
    there = [index for index, here in enumerate(present) if here]
    place = {index: number for number, index in enumerate(there)}
    return [place.get(index) for index in range(len(present))], there
