"""Columns of a data set: one modality of all samples, read from files."""

from lightning_mmnas.data.columns.column import (
    Column,
    ColumnSamples,
    FileColumn,
    KeptColumn,
    SelectedColumn,
    TensorColumn,
    damaged,
    usable_rows,
)

__all__ = [
    "Column",
    "ColumnSamples",
    "FileColumn",
    "KeptColumn",
    "SelectedColumn",
    "TensorColumn",
    "damaged",
    "usable_rows",
]
