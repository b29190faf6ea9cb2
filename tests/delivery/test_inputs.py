"""The same numbers and texts in whatever a user gives: a table, a data frame, a dict of modalities or of columns."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

import lightning_mmnas
from lightning_mmnas.data.columns.texts import TextTokenizer
from lightning_mmnas.data.spec import ModalitySpec, Vocabulary
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.delivery.card import TableCard
from lightning_mmnas.delivery.inputs import reading_of, samples_of
from lightning_mmnas.delivery.samples import Samples
from lightning_mmnas.delivery.transforms import Statistics, Transforms
from lightning_mmnas.errors import ConfigError, DataError
from tests.delivery.tiny import deliver, write_birds

ONE = {"a": ColumnSpec("features", ["a"]), "b": ColumnSpec("features", ["b"])}
TWO = {"x": ColumnSpec("features", ["a", "b"]), "c": ColumnSpec("features", ["c"])}


def transforms_of(columns: dict[str, ColumnSpec], decimal: Any = ".") -> Transforms:
    specs = {name: ModalitySpec("features", (len(spec.columns),)) for name, spec in columns.items()}
    fills = {name: Statistics(fill=torch.full((len(spec.columns),), -9.0)) for name, spec in columns.items()}
    return Transforms(specs, columns, {}, fills, decimal)


def given(
    data: Any, columns: dict[str, ColumnSpec] = ONE, decimal: Any = ".", **card: Any
) -> tuple[Samples, list[list[float]]]:
    """The samples, and the numbers of each in the order of the modalities."""
    transforms = transforms_of(columns, decimal)
    reading = reading_of(TableCard(columns=columns, decimal=decimal, **card))
    samples = samples_of(data, transforms, reading=reading)
    chunks = list(samples.chunks(transforms, 8, "raise", "raise"))
    rows = [torch.cat([chunk.tensors[name] for name in columns], 1) for chunk in chunks]
    return samples, torch.cat(rows).tolist()


def close(found: list[list[float]], wanted: list[list[float]]) -> bool:
    return torch.equal(torch.tensor(found).float(), torch.tensor(wanted).float())


@pytest.mark.parametrize(
    ("a", "b", "decimal", "wanted"),
    [
        (["1,234", "5,5"], ["2,345", "7"], ",", [[1.234, 2.345], [5.5, 7]]),
        (["1,234"], ["2,345"], ",", [[1.234, 2.345]]),  # as in training where the cells do not tell
        (["1,234"], ["2,345"], ".", [[1234, 2345]]),
        (["1.234"], ["2.345"], ",", [[1234, 2345]]),
        (["1.25", "1.234"], ["2", "2.345"], ",", [[1.25, 2], [1.234, 2.345]]),  # they tell
        (["1,234", "1,5"], ["2,345", "1"], ".", [[1.234, 2.345], [1.5, 1]]),
        (["1.234", "1,5"], ["NA", "-"], ",", [[1234, -9], [1.5, -9]]),
    ],
)
def test_texts_are_numbers_as_in_a_table(
    a: list[str], b: list[str], decimal: Any, wanted: list[list[float]], tmp_path: Path
) -> None:
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["a;b;c", *(f"{x};{y};1" for x, y in zip(a, b, strict=True))]) + "\n")
    rows = [{"a": x, "b": y} for x, y in zip(a, b, strict=True)]
    singly: list[Any] = [path, {"a": a, "b": b}, {"a": np.array(a), "b": np.array(b)}, rows]
    for data in singly:
        assert close(given(data, ONE, decimal, separator=";")[1], wanted), data
    expected = [[-9.0, -9.0, 1.0] if -9 in row else [*row, 1.0] for row in wanted]
    ones, pairs = ["1"] * len(a), list(zip(a, b, strict=True))
    together: list[Any] = [
        path,
        {"a": a, "b": b, "c": ones},
        [{**row, "c": "1"} for row in rows],
        {"x": pairs, "c": ones},
        {"x": np.array(pairs), "c": ones},
        [{"x": pair, "c": 1.0} for pair in pairs],
    ]
    for data in together:
        assert close(given(data, TWO, decimal, separator=";")[1], expected), data


def test_a_row_may_have_more_than_its_modalities() -> None:
    rows = [{"a": 1.0, "b": 2.0, "id": 7}, {"a": 3.0, "b": 4.0, "id": 8}]
    for data in (rows, {"a": [1.0, 3.0], "b": [2.0, 4.0], "id": [7, 8]}):
        assert close(given(data)[1], [[1, 2], [3, 4]])
    with pytest.raises(DataError, match="'id' is none of the modalities"):
        given({"a": 1.0, "id": 7})


def test_transforms_have_the_decimal_mark_of_training() -> None:
    assert transforms_of(TWO, ",")({"x": ["1,234", "5"]})["x"].tolist() == pytest.approx([1.234, 5])
    with pytest.raises(DataError, match=r"column 'a': '1\.5' is not a number with a decimal comma"):
        transforms_of(TWO, ",")({"x": ["1.5", "5"]})


@pytest.mark.parametrize("one", [1.5, 1, True, np.float64(1.5), np.array(1.5), torch.tensor(1.5), Decimal("1.5")])
def test_scalars_are_a_single_sample(one: Any) -> None:
    samples, found = given({"a": one, "b": 2.345})
    assert samples.single
    assert close(found, [[float(one), 2.345]])
    samples, found = given([{"a": one, "b": 2.345}] * 2)
    assert not samples.single
    assert close(found, [[float(one), 2.345]] * 2)


@pytest.mark.parametrize("kind", [list, tuple, np.array, torch.tensor])
def test_several_numbers_of_one_column_are_several_samples(kind: Any) -> None:
    samples, found = given({"a": kind([1.5, 2.5, 3.5]), "b": kind([4.0, 5.0, 6.0])})
    assert not samples.single
    assert close(found, [[1.5, 4], [2.5, 5], [3.5, 6]])
    samples, found = given({"a": kind([1.5]), "b": kind([4.0])})
    assert not samples.single
    assert close(found, [[1.5, 4]])
    assert close(given([{"a": kind([1.5]), "b": kind([4.0])}] * 2)[1], [[1.5, 4]] * 2)
    for one in (1.0, kind([1.0])):  # with what is a single sample it is one, too
        samples, found = given({"x": kind([1.5, 2.5]), "c": one}, TWO)
        assert samples.single
        assert close(found, [[1.5, 2.5, 1]])


@pytest.fixture(scope="module")
def words() -> tuple[Transforms, dict[str, ColumnSpec]]:
    columns = {"note": ColumnSpec("text", ["note"], length=4, vocabulary=40), "n": ColumnSpec("features", ["n"])}
    specs = {
        "note": ModalitySpec("text", (4,), torch.int64, Vocabulary(40, 0, 1, 2)),
        "n": ModalitySpec("features", (1,)),
    }
    tokenizer = TextTokenizer(size=40)
    tokenizer.fit(lambda: ["NA None - sings at dawn"] * 3)
    fills = {"note": Statistics(fill=torch.full((4,), 39)), "n": Statistics(fill=torch.tensor([-9.0]))}
    return Transforms(specs, columns, {"note": tokenizer}, fills), columns


@pytest.mark.parametrize(
    ("note", "number", "empty"),
    [
        ("NA", 1.0, "note"),
        (" nan ", "1", "note"),
        ("", 1.0, "note"),
        (float("nan"), 1.0, "note"),
        ("None", 1.0, ""),  # words among texts
        ("-", 1.0, ""),
        ("dawn", "-", "n"),
        ("dawn", "None", "n"),
        ("dawn", float("nan"), "n"),
        ("dawn", Decimal("NaN"), "n"),
    ],
)
def test_what_is_empty_is_missing(
    note: Any, number: Any, empty: str, words: tuple[Transforms, dict[str, ColumnSpec]]
) -> None:
    transforms, columns = words
    text = torch.full((4,), 39) if empty == "note" else transforms.modality("note", str(note), "")
    values = [-9.0] if empty == "n" else [1.0]
    one = {"note": note, "n": number}
    for data in (one, [one], {name: [value] for name, value in one.items()}):
        reading = reading_of(TableCard(columns=columns))
        (chunk,) = samples_of(data, transforms, reading=reading).chunks(transforms, 8, "raise", "raise")
        assert torch.equal(chunk.tensors["note"][0], text), data
        assert chunk.tensors["n"].tolist() == [values], data


def test_a_folder_of_parquet_files_is_a_table(tmp_path: Path) -> None:
    parts = [{"a": [1.0, 2.0], "b": [3.0, 4.0]}, {"a": [5.0], "b": [6.0]}]
    wanted = [[1.0, 3.0], [2.0, 4.0], [5.0, 6.0]]
    for folder, names in {"flat": ["x.parquet", "y.parquet"], "deep": ["k=1/x.parquet", "k=2/y.parquet"]}.items():
        for name, part in zip(names, parts, strict=True):
            path = tmp_path / folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            parquet.write_table(pa.table(part), path)
        assert close(given(tmp_path / folder)[1], wanted)
    (tmp_path / "flat" / "a").mkdir()  # files that the table names
    assert close(given(tmp_path / "flat")[1], wanted)
    (tmp_path / "flat" / "y.parquet").unlink()
    assert close(given(tmp_path / "flat")[1], wanted[:2])
    (tmp_path / "flat" / "a").rmdir()
    (tmp_path / "flat" / "t.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="flat holds 2 tables"):
        given(tmp_path / "flat")


def test_a_folder_of_datasets_is_a_table(tmp_path: Path) -> None:
    for split, part in {"train": {"a": [1.0], "b": [3.0]}, "test": {"a": [5.0], "b": [6.0]}}.items():
        (tmp_path / split).mkdir()
        table = pa.table(part)
        with pa.OSFile(str(tmp_path / split / "data.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as to:
            to.write_table(table)
        (tmp_path / split / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    assert close(given(tmp_path)[1], [[1, 3], [5, 6]])
    assert close(given(tmp_path / "test")[1], [[5, 6]])


def test_the_separator_of_training_is_tried_first(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("a:b\n1,5:2,5\n3,5:4,5\n")
    assert close(given(path, decimal=",", separator=":")[1], [[1.5, 2.5], [3.5, 4.5]])
    for separator in (",", ";", "\t"):
        path.write_text(f"a{separator}b\n1{separator}2\n3{separator}4\n")
        assert close(given(path, separator=":")[1], [[1, 2], [3, 4]])
    path = tmp_path / "t.tsv"
    path.write_text("a\tb\tx:y\n1\t2\t3:4\n")
    assert close(given(path, separator=":")[1], [[1, 2]])
    with pytest.raises(ConfigError, match="separator '::' is no single character"):
        given(path, separator="::")


def test_decimals_are_numbers() -> None:
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame({"a": [Decimal("1.234"), Decimal("-2")], "b": [Decimal("0.1"), None]})
    assert close(given(frame)[1], [[1.234, 0.1], [-2, -9]])
    mixed = pd.DataFrame({"a": [Decimal("1.234"), "5,5"], "b": [Decimal("NaN"), 2]})
    assert close(given(mixed)[1], [[1.234, -9], [5.5, 2]])
    with pytest.raises(DataError, match="column 'a': Infinity is not a number"):
        given(pd.DataFrame({"a": [Decimal("Infinity")], "b": [Decimal(1)]}))


def test_texts_have_the_decimal_comma_of_training(tmp_path: Path) -> None:
    table = write_birds(tmp_path / "data", 30)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    for line in lines[1:]:
        line[3:5] = (cell.replace(".", ",") for cell in line[3:5])
    table.write_text("\n".join(map(":".join, lines)) + "\n")
    model = lightning_mmnas.load(deliver(tmp_path, table, separator=":")[2])
    assert (model.transforms.decimal, model.card.table.separator if model.card.table else "") == (",", ":")
    wanted = model.predict_proba(table)
    samples = [
        {"photo": table.parent / line[1], "song": table.parent / line[2], "note": line[7], "numbers": line[3:5]}
        for line in lines[1:]
    ]
    torch.testing.assert_close(model.predict_proba(samples), wanted)
    torch.testing.assert_close(model.predict_proba(samples[0]), wanted[0])
    torch.testing.assert_close(model.predict_proba({n: [one[n] for one in samples] for n in samples[0]}), wanted)
    found = torch.stack([model.transforms(one)["numbers"] for one in samples])
    mean, std = (getattr(model.transforms.statistics["numbers"], key) for key in ("mean", "std"))
    raw = torch.tensor([[float(cell.replace(",", ".")) for cell in line[3:5]] for line in lines[1:]]).double()
    torch.testing.assert_close(found, ((raw - mean) / std).float())


def test_labels_are_read_as_in_training(tmp_path: Path) -> None:
    """The same rows with classes spelt in other ways have the same scores, and those without a class are skipped."""
    table = write_birds(tmp_path / "data", 45)
    plain = table.read_text()
    classes = {"blackbird": "1", "cuckoo": "true", "heron": "caf\u00e9"}
    others = {"blackbird": "1.0", "cuckoo": "TRUE", "heron": "cafe\u0301"}
    for name, new in classes.items():
        table.write_text(table.read_text().replace(name, new))
    _, data, run = deliver(tmp_path, table)
    model = lightning_mmnas.load(run)
    assert model.class_names == data.class_names == ["1", "True", "caf\u00e9"]
    wanted = model.evaluate(table)
    for name, new in others.items():
        plain = plain.replace(name, new)
    lines = plain.splitlines()
    other = table.with_name("other.csv")
    other.write_text("\n".join([*lines, "900" + lines[1].removeprefix("0").replace("1.0,", "NA,")]))
    found = model.evaluate(other)
    assert found["skipped"] == wanted["skipped"] + 1
    assert (found["metrics"], found["confusion"]) == (wanted["metrics"], wanted["confusion"])


def test_a_row_with_a_list_of_numbers_is_one_row() -> None:
    columns = {"a": ColumnSpec("features", ["a"]), "v": ColumnSpec("features", ["e"], files=True, length=2)}
    specs = {"a": ModalitySpec("features", (1,)), "v": ModalitySpec("features", (2,))}
    transforms = Transforms(specs, columns, {}, {name: Statistics() for name in specs})
    alone = {"v": columns["v"]}
    vectors = Transforms({"v": specs["v"]}, alone, {}, {"v": Statistics()})
    for data, by, wanted in (
        ({"a": 3, "e": [1.0, 2.0]}, transforms, [[3.0, 1.0, 2.0]]),
        ([{"a": 3, "e": [1.0, 2.0]}, {"e": np.array([4, 5]), "a": "6"}], transforms, [[3, 1, 2], [6, 4, 5]]),
        ({"a": [3, 6], "e": [[1, 2], [4, 5]]}, transforms, [[3, 1, 2], [6, 4, 5]]),
        ({"e": [[1, 2], [4, 5]]}, vectors, [[1, 2], [4, 5]]),
        ([{"e": [1, 2]}, {"e": [4, 5]}], vectors, [[1, 2], [4, 5]]),
    ):
        (chunk,) = samples_of(data, by, reading=reading_of(None)).chunks(by, 8, "raise", "raise")
        assert torch.cat([chunk.tensors[name] for name in by.columns], 1).tolist() == wanted


def test_a_frame_has_each_column_once() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame([[1, 2, 3]], columns=["a", "b", "a"])
    with pytest.raises(DataError, match=r"several columns have the names \['a'\]; each needs its own"):
        given(frame)


def test_a_number_that_stands_for_a_missing_one_does_so_everywhere() -> None:
    wanted = [[-9.0, 2.0], [1.0, -9.0]]
    rows = {"a": [-999, 1], "b": [2.0, -999.0]}
    for data in (rows, [{"a": -999, "b": 2}, {"a": 1, "b": "-999.0"}]):
        assert given(data, empty=["-999"], missing="mask")[1] == wanted
