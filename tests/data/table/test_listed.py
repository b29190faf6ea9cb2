"""Lists of numbers in the cells of a table, and texts that spell them."""

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from rich.console import Console

from lightning_mmnas import ColumnSpec, TableDataModule
from lightning_mmnas.commands.init.command import init, read_columns
from lightning_mmnas.commands.init.sampling import spread
from lightning_mmnas.data.table.columns import file_column
from lightning_mmnas.data.table.embedded import EmbeddedColumn
from lightning_mmnas.data.table.listed import array_of, holds_array
from lightning_mmnas.data.table.reading import Table, read_table
from lightning_mmnas.data.table.standardised import NumberColumn, measure
from lightning_mmnas.delivery.card import TableCard
from lightning_mmnas.delivery.inputs import reading_of, samples_of
from lightning_mmnas.delivery.transforms import Statistics, Transforms
from lightning_mmnas.errors import DamagedFilesError, DataError

ROWS = 30
VECTORS = np.random.default_rng(0).normal(size=(ROWS, 5)).astype(np.float32).astype(np.float64)
LABELS = ["cat" if row % 2 else "dog" for row in np.random.default_rng(1).permutation(ROWS)]


def written(folder: Path, cells: list[Any], suffix: str = ".csv", name: str = "emb") -> Path:
    """A table of those cells, of labels, and of numbers beside them."""
    path = folder / f"table{suffix}"
    columns = {name: cells, "weight": VECTORS[:, 0].tolist(), "label": LABELS}
    if suffix == ".parquet":
        parquet.write_table(pa.table({**columns, name: pa.array(cells)}), path)
    elif suffix == ".jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        lines = ["emb,weight,label", *(f'"{c}",{w},{k}' for c, w, k in zip(*columns.values(), strict=True))]
        path.write_text("\n".join(lines))
    return path


STYLES = {
    "JSON": lambda vector: str(vector.tolist()),
    "numpy": lambda vector: str(vector).replace("  ", "\n "),
    "numpy's numbers": lambda vector: str(list(vector)),
    "tensor": lambda vector: str(torch.tensor(vector)),
    "white space": lambda vector: " ".join(map(repr, vector.tolist())),
    "semicolons": lambda vector: ";".join(map(repr, vector.tolist())),
}


@pytest.mark.parametrize("style", STYLES)
def test_texts_that_spell_lists(style: str, tmp_path: Path) -> None:
    with np.printoptions(floatmode="unique", precision=17), torch_digits(17):
        table = written(tmp_path, [STYLES[style](vector) for vector in VECTORS])
    check(table, tmp_path / "configs")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_lists_are_features(suffix: str, tmp_path: Path) -> None:
    check(written(tmp_path, VECTORS.tolist(), suffix), tmp_path / "configs")


def test_embeddings_of_fixed_length_are_not_read_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column of lists is never turned into Python's numbers at once."""
    table = written(tmp_path, VECTORS.tolist(), ".parquet")
    content = parquet.read_table(table)
    kind = pa.list_(pa.float32(), 5)
    content = content.set_column(0, "emb", pa.array(VECTORS.tolist(), kind))
    parquet.write_table(content, table)
    whole, asked = Table.cells, []

    def cells(self: Table, name: str) -> list[Any]:
        asked.append(name)
        return whole(self, name)

    monkeypatch.setattr(Table, "cells", cells)
    check(table, tmp_path / "configs")
    assert "label" in asked
    assert "emb" not in asked


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64(), pa.float16(), pa.int8(), pa.int64()])
@pytest.mark.parametrize("size", [-1, 5])
@pytest.mark.parametrize("missing", [False, True])
def test_lists_are_read_at_once_as_one_by_one(tmp_path: Path, kind: pa.DataType, size: int, missing: bool) -> None:
    """The slow reference: each cell by itself."""
    vectors = (VECTORS * 30).astype(kind.to_pandas_dtype())
    cells = [None if missing and i in (0, 4, 29) else list(vector) for i, vector in enumerate(vectors)]
    path = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"emb": pa.array(cells, pa.list_(kind, size)), "n": VECTORS[:, 0]}), path)
    spec = ColumnSpec("features", ["emb"], files=True, length=5)
    columns = {"emb": spec, "n": ColumnSpec("features", ["n"])}
    data = TableDataModule(str(path), columns, batch_size=2, labels=False, missing="mask")
    data.build("train")
    rows = data.rows["train"]
    there = [row for row in rows if cells[row] is not None]
    one_by_one = file_column(spec, data.content, there)
    assert isinstance(one_by_one, EmbeddedColumn)
    at_once = NumberColumn(data.content, ["emb"], there)
    for index in range(len(there)):
        assert torch.equal(at_once.read(index).double(), one_by_one.read(index).double())
    assert torch.equal(at_once.batch([3, 1]), torch.stack([at_once.read(3), at_once.read(1)]))
    mean, std, _ = data.statistics["emb"]
    reference = measure(one_by_one, spec.modality(), True)
    assert reference is not None
    torch.testing.assert_close((mean, std), reference[:2])
    for index, row in enumerate(rows):
        if cells[row] is None:
            assert not data.source("train")[index]["emb"].any()


@pytest.mark.parametrize(
    ("cells", "shape"),
    [([[1, 2], [3, 4]], (2, 2)), ([[1, 2], [3]], None), ([[1, None], [3, 4]], None), ([[], []], None)],
)
def test_which_lists_are_read_at_once(cells: Any, shape: Any) -> None:
    found = Table(Path("t"), {"x": pa.chunked_array([pa.array(cells)])}, range(2)).vectors("x")
    assert (None if found is None else found.shape) == shape
    infinite = pa.chunked_array([pa.array([[1.0, float("inf")]] * 2)])
    assert Table(Path("t"), {"x": infinite}, range(2)).vectors("x") is None


def test_lists_of_lists_are_motion_and_grids_of_pixels_are_asked_for(tmp_path: Path) -> None:
    motion = np.random.default_rng(2).normal(size=(ROWS, 20, 2)).astype(np.float32)
    table = written(tmp_path, motion.tolist(), ".parquet")
    spec = read_columns(str(table), {"label": "label"}, ()).specs["emb"]
    assert (spec.kind, spec.channels, spec.length) == ("motion", 2, 20)
    data = TableDataModule(str(table), {"emb": spec}, label="label", batch_size=2)
    data.build("train")
    rows = data.rows["train"]
    expected = motion[rows].astype(np.float64)
    expected = (expected - expected.mean((0, 1))) / expected.std((0, 1))
    found = torch.stack([data.source("train")[i]["emb"] for i in range(len(rows))]).double().numpy()
    np.testing.assert_allclose(found, expected.transpose(0, 2, 1), atol=1e-4)

    pixels = np.random.default_rng(3).integers(0, 200, (ROWS, 16, 16, 3))
    pixels[0, 0, 0, 0] = 255
    table = written(tmp_path, pixels.tolist(), ".parquet")
    with pytest.raises(DataError, match=r"--modality emb=image:emb,axes=hwc"):
        read_columns(str(table), {"label": "label"}, ())
    spec = read_columns(str(table), {"label": "label"}, ["emb=image:emb,axes=hwc,size=16x16"]).specs["emb"]
    assert spec.maximum == 255
    data = TableDataModule(str(table), {"emb": spec}, label="label", batch_size=2)
    data.build("test")
    shown = data.source("test")[0]["emb"]
    assert torch.equal(shown, torch.from_numpy(pixels[data.rows["test"][0]]).permute(2, 0, 1).to(torch.uint8))


def test_a_cell_that_is_no_list_or_too_short_stops(tmp_path: Path) -> None:
    cells = [str(vector.tolist()) for vector in VECTORS]
    with pytest.raises(DataError, match=r"line 5, column 'emb': .* of this one 'b' is no number.*--without 'emb'"):
        read_columns(str(written(tmp_path, [*cells[:3], "[1, b]", *cells[4:]])), {}, ())
    with pytest.raises(DataError, match=r"line 5, column 'emb': 2 numbers, and 5 in most arrays.*=motion:emb"):
        read_columns(str(written(tmp_path, [*cells[:3], "[1, 2]", *cells[4:]])), {}, ())
    with pytest.raises(DataError, match=r"numbers were left out where it says '...'"):
        read_columns(str(written(tmp_path, [*cells[:3], "[0.5 0.25 ... 1. 2.]", *cells[4:]])), {}, ())
    # Told of what `init` does not look at, too.
    spec = ColumnSpec("features", ["emb"], files=True, length=5)
    for bad, reason in (("[1, 2]", r"shape \(2,\) instead of \(5,\)"), ("[1, NaN, 2, 3, 4]", "NaN or infinity")):
        table = written(tmp_path, [*cells[:3], bad, *cells[4:]])
        data = TableDataModule(str(table), {"emb": spec}, label="label", batch_size=2)
        with pytest.raises(DamagedFilesError, match=rf"line 5, column 'emb': .*{reason}"):
            build(data)


def test_an_array_file_of_another_length_stops(tmp_path: Path) -> None:
    for row, vector in enumerate(VECTORS):
        np.save(tmp_path / f"{row}.npy", vector[: 4 if row == 7 else 5])
    table = written(tmp_path, [f"{row}.npy" for row in range(ROWS)])
    with pytest.raises(DataError, match=r"7\.npy: 4 numbers, and 5 in most arrays .*--modality emb=motion:emb"):
        read_columns(str(table), {}, ())
    np.save(tmp_path / "7.npy", np.empty(0))
    with pytest.raises(DataError, match=r"7\.npy: 0 numbers, and 5 in most arrays"):
        read_columns(str(table), {}, ())


def test_empty_lists_are_named(tmp_path: Path) -> None:
    cells: list[Any] = VECTORS.tolist()
    with pytest.raises(DataError, match=r"line 4, column 'emb': 0 numbers, and 5 in most arrays"):
        read_columns(str(written(tmp_path, [*cells[:3], [], *cells[4:]], ".jsonl")), {}, ())
    moments: list[Any] = [[vector, vector[::-1]] for vector in cells]
    table = written(tmp_path, [*moments[:3], [], *moments[4:]], ".jsonl")
    spec = read_columns(str(table), {}, ["emb=motion:emb,axes=tc"]).specs["emb"]
    assert (spec.channels, spec.length) == (5, 16)
    with pytest.raises(DamagedFilesError, match="line 4, column 'emb': its list is empty"):
        build(TableDataModule(str(table), {"emb": spec}, label="label", batch_size=2))


@pytest.mark.parametrize("kind", [pa.list_(pa.decimal128(9, 4)), pa.large_list(pa.decimal128(9, 4))])
def test_lists_of_decimals_are_numbers(tmp_path: Path, kind: pa.DataType) -> None:
    cells = [[Decimal(f"{number:.4f}") for number in vector] for vector in VECTORS]
    table = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"emb": pa.array(cells, kind), "label": LABELS}), table)
    assert read_columns(str(table), {}, ()).specs["emb"].length == 5
    vectors = read_table(table).vectors("emb")
    assert vectors is not None
    np.testing.assert_allclose(vectors, VECTORS.round(4), rtol=1e-12)


def test_the_brightest_pixel_is_looked_for_in_many_cells(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 100, (1200, 16, 16))
    pixels[next(row for row in range(1200) if row not in spread(range(1200)))] = 240
    table = tmp_path / "table.parquet"
    parquet.write_table(pa.table({"x": pixels.tolist(), "label": ["a", "b"] * 600}), table)
    assert read_columns(str(table), {}, ["x=image:x,axes=hw"]).specs["x"].maximum == 240


def test_whole_numbers_of_different_lengths_may_be_labels(tmp_path: Path) -> None:
    found = read_columns(str(written(tmp_path, [list(range(1 + i % 3)) for i in range(ROWS)], ".parquet")), {}, ())
    assert found.left["emb"].startswith("lists of 1 to 3 whole numbers, which may be labels (--label)")
    found = read_columns(str(written(tmp_path, [["a", "b"]] * ROWS, ".parquet")), {}, ())
    assert found.left["emb"] == "lists of texts are labels only; give it with --label"
    found = read_columns(str(written(tmp_path, [{"x": i, "y": 2} for i in range(ROWS)], ".parquet")), {}, ())
    assert found.left["emb"] == "its cells are structures of ['x', 'y']; make a column of each part"


def test_a_few_whole_numbers_without_brackets_are_asked_about(tmp_path: Path) -> None:
    codes = [f"978 3 {16 + i} 148410 {i % 10}" for i in range(ROWS)]
    table = written(tmp_path, codes)
    with pytest.raises(DataError, match=r"column 'emb': are cells such as '978 3 16 148410 0' numbers, .*=text:emb"):
        read_columns(str(table), {}, ())
    spec = read_columns(str(table), {}, ["emb=features:emb"]).specs["emb"]
    assert (spec.files, spec.length) == (True, 5)
    assert "emb" not in read_columns(str(table), {}, (), without=["emb"]).specs
    pixels = [" ".join(str((i * j) % 256) for j in range(48)) for i in range(ROWS)]
    assert read_columns(str(written(tmp_path, pixels)), {}, ()).specs["emb"].length == 48


def test_amounts_in_brackets_are_asked_about_beside_decimal_commas(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    lines = [f"({row},5);{row * row % 7},25;{label}" for row, label in enumerate(LABELS)]
    table.write_text("\n".join(["emb;weight;label", *lines]))
    with pytest.raises(
        DataError, match=r"line 2, column 'emb': is '\(0,5\)' a negative number with a decimal comma, or"
    ):
        read_columns(str(table), {}, ())
    table.write_text("\n".join(["emb;weight;label", *lines]).replace(",25", ".25"))
    assert read_columns(str(table), {}, ()).specs["emb"].length == 2


@pytest.mark.parametrize("spaces", range(30))
def test_long_texts_are_known_by_their_beginning(spaces: int) -> None:
    """Wherever it ends: in a number, between two, or in what numpy prints around one."""
    vector = VECTORS[0].repeat(12)
    for text in (str(vector.tolist()), str(list(vector)), f"tensor({vector.tolist()})", f"[{vector.tolist()}]"):
        later = text.replace(",", "," + " " * spaces, 1)
        assert holds_array(later), later
        assert array_of(later).ravel().tolist() == vector.tolist()
    assert not holds_array("[1, 2] and words" + " " * spaces + str(vector.tolist()))


def test_what_is_words_stays_a_text() -> None:
    for text in ("at 5 or 6", "2024 01 31", "030 1234", "3.5", "12:30:10 5", "[sic] a note", "(2) see above", "-", ""):
        assert not holds_array(text), text


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("[[1 2]\n [3 4]]", [[1, 2], [3, 4]]),
        ("[ 1.  -2.5e3]", [1.0, -2500.0]),
        ("(1, 2)", [1, 2]),
        ("array([0.5, 2. ], dtype=float32)", [0.5, 2.0]),
        ("tensor([1, 2], device='cuda:0')", [1, 2]),
        ("1|2|3|4", [1, 2, 3, 4]),
        ([None, 0.5], [math.nan, 0.5]),
    ],
)
def test_spellings(text: Any, numbers: Any) -> None:
    assert holds_array(text)
    np.testing.assert_array_equal(array_of(text), numbers)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("0,1 0,2 0,3 0,4", "write points"),
        ([[1, 2], [3]], "different lengths"),
        ([1, "a"], "no number"),
        ("[[[1 2]]]", "read as JSON only"),
    ],
)
def test_lists_that_are_refused(cell: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        array_of(cell)


def test_a_delivered_model_reads_them_alike(tmp_path: Path) -> None:
    spec = ColumnSpec("features", ["emb"], files=True, length=5)
    modality = spec.modality()
    transforms = Transforms({"emb": modality}, {"emb": spec}, {}, {"emb": Statistics()})
    reading = reading_of(TableCard(columns={"emb": spec}))
    table = written(tmp_path, [str(vector.tolist()) for vector in VECTORS])
    lists = written(tmp_path, VECTORS.tolist(), ".parquet")
    several = [{"emb": vector.tolist()} for vector in VECTORS]
    for given in (table, lists, several, {"emb": VECTORS}):
        chunks = list(samples_of(given, transforms, reading=reading).chunks(transforms, 64, "raise", "raise"))
        np.testing.assert_array_equal(torch.cat([chunk.tensors["emb"] for chunk in chunks]).numpy(), VECTORS)


def build(data: TableDataModule) -> None:
    for split in ("train", "val", "test"):
        data.build(split)


def check(table: Path, folder: Path) -> None:
    """Samples are the vectors, standardised by those of training."""
    console = Console(file=io.StringIO(), width=200)
    init(str(table), str(folder), console=console)
    spec = read_columns(str(table), {"label": "label"}, ()).specs["emb"]
    assert (spec.kind, spec.files, spec.length) == ("features", True, 5)
    data = TableDataModule(str(table), {"emb": spec}, label="label", batch_size=2)
    data.build("train")
    rows = data.rows["train"]
    expected = (VECTORS[rows] - VECTORS[rows].mean(0)) / VECTORS[rows].std(0)
    found = torch.stack([data.source("train")[index]["emb"] for index in range(len(rows))])
    np.testing.assert_allclose(found.double().numpy(), expected, atol=1e-4)


@contextmanager
def torch_digits(digits: int) -> Iterator[None]:
    """Prints tensors with so many digits, for a while."""
    torch.set_printoptions(precision=digits)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        torch.set_printoptions(profile="default")  # type: ignore[no-untyped-call]
