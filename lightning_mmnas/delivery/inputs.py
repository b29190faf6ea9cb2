"""What a user gives to a delivered model, cut into chunks of samples: tables, folders, dicts, loaders."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils.data import DataLoader, default_collate

from lightning_mmnas.data.columns.arrays import open_array
from lightning_mmnas.data.columns.texts import read_text
from lightning_mmnas.data.samples import LABEL
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.embedded import is_embedded, path_in
from lightning_mmnas.data.table.paths import base_folder, locate
from lightning_mmnas.data.table.reading import Cell, stream_table
from lightning_mmnas.delivery.transforms import MissingValueError, Transforms
from lightning_mmnas.errors import DataError

OnError = Literal["raise", "skip"]
_TABLES = (".csv", ".jsonl", ".ndjson", ".parquet")


@dataclass(frozen=True)
class Row:
    """One sample before its transforms.

    Attributes:
        place: What to call it in messages.
        values: Raw values by modality.
        cells: The row of the table that it comes from; empty where there is none.
    """

    place: str
    values: Mapping[str, Any]
    cells: Mapping[str, Cell] = field(default_factory=dict)


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
    """

    single: bool = False
    rows: Iterable[Row] = ()
    batches: Iterable[Mapping[str, Tensor]] | None = None

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
                count = len(next(iter(batch.values())))
                yield Chunk(_named(batch, transforms), list(range(count)), [], batch.get(LABEL))
            return
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


def samples_of(
    data: Any,
    transforms: Transforms,
    columns: Mapping[str, Sequence[str]] | None = None,
    files_from: str | None = None,
) -> Samples:
    """Understands what was given; see `DeliveredModel.predict`.

    Args:
        data: The samples.
        transforms: Of the model.
        columns: By modality, the columns of a table that it lies in, where they are others than in training.
        files_from: Folder that a table, a data frame or a dict of columns names files relative to; None: the table's,
            or the current one.

    Raises:
        DataError: It is nothing that can be understood, or it lacks a modality.
    """
    declared = _renamed(transforms, columns or {})
    if isinstance(data, str | Path):
        path = Path(data)
        whole = path.is_dir()
        return Samples(
            rows=_of_folder(path, transforms, declared, files_from) if whole else _of_table(path, declared, files_from)
        )
    if hasattr(data, "columns") and (hasattr(data, "to_dicts") or hasattr(data, "to_dict")):
        return Samples(rows=_of_frame(data, declared, files_from))
    if isinstance(data, Mapping):
        return _of_mapping(data, transforms, declared, files_from)
    if isinstance(data, DataLoader):
        return Samples(batches=data)
    if isinstance(data, list | tuple) and data and all(isinstance(sample, Mapping) for sample in data):
        found = [_of_mapping(sample, transforms, declared, files_from) for sample in data]
        if not all(sample.single for sample in found):
            raise DataError("a list holds single samples, but one of its dicts has several")
        rows = (row for sample in found for row in sample.rows)
        return Samples(rows=[Row(f"sample {i}", row.values, row.cells) for i, row in enumerate(rows)])
    raise DataError(
        f"{type(data).__name__} cannot be read as samples: give a data frame, the path of a table "
        f"({', '.join(_TABLES)}) or of a folder, a dict with the modalities {list(transforms.modalities)}, a list of "
        "such dicts, or a DataLoader"
    )


def _named(batch: Mapping[str, Tensor], transforms: Transforms) -> dict[str, Tensor]:
    lacking = [name for name in transforms.modalities if name not in batch and f"{name}/0" not in batch]
    if lacking:
        raise DataError(f"a batch lacks the modalities {lacking}; it has {list(batch)}")
    return {name: value for name, value in batch.items() if name != LABEL}


def _renamed(transforms: Transforms, columns: Mapping[str, Sequence[str]]) -> dict[str, ColumnSpec]:
    """The declared columns under their new names."""
    found = dict(transforms.columns)
    for name, names in columns.items():
        if name not in found:
            raise DataError(f"there is no modality {name!r} in {list(found)}; check --modality")
        before = found[name]
        if len(names) != len(before.columns):
            raise DataError(
                f"modality {name!r} lies in {len(before.columns)} column(s), {before.columns}, not in {list(names)}; "
                f"check --modality"
            )
        content = {key: getattr(before, key) for key in before.__dataclass_fields__}
        found[name] = ColumnSpec(**{**content, "columns": list(names)})
    return found


def _of_table(path: Path, declared: Mapping[str, ColumnSpec], files_from: str | None = None) -> Iterator[Row]:
    if not declared:
        raise DataError(
            f"the model was not trained on a table, so it cannot read {path}: give tensors by modality, a DataLoader, "
            "or the name of a split of its data: train, val or test"
        )
    names, rows = stream_table(path)
    if names:
        _need(declared, names, str(path))

    def found() -> Iterator[Row]:
        for line, cells in rows:
            if not names:
                cells = _complete(cells, declared)
            yield Row(f"{path}, line {line}", _values(cells, declared, base_folder(path, files_from)), cells)

    return found()


def _complete(cells: dict[str, Cell], declared: Mapping[str, ColumnSpec]) -> dict[str, Cell]:
    """A row of JSON lines: a key that it lacks is an empty cell."""
    return {**{column: None for spec in declared.values() for column in spec.columns}, **cells}


def _need(declared: Mapping[str, ColumnSpec], names: Sequence[str], what: str) -> None:
    for name, spec in declared.items():
        if lacking := [column for column in spec.columns if column not in names]:
            raise DataError(
                f"{what} has no column {lacking[0]!r} for the modality {name!r}, but {list(names)}; "
                f"if another one holds it: --modality {name}=COLUMN"
            )


def _values(cells: Mapping[str, Cell], declared: Mapping[str, ColumnSpec], folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, spec in declared.items():
        own = [cells[column] for column in spec.columns]
        if any(cell is None for cell in own):
            found[name] = None
        elif spec.kind == "features" and not spec.files:
            found[name] = own
        elif spec.kind == "text":
            found[name] = str(own[0])
        else:
            found[name] = _located(own[0], folder)
    return found


def _located(cell: Any, folder: Path) -> Any:
    """The file that a cell names, by itself or as the path of a mapping without bytes; or the cell, which holds one."""
    cell = path_in(cell)
    return cell if is_embedded([cell]) else locate(folder, str(cell))


def _of_frame(frame: Any, declared: Mapping[str, ColumnSpec], files_from: str | None = None) -> Iterator[Row]:
    names = [str(name) for name in frame.columns]
    if not declared:
        raise DataError("the model was not trained on a table, so it cannot read a data frame: give tensors")
    _need(declared, names, "the data frame")
    records = frame.to_dicts() if hasattr(frame, "to_dicts") else frame.to_dict("records")
    for index, record in enumerate(records):
        cells = {str(name): None if _is_empty(cell) else cell for name, cell in record.items()}
        yield Row(f"row {index} of the data frame", _values(cells, declared, Path(files_from or "")), cells)


def _is_empty(cell: Any) -> bool:
    """None, NaN, NaT, or a text of white space."""
    if isinstance(cell, str):
        return not cell.strip()
    if cell is None or type(cell).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(cell, float) and cell != cell


def _of_mapping(
    data: Mapping[str, Any],
    transforms: Transforms,
    declared: Mapping[str, ColumnSpec],
    files_from: str | None = None,
) -> Samples:
    names = list(transforms.modalities)
    values = {name: data[name] for name in names if name in data}
    if not values and declared and all(column in data for spec in declared.values() for column in spec.columns):
        return _of_columns(data, declared, files_from)
    if unknown := [name for name in data if name not in names and name != LABEL]:
        raise DataError(f"{unknown[0]!r} is none of the modalities {names}")
    if not values:
        raise DataError(f"the dict has none of the modalities {names}")
    given = {name: value for name, value in values.items() if value is not None}
    single = {name: transforms.is_single(name, value) for name, value in given.items()}
    if len(set(single.values())) > 1:
        one = [name for name, alone in single.items() if alone]
        raise DataError(f"the modalities {one} have one sample, the others several: {sorted(set(single) - set(one))}")
    if not single or next(iter(single.values())):
        return Samples(single=True, rows=[Row("the sample", given)])
    lengths = {name: len(value) for name, value in given.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the modalities have different numbers of samples: {lengths}")
    count = next(iter(lengths.values()))
    whole = {name: value.tolist() if type(value).__name__ == "Series" else value for name, value in given.items()}
    return Samples(
        rows=(
            Row(f"sample {i}", {n: None if _is_empty(v[i]) else v[i] for n, v in whole.items()}) for i in range(count)
        )
    )


def _of_columns(data: Mapping[str, Any], declared: Mapping[str, ColumnSpec], files_from: str | None = None) -> Samples:
    """A dict with the names of a table's columns: of one row, or of several."""
    wanted = {column for spec in declared.values() for column in spec.columns}
    lists = {name for name in wanted if hasattr(data[name], "__len__") and not isinstance(data[name], str | bytes)}
    single = not lists
    if lists and lists != wanted:
        raise DataError(f"the columns {sorted(lists)} have several rows, {sorted(wanted - lists)} have one")
    sizes = {name: len(data[name]) for name in lists}
    if len(set(sizes.values())) > 1:
        raise DataError(f"the columns have different numbers of rows: {sizes}")
    count = 1 if single else next(iter(sizes.values()))
    rows = []
    for index in range(count):
        cells = {name: data[name] if single else data[name][index] for name in wanted}
        cells = {name: None if _is_empty(cell) else cell for name, cell in cells.items()}
        rows.append(Row(f"row {index}", _values(cells, declared, Path(files_from or "")), cells))
    return Samples(single=single, rows=rows)


def _of_folder(
    folder: Path, transforms: Transforms, declared: Mapping[str, ColumnSpec], files_from: str | None = None
) -> Iterator[Row]:
    """A folder with one folder of files per modality, which belong together by name; or with one table."""
    inner = {name: folder / name for name in transforms.modalities if (folder / name).is_dir()}
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in _TABLES)
    if not inner and len(tables) == 1:
        return _of_table(tables[0], declared, files_from)
    if not inner or not declared:
        raise DataError(
            f"{folder} holds {len(tables)} tables and no folder that is called as a modality "
            f"({list(transforms.modalities)}); give the table itself"
        )
    files: dict[str, dict[str, Path]] = {}
    for name, path in inner.items():
        for file in sorted(path.iterdir()):
            if file.is_file() and not file.name.startswith("."):
                if name in files.setdefault(file.stem, {}):
                    raise DataError(f"{file} and {files[file.stem][name]} have the same name; which one is meant?")
                files[file.stem][name] = file
    if not files:
        raise DataError(f"{folder}: the folders {list(inner)} are empty")

    def rows() -> Iterator[Row]:
        for stem, found in sorted(files.items()):
            values = {name: _content(path, declared[name]) for name, path in found.items()}
            yield Row(f"{folder}, {stem}", values, {"file": stem})

    return rows()


def _content(path: Path, spec: ColumnSpec) -> Any:
    """What a file of a modality's folder stands for."""
    if spec.kind == "text":
        return read_text(path)
    if spec.kind == "features" and not spec.files:
        return torch.from_numpy(open_array(path).astype("float32"))
    return path
