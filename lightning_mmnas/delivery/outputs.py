"""Files of predictions and embeddings, written chunk by chunk; they appear whole or not at all."""

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from lightning_mmnas.errors import ConfigError, DataError
from lightning_mmnas.files import replacing

SUFFIXES = (".csv", ".parquet", ".npy")
"""`.npy` is for numbers alone."""


_WAITING = 64
"""Chunks that wait until the types of all columns are known."""


class Writer(Protocol):
    """Takes the columns of a file chunk by chunk, always the same ones."""

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Appends rows; a column is a list, or an array of floats."""


@contextmanager
def open_output(path: Path, suffixes: Sequence[str]) -> Iterator[Writer]:
    """Opens a file by its suffix; it takes its name when the block has succeeded.

    Args:
        path: The file.
        suffixes: Those that are accepted, of `SUFFIXES`.

    Raises:
        ConfigError: The suffix is not accepted.
        RunDirectoryError: The file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise ConfigError(f"the suffix of {path} is not in {list(suffixes)}; check --output")
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; check --output")
    with replacing(path) as temporary:
        if suffix == ".csv":
            with open(temporary, "w", newline="", encoding="utf-8") as file:
                yield _Csv(file)
        elif suffix == ".npy":
            with open(temporary, "wb") as binary:
                array = _Npy(binary)
                yield array
                array.close()
        else:
            table = _Parquet(temporary)
            try:
                yield table
                table.close()
            finally:
                if table.writer is not None:
                    table.writer.close()


class _Csv:
    def __init__(self, file: IO[str]) -> None:
        self.writer = csv.writer(file)
        self.begun = False

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        if not self.begun:
            self.writer.writerow(columns)
            self.begun = True
        for name, column in columns.items():
            if any(_holds_bytes(cell) for cell in column):
                raise DataError(f"the column {name!r} holds bytes, which a .csv file cannot; write a .parquet file")
        self.writer.writerows(zip(*(map(_cell, column) for column in columns.values()), strict=True))


def _holds_bytes(value: Any) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_bytes, value.values() if isinstance(value, dict) else value))
    return isinstance(value, bytes)


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float | np.floating) and np.isnan(value)):
        return ""
    if isinstance(value, np.float64):  # a target, which may have many digits
        return f"{value:.12g}"
    if isinstance(value, np.floating):
        return f"{value:.6g}"
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, list | dict) else value


class _Parquet:
    """The types of the columns are those of the first rows; a column that is empty there is waited for."""

    def __init__(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet as parquet

        self.pyarrow, self.parquet = pyarrow, parquet
        self.path = path
        self.writer: Any = None
        self.waiting: list[Any] = []

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        try:
            if self.writer is not None:
                self.writer.write_table(self.pyarrow.table(dict(columns), schema=self.writer.schema))
                return
            self.waiting.append(self.pyarrow.table(dict(columns)))
            fields = self._schema()
            if len(self.waiting) == _WAITING or not any(self.pyarrow.types.is_null(field.type) for field in fields):
                self._begin(fields)
        except (self.pyarrow.ArrowInvalid, self.pyarrow.ArrowTypeError) as error:
            raise DataError(f"a column has values of several types: {error}; write a .csv file") from None

    def close(self) -> None:
        if self.waiting:
            self._begin(self._schema())
        if self.writer is not None:
            self.writer.close()

    def _schema(self) -> Any:
        return self.pyarrow.unify_schemas([table.schema for table in self.waiting], promote_options="permissive")

    def _begin(self, fields: Any) -> None:
        """Writes what has waited; a column that is still empty is one of texts."""
        string, is_null = self.pyarrow.string(), self.pyarrow.types.is_null
        schema = self.pyarrow.schema([field.with_type(string) if is_null(field.type) else field for field in fields])
        self.writer = self.parquet.ParquetWriter(self.path, schema)
        for table in self.waiting:
            self.writer.write_table(table.cast(schema))
        self.waiting = []


class _Npy:
    """Rows of float32; the number of rows goes into the header at the end."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.rows = self.width = 0

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        values = np.stack([np.asarray(column, dtype=np.float32) for column in columns.values()], axis=1)
        if self.rows == 0:
            self.width = values.shape[1]
            self._header()
        self.rows += len(values)
        self.file.write(np.ascontiguousarray(values).tobytes())

    def close(self) -> None:
        self.file.seek(0, os.SEEK_SET)
        self._header()

    def _header(self) -> None:
        # numpy leaves room for the largest number of rows, so that the header keeps its length.
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.width)}
        np.lib.format.write_array_header_1_0(self.file, header)
