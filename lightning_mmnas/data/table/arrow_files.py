"""Tables as Parquet files, and as folders of them or of a Hugging Face data set."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lightning_mmnas.data.table.dialect import check_names
from lightning_mmnas.errors import DataError
from lightning_mmnas.parsing import parse_json

Vectors = np.ndarray[Any, np.dtype[np.float32 | np.float64]]

_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
_ROWS = 1024
"""Rows of a Parquet file that are read at once."""
_SPLIT = re.compile(r"^(train(?:ing)?|unsupervised|val(?:id|idation)?|dev|test)(?:[-_.]|$)", re.IGNORECASE)
_NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""Folder of the rows that have no value of what the folders are named after."""


class ArrowFiles:
    """A table in one or several files that hold typed columns.

    Args:
        path: Its file or folder.

    Raises:
        DataError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[str] = []
        self.files = _found(path) if path.is_dir() else [(path, {})]
        self.sizes: list[tuple[Path, int]] = []
        """Files that were read, with the rows before each."""
        with _open(self.files[0][0]) as (schema, _):
            self.names = [*schema.names, *(name for name in self.files[0][1] if name not in schema.names)]
        check_names(self.files[0][0], self.names)
        if path.is_dir():
            _check_splits(path, [file for file, _ in self.files], self.names)
            self.told.append(f"{len(self.files)} file(s)")
        if added := [name for name in self.files[0][1] if name not in schema.names]:
            self.told.append(f"columns {added} from the names of the files")

    def blocks(self) -> Iterator[tuple[dict[str, pa.Array], Sequence[int]]]:
        """Blocks of rows by column, and their numbers from 1.

        Raises:
            DataError: A file is damaged, or has other columns.
        """
        row = 0
        self.sizes.clear()
        for path, more in self.files:
            self.sizes.append((path, row))
            with _open(path) as (schema, batches):
                names = [*schema.names, *(name for name in more if name not in schema.names)]
                if sorted(names) != sorted(self.names):
                    raise DataError(_difference(path, names, self.files[0][0], self.names))
                classes = _class_labels(schema)
                for batch in batches:
                    columns = {
                        name: plain(column, classes.get(name))
                        for name, column in zip(batch.schema.names, batch.columns, strict=True)
                    }
                    for name, value in more.items():
                        columns.setdefault(name, pa.array([value] * batch.num_rows, pa.string()))
                    if batch.num_rows:
                        yield {name: columns[name] for name in self.names}, range(row + 1, row + 1 + batch.num_rows)
                    row += batch.num_rows


class _open:  # noqa: N801
    """Opens a Parquet or an Arrow file: its schema and its batches."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.source: Any = None

    def __enter__(self) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        if self.path.suffix.lower() == ".arrow":
            self.source = self._guarded(lambda: pa.memory_map(str(self.path)))
            try:
                reader = pa.ipc.open_stream(self.source)
                return reader.schema, self._batches(iter(reader))
            except pa.ArrowInvalid:
                reader = self._guarded(lambda: pa.ipc.open_file(self.source))
            return reader.schema, self._batches(reader.get_batch(i) for i in range(reader.num_record_batches))
        import pyarrow.parquet as parquet

        content = self._guarded(lambda: parquet.ParquetFile(self.path))
        self.source = content
        return self._guarded(lambda: content.schema_arrow), self._batches(content.iter_batches(_ROWS))

    def __exit__(self, *error: object) -> None:
        self.source.close()

    def _batches(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        while (batch := self._guarded(lambda: next(batches, None))) is not None:
            yield batch

    def _guarded(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # pyarrow raises a dozen types for damaged files
            text = str(error).strip().splitlines()
            kind = "Arrow" if self.path.suffix.lower() == ".arrow" else "Parquet"
            raise DataError(
                f"{self.path} is no readable {kind} file: {text[0] if text else type(error).__name__}"
            ) from None


def plain(column: pa.Array, classes: Sequence[str] | None = None) -> pa.Array:
    """A column as numbers, texts, truth values, bytes, lists or structures.

    Categories are their values, decimals are floats, in lists too, dates and times are texts as ISO 8601 has them,
    durations are seconds, NaN is empty.

    Args:
        column: Of any type.
        classes: Names of the classes that its whole numbers stand for.
    """
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain(column.storage, classes)
    if pa.types.is_dictionary(kind):
        return plain(column.dictionary_decode(), classes)
    if classes is not None and is_list(kind):
        named = plain(pc.list_flatten(column), classes)
        offsets = np.concatenate([[0], np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy(False))])
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), named, mask=column.is_null())
    if classes is not None and pa.types.is_integer(kind):
        known = pc.if_else(pc.and_(pc.greater_equal(column, 0), pc.less(column, len(classes))), column, None)
        return pa.array(classes, pa.string()).take(known)
    if pa.types.is_decimal(kind) or pa.types.is_float16(kind):
        return plain(column.cast(pa.float64()))
    if pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(column), pa.scalar(None, kind), column)
    if pa.types.is_duration(kind):
        return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), _PER_SECOND[kind.unit])
    if pa.types.is_temporal(kind):
        try:
            return pc.replace_substring_regex(column.cast(pa.string()), r"\.0+(Z?)$", r"\1")
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # times of unknown zones
            return pa.array([None if cell is None else str(cell) for cell in column.to_pylist()], pa.string())
    if str(kind) in ("string_view", "large_string"):
        return column.cast(pa.string())
    if (simple := _simple(kind)) != kind:
        return column.cast(simple)
    return column


def _simple(kind: pa.DataType) -> pa.DataType:
    """The type of lists whose decimals are floats, and whose categories are their values."""
    if not is_list(kind):
        return pa.float64() if pa.types.is_decimal(kind) else kind
    inner = _simple(kind.value_type)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(inner, kind.list_size)
    return pa.large_list(inner) if pa.types.is_large_list(kind) else pa.list_(inner)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column holds lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def list_rows(column: pa.ChunkedArray) -> Vectors | None:
    """Lists as rows; see `Table.vectors`."""
    kind = column.type
    if not is_list(kind) or not (pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)):
        return None
    there = column.is_valid().to_numpy()
    lists = column.drop_null()
    lengths = pc.unique(pc.list_value_length(lists)).to_pylist()
    numbers = pc.list_flatten(lists)
    if len(lengths) != 1 or lengths[0] == 0 or numbers.null_count:
        return None
    found: np.ndarray[Any, Any] = numbers.to_numpy()
    wide = found.dtype.itemsize > (4 if found.dtype.kind == "f" else 2)
    found = found.astype(np.float64 if wide else np.float32, copy=False).reshape(-1, lengths[0])
    if not np.isfinite(found).all():
        return None
    if there.all():
        return found
    rows = np.zeros((len(there), lengths[0]), found.dtype)
    rows[there] = found
    return rows


def _class_labels(schema: pa.Schema) -> dict[str, list[str]]:
    """Names of classes, and of those in lists, that Hugging Face's `datasets` notes in the schema."""
    try:
        info = parse_json((schema.metadata or {})[b"huggingface"])["info"]["features"]
        found = {name: _class_names(feature) for name, feature in info.items()}
    except (KeyError, ValueError, AttributeError, TypeError):
        return {}
    return {name: names for name, names in found.items() if names is not None}


def _class_names(feature: Any) -> list[str] | None:
    if isinstance(feature, list) and len(feature) == 1:  # how older ones write a list
        return _class_names(feature[0])
    if not isinstance(feature, dict):
        return None
    if feature.get("_type") in ("Sequence", "List", "LargeList"):
        return _class_names(feature.get("feature"))
    names = feature.get("names")
    return list(map(str, names)) if feature.get("_type") == "ClassLabel" and isinstance(names, list) else None


def _difference(path: Path, names: Sequence[str], first: Path, others: Sequence[str]) -> str:
    """That a file has other columns than the first one."""
    lacks, more = ([name for name in a if name not in b] for a, b in ((others, names), (names, others)))
    told = [f"lacks the columns {lacks[:5]}"] if lacks else []
    told += [f"has the further columns {more[:5]}"] if more else []
    what = " and ".join(told)
    return (
        f"{path} {what}, compared with {first}; the files of a table have the same: mend them, or move some elsewhere"
    )


def _found(folder: Path) -> list[tuple[Path, Mapping[str, str | None]]]:
    """The files of a folder, and what their names add to each row."""
    if (folder / "dataset_dict.json").is_file():
        listed = _names(folder / "dataset_dict.json", _json(folder / "dataset_dict.json").get("splits", []))
        return [(path, {"split": split}) for split in listed for path in _saved(folder / split)]
    if (folder / "state.json").is_file():
        return [(path, {}) for path in _saved(folder)]
    paths = sorted(path for path in folder.rglob("*.parquet") if not path.name.startswith((".", "_")))
    if not paths:
        raise DataError(f"{folder} holds no .parquet files, and is no folder that `datasets` has saved")
    found: list[tuple[Path, Mapping[str, str | None]]] = []
    for path in paths:
        parts = [part.split("=", 1) for part in path.relative_to(folder).parts[:-1] if "=" in part]
        found.append((path, {name: None if value == _NO_VALUE else unquote(value) for name, value in parts}))
    splits = [_split(folder, path) for path in paths]
    if all(splits) and len({match.group(1).lower() for match in splits if match}) > 1:
        return [
            (path, {"split": m.group(1).lower(), **more}) for (path, more), m in zip(found, splits, strict=True) if m
        ]
    return found


def _split(folder: Path, path: Path) -> re.Match[str] | None:
    """The split that a file, or the folder within the table that it lies in, is called after."""
    return _SPLIT.match(path.name) or (_SPLIT.match(path.parent.name) if path.parent != folder else None)


def _check_splits(folder: Path, paths: Sequence[Path], names: Sequence[str]) -> None:
    """Refuses files that are called train and test beside one that is called otherwise."""
    splits = [_split(folder, path) for path in paths]
    called = {match.group(1).lower() for match in splits if match}
    if len(called) > 1 and None in splits and "split" not in names:
        raise DataError(
            f"{paths[splits.index(None)]} is called after no split, while other files are after {sorted(called)}; "
            "call it after one of them, move it elsewhere, or write a column split into the files"
        )


def _saved(folder: Path) -> list[Path]:
    """The files that a folder of `datasets` names."""
    listed = _json(folder / "state.json").get("_data_files", [])
    entries = [entry.get("filename") if isinstance(entry, dict) else entry for entry in _list(listed)]
    files = [folder / name for name in _names(folder / "state.json", entries)]
    if not files or not all(path.is_file() for path in files):
        raise DataError(f"{folder}: state.json names the files {[path.name for path in files]}, not all are there")
    return files


def _names(path: Path, names: Any) -> list[str]:
    """Names of files and folders beside a file that lists them, and nowhere else."""
    for name in _list(names):
        if not isinstance(name, str) or name in ("", ".", "..") or "\0" in name or set(name) & set("/\\"):
            raise DataError(f"{path} names {name!r}, which is no file or folder beside it")
    return _list(names)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    if not isinstance(content, dict):
        raise DataError(f"{path} is no object")
    return content
