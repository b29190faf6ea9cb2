"""What a user gives to a delivered model, understood as samples: tables, folders, dicts, loaders."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from lightning_mmnas.data.columns.arrays import open_array
from lightning_mmnas.data.columns.texts import read_text
from lightning_mmnas.data.samples import LABEL
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.embedded import is_embedded, path_in
from lightning_mmnas.data.table.numbers import Decimal, decimal_mark, is_empty, marks_of
from lightning_mmnas.data.table.paths import base_folder, locate
from lightning_mmnas.data.table.reading import SUFFIXES, Cell, Reading, Table, stream_table
from lightning_mmnas.delivery.card import TableCard
from lightning_mmnas.delivery.samples import Row, Samples
from lightning_mmnas.delivery.transforms import Transforms, Wrong, cells_of
from lightning_mmnas.errors import DataError

Known = tuple[Mapping[str, Cell], Mapping[str, float | Wrong | None]]
"""The cells of a row, and its numbers; see `Row`."""


def reading_of(card: TableCard | None, files_from: str | None = None, target: str | None = None) -> Reading:
    """How a new table is read: as that of training, unless its rows say otherwise.

    Args:
        card: What is known of the table of training.
        files_from: Folder that files are named relative to; None: as in training.
        target: The column of a regression's targets, where they are wanted.
    """
    numbers = [] if target is None else [target]
    if card is None:
        return Reading(files_from=files_from, numbers=numbers)
    likely = (card.separator, card.decimal)
    files_from = files_from or card.files_from
    return Reading(header=card.header, empty=card.empty, likely=likely, files_from=files_from, numbers=numbers)


def samples_of(
    data: Any,
    transforms: Transforms,
    columns: Mapping[str, Sequence[str]] | None = None,
    reading: Reading | None = None,
    label: str | None = None,
) -> Samples:
    """Understands what was given; see `DeliveredModel.predict`.

    Args:
        data: The samples.
        transforms: Of the model.
        columns: By modality, the columns of a table that it lies in, where they are others than in training.
        reading: How a table is read.
        label: The column of the classes or targets, where they are wanted.

    Raises:
        DataError: It is nothing that can be understood, or it lacks a modality.
    """
    declared, reading = _renamed(transforms, columns or {}), reading or Reading()
    numeric = [column for spec in declared.values() if _in_cells(spec) for column in spec.columns]
    reading = replace(reading, numbers=[*reading.numbers, *numeric])
    if isinstance(data, str | Path):
        path = Path(data).expanduser()
        if path.is_dir() and not any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
            return Samples(rows=_of_folder(path, transforms, declared, reading))
        return Samples(rows=_of_table(path, declared, reading))
    if hasattr(data, "columns") and (hasattr(data, "to_dicts") or hasattr(data, "to_dict")):
        return Samples(rows=_of_frame(data, declared, reading))
    if type(data).__name__ == "Series" and hasattr(data, "to_dict"):  # a row of a data frame
        data = data.to_dict()
    if isinstance(data, Mapping):
        return _of_mapping(data, transforms, declared, reading, label, alone=True)
    if isinstance(data, DataLoader):
        return Samples(batches=data)
    if isinstance(data, list | tuple) and data and all(isinstance(sample, Mapping) for sample in data):
        return _of_list(data, transforms, declared, reading, label)
    if isinstance(data, list | tuple):
        if not data:
            raise DataError("there are no samples in the list")
        place, other = next((i, x) for i, x in enumerate(data) if not isinstance(x, Mapping))
        raise DataError(f"a list of samples holds dicts; number {place}, counted from 0, is {type(other).__name__}")
    raise DataError(
        f"{type(data).__name__} cannot be read as samples: give a data frame, the path of a table "
        f"({', '.join(SUFFIXES)}) or of a folder, a dict with the modalities {list(transforms.modalities)}, a list of "
        "such dicts, or a DataLoader"
    )


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


def _of_table(path: Path, declared: Mapping[str, ColumnSpec], reading: Reading) -> Iterator[Row]:
    if not declared:
        raise DataError(
            f"the model was not trained on a table, so it cannot read {path}: give tensors by modality, a DataLoader, "
            "or the name of a split of its data: train, val or test"
        )
    if not path.exists():
        raise DataError(f"there is no table {path}")
    blocks = stream_table(path, reading)
    first = next(blocks, None)
    if first is not None and path.suffix.lower() not in (".jsonl", ".ndjson", ".json"):  # a key may be lacking there
        _need(declared, first.names, str(path))
    return (row for block in chain([first] if first is not None else [], blocks) for row in _rows(block, declared))


def _in_cells(spec: ColumnSpec) -> bool:
    """Whether a modality is numbers in the cells of a table."""
    return spec.kind == "features" and not spec.files


def _rows(
    table: Table, declared: Mapping[str, ColumnSpec], folder: Path | None = None, word: str | None = None
) -> Iterator[Row]:
    """The rows of a table as samples.

    Args:
        table: The table, or a part of it.
        declared: The modalities.
        folder: That files are named relative to; None: that of the table.
        word: What a row is called in messages, its number taking the place of {}; None: file and line.
    """
    folder = base_folder(table.path, table.reading.files_from) if folder is None else folder
    cells = {name: table.cells(name) for name in table.names}
    numbers = {name: _numbers(table, name) for name in table.reading.numbers if name in cells}
    absent = [None] * len(table)
    columns = {
        name: [(numbers if _in_cells(spec) else cells).get(column, absent) for column in spec.columns]
        for name, spec in declared.items()
    }
    for row in range(len(table)):
        own = {name: [column[row] for column in several] for name, several in columns.items()}
        values = {name: _value(declared[name], found, folder) for name, found in own.items()}
        place = table.row(row) if word is None else word.format(row)
        given = {name: column[row] for name, column in cells.items()}
        yield Row(place, values, given, {name: column[row] for name, column in numbers.items()})


def _numbers(table: Table, name: str) -> list[Any]:
    """A column as numbers; None where a cell is empty."""
    found = table.parsed(name)
    values: list[Any] = [None if value != value else value for value in found.values.tolist()]
    for row in found.wrong.tolist():
        values[row] = Wrong(table.wrong(row, name))
    return values


def _need(declared: Mapping[str, ColumnSpec], names: Sequence[str], what: str) -> None:
    for name, spec in declared.items():
        if lacking := [column for column in spec.columns if column not in names]:
            raise DataError(
                f"{what} has no column {lacking[0]!r} for the modality {name!r}, but {list(names)}; "
                f"if another one holds it: --modality {name}={','.join(['COLUMN'] * len(spec.columns))}"
            )


def _value(spec: ColumnSpec, own: Sequence[Cell], folder: Path) -> Any:
    """What the cells of a modality stand for; None: it is absent."""
    if any(cell is None for cell in own):
        return None
    if _in_cells(spec):
        return list(own)
    return str(own[0]) if spec.kind == "text" else _located(own[0], folder)


def _located(cell: Any, folder: Path) -> Any:
    """The file that a cell names, by itself or as the path of a mapping without bytes; or the cell, which holds one."""
    cell = path_in(cell)
    return cell if is_embedded([cell]) else locate(folder, str(cell))


def _of_frame(frame: Any, declared: Mapping[str, ColumnSpec], reading: Reading) -> Iterator[Row]:
    names = [str(name) for name in frame.columns]
    if not declared:
        raise DataError("the model was not trained on a table, so it cannot read a data frame: give tensors")
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"the data frame: several columns have the names {twice}; each needs its own")
    _need(declared, names, "the data frame")
    columns = {str(name): list(frame[name]) for name in frame.columns}
    table = Table(Path("the data frame"), columns, range(len(frame)), reading)
    return _rows(table, declared, Path(reading.files_from or ""), "row {} of the data frame")


def _of_mapping(
    data: Mapping[str, Any],
    transforms: Transforms,
    declared: Mapping[str, ColumnSpec],
    reading: Reading,
    label: str | None,
    alone: bool,
) -> Samples:
    """A dict of modalities or of columns; one that is not alone, but in a list, has a single sample if it may have."""
    if _is_by_column(data, transforms, declared):
        return _of_columns(data, transforms, declared, reading, label)
    names = list(transforms.modalities)
    values = {name: _by_row(data[name], declared.get(name)) for name in names if name in data}
    unknown = [name for name in data if name not in (*names, LABEL, label)]
    if unknown and not _columns(declared) <= data.keys():  # a row of a table may have more
        raise DataError(f"{unknown[0]!r} is none of the modalities {names}")
    if not values:
        raise DataError(f"the dict has none of the modalities {names}")
    given = {name: value for name, value in values.items() if value is not None}
    told = {name: transforms.is_single(name, value) for name, value in given.items()}
    either = not alone or True in told.values()
    single = {name: either if one is None else one for name, one in told.items()}
    if len(set(single.values())) > 1:
        one = [name for name, alone in single.items() if alone]
        raise DataError(f"the modalities {one} have one sample, the others several: {sorted(set(single) - set(one))}")
    cells = {name: name in declared and _in_cells(declared[name]) for name in given}
    spellings = {name: reading.spellings(cells[name]) for name in given}

    def row(place: str, own: Mapping[str, Any], known: Known) -> Row:
        def missing(name: str, value: Any) -> bool:
            return any(is_empty(cell, spellings[name]) for cell in (cells_of(value) if cells[name] else [value]))

        values = {name: None if missing(name, value) else value for name, value in own.items()}
        return Row(place, values, *known)

    if not single or next(iter(single.values())):
        only = row("the sample", given, _labels(data, label, None, declared, reading)[0])
        return Samples(single=True, rows=[only], decimal=_decimal([only], declared, reading))
    lengths = {name: len(value) for name, value in given.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the modalities have different numbers of samples: {lengths}")
    count = next(iter(lengths.values()))
    whole = {name: list(value) if type(value).__name__ == "Series" else value for name, value in given.items()}
    known = _labels(data, label, count, declared, reading)

    def rows() -> Iterator[Row]:
        return (row(f"sample {i}", {name: value[i] for name, value in whole.items()}, known[i]) for i in range(count))

    return Samples(rows=rows(), decimal=_decimal(rows(), declared, reading))


def _is_by_column(data: Mapping[str, Any], transforms: Transforms, declared: Mapping[str, ColumnSpec]) -> bool:
    """Whether a dict has the names of a table's columns, and not those of all modalities."""
    columns = _columns(declared)
    return bool(columns) and columns <= data.keys() and not transforms.modalities.keys() <= data.keys()


def _columns(declared: Mapping[str, ColumnSpec]) -> set[str]:
    return {column for spec in declared.values() for column in spec.columns}


def _by_row(value: Any, spec: ColumnSpec | None) -> Any:
    """A modality of numbers that is a data frame as an array, its columns in the order of training."""
    if type(value).__name__ != "DataFrame":
        return value
    names = [] if spec is None else spec.columns
    return (value[names] if names and set(names) <= set(value.columns) else value).to_numpy()


def _labels(
    data: Mapping[str, Any],
    label: str | None,
    count: int | None,
    declared: Mapping[str, ColumnSpec],
    reading: Reading,
) -> list[Known]:
    """What a dict says of the classes or targets of its samples, None: of its one sample."""
    if label is None or label not in data:
        return [({}, {})] * (count or 1)
    value = data[label]
    value = value.tolist() if hasattr(value, "tolist") else value
    if count is not None and (not isinstance(value, list | tuple) or len(value) != count):
        raise DataError(f"{label!r} is not of {count} samples, as the modalities are")
    values = [value] if count is None else list(value)
    if label not in reading.numbers or not declared:
        return [({label: cell}, {}) for cell in values]
    numbers = _numbers(Table(Path("the dict"), {label: values}, range(len(values)), reading), label)
    return [({label: cell}, {label: number}) for cell, number in zip(values, numbers, strict=True)]


def _decimal(rows: Iterable[Row], declared: Mapping[str, ColumnSpec], reading: Reading) -> Decimal | None:
    """The decimal mark of the texts that stand for numbers, found as that of a table; None: there are none."""
    texts: dict[str, list[Cell]] = {name: [] for name, spec in declared.items() if _in_cells(spec)}
    for row in rows if texts else ():
        for name, found in texts.items():
            found += [cell for cell in cells_of(row.values.get(name)) if isinstance(cell, str)]
    if reading.decimal is not None or not any(texts.values()):
        return reading.decimal
    marks = {name: marks_of(found) for name, found in texts.items() if found}
    return decimal_mark(Path("the samples"), marks, True, reading.likely[1])


def _of_list(
    data: Sequence[Mapping[str, Any]],
    transforms: Transforms,
    declared: Mapping[str, ColumnSpec],
    reading: Reading,
    label: str | None,
) -> Samples:
    """A list of dicts of one sample each, all of which tell how their numbers are spelt."""
    found = [_of_mapping(sample, transforms, declared, reading, label, alone=False) for sample in data]
    if not all(sample.single for sample in found):
        raise DataError("a list holds single samples, but one of its dicts has several")
    if all(_is_by_column(sample, transforms, declared) for sample in data):
        labelled = [] if label is None or not any(label in sample for sample in data) else [label]
        columns = {name: [sample.get(name) for sample in data] for name in [*_columns(declared), *labelled]}
        found = [_of_columns(columns, transforms, declared, reading, label)]
    rows = [row for sample in found for row in sample.rows]
    named = [Row(f"sample {i}", row.values, row.cells, row.numbers) for i, row in enumerate(rows)]
    return Samples(rows=named, decimal=_decimal(named, declared, reading))


def _of_columns(
    data: Mapping[str, Any],
    transforms: Transforms,
    declared: Mapping[str, ColumnSpec],
    reading: Reading,
    label: str | None,
) -> Samples:
    """A dict with the names of a table's columns: of one row, or of several."""
    data = {n: v.tolist() if getattr(v, "ndim", 2) < 2 else v for n, v in data.items()}  # tensors, arrays
    wanted = _columns(declared)
    lists = set()
    for modality, spec in declared.items():
        for name in spec.columns:
            several = isinstance(data[name], list | tuple) or hasattr(data[name], "shape")
            if several if _in_cells(spec) else not transforms.is_single(modality, data[name]):
                lists.add(name)
    single = not lists
    if lists and lists != wanted:
        raise DataError(f"the columns {sorted(lists)} have several rows, {sorted(wanted - lists)} have one")
    if label is not None and label in data:
        wanted = {*wanted, label}
    sizes = {name: len(data[name]) for name in wanted if not single and hasattr(data[name], "__len__")}
    if len(set(sizes.values())) > 1 or (sizes and sizes.keys() != wanted):
        raise DataError(f"the columns have different numbers of rows: {sizes}")
    count = 1 if single else next(iter(sizes.values()))
    columns = {name: [data[name]] if single else list(data[name]) for name in sorted(wanted)}
    table = Table(Path("the dict"), columns, range(count), reading)
    return Samples(single=single, rows=list(_rows(table, declared, Path(reading.files_from or ""), "row {}")))


def _of_folder(
    folder: Path, transforms: Transforms, declared: Mapping[str, ColumnSpec], reading: Reading
) -> Iterator[Row]:
    """A folder with one folder of files per modality, which belong together by name; or with one table.

    A folder is one table, as in training, if it has Parquet files and no other table.
    """
    inner = {name: folder / name for name in transforms.modalities if (folder / name).is_dir()}
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if tables and all(path.suffix == ".parquet" for path in tables):
        return _of_table(folder, declared, reading)
    if not inner and not tables and next(folder.rglob("*.parquet"), None) is not None:
        return _of_table(folder, declared, reading)
    if not inner and len(tables) == 1:
        return _of_table(tables[0], declared, reading)
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
