"""Tables as they are written elsewhere: separators, decimal marks, spellings of missing values, other files."""

import csv
import io
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lightning_mmnas.data.table.reading import Reading, Table, number_share, read_table, stream_table
from lightning_mmnas.errors import DataError

NAN = math.nan


def table(folder: Path, content: str | bytes, name: str = "t.csv", **reading: Any) -> Table:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_table(path, Reading(**reading))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a;b\n1,5;x\n2,25;y\n", ["separator ';'", "decimal comma"]),
        ("a\tb\n1.5\tx\n2.25\ty\n", ["separator tab"]),
        ("a|b\n1.5|x\n2.25|y\n", ["separator '|'"]),
        ("sep=;\na;b\n1,5;x\n2,25;y\n", ["separator ';', as the first line says"]),
        ("a,b,\n1.5,x,\n2.25,y,\n", ["a separator too many"]),
        ("a,b\n1.5,x,\n2.25,y,\n", ["a separator too many"]),
        ("a,b,\n1.5,x\n2.25,y\n", ["a separator too many"]),
        ("'a','b'\n'1.5','x'\n'2.25','y'\n", ["quotes '"]),
        ('a,b\n"1,5",x\n"2,25",y\n', ["decimal comma"]),
        ('"a", "b"\n1.5, "x"\n2.25, "y"\n', ["spaces before quotes"]),
        ("'a', 'b'\n1.5,'x'\n2.25,'y'\n", ["quotes '", "spaces before quotes"]),
        ("a,b\r1.5,x\r2.25,y\r", []),
        ("\ufeffa,b\r\n1.5,x\r\n\r\n2.25,y", []),
        ("a,b\n1.5,x\n2.25,y\n".encode("utf-16"), ["UTF-16"]),
    ],
)
def test_dialects_are_recognised(tmp_path: Path, content: str | bytes, told: list[str]) -> None:
    found = table(tmp_path, content)
    assert found.names == ["a", "b"]
    assert found.numbers("a").tolist() == [1.5, 2.25]
    assert found.cells("b") == ["x", "y"]
    for text in told:
        assert any(text in line for line in found.told), found.told
    assert bool(found.told) == bool(told)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("5.1,3.5,x\n4.9,3.0,x\n4.7,3.2,y\n", "line 1: '5.1', '3.5', 'x' look like cells.*--no-header"),
        ("1.png,cat\n2.png,cat\n3.png,dog\n", r"'1\.png', 'cat' look like cells"),
        ("a,b\nsome words,x\na,b\nother words,y\n", "line 3: the names of the columns again; if files were joined"),
        (",a,b\n0,1,x\n1,2,y\n,a , b\n0,3,z\n", "line 4: the names of the columns again"),
        ("a b\n1 2\n3 4\n5 6\n", "space parts every row into 2; give --separator ' '"),
        ("a:b\n1:2\n3:4\n5:6\n", "':' parts every row into 2"),
        ("a   b\n1   2\n30  4\n5   6\n", "write it with commas"),
        ('"a,b"\n"1,2"\n"3,4"\n', "'a,b' is one quoted cell"),
        ("a,b;c\n1,2;3\n4,5;6\n", "',' and ';' part all rows alike"),
        ('a,b\n"x\ny",1\n2\n', "line 4: 1 cells instead of 2"),
        ('a,b\n"x\ny",1\n"p"q,2\n', "line 4"),
        ("a,b\n1,\0\n", "line 2: a NUL character"),
        (b'a,b\n"x\ny",1\n\xe9,2\n', "line 4: byte 0xe9 is not UTF-8"),
        (b"a,\xe9\n1,2\n", "line 1: byte 0xe9 is not UTF-8"),
    ],
)
def test_what_is_doubtful_is_named_with_the_way_out(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(tmp_path, content)


def test_options_override_what_is_recognised(tmp_path: Path) -> None:
    found = table(tmp_path, "a:b\n1:2\n3:4\n", separator=":")
    assert (found.numbers("a").tolist(), found.numbers("b").tolist()) == ([1, 3], [2, 4])
    found = table(tmp_path, "1,2\n3,4\n", header=False)
    assert (found.names, found.numbers("column2").tolist()) == (["column1", "column2"], [2, 4])
    assert [found.line(row) for row in (0, 1)] == [1, 2]
    assert table(tmp_path, "1,2\n3,4\n", header=True).numbers("1").tolist() == [3]
    assert table(tmp_path, "a;b\n1,234;x\n2,345;y\n", decimal=",").numbers("a").tolist() == [1.234, 2.345]
    assert table(tmp_path, "a;b\n1,234;x\n2,345;y\n", decimal=".").numbers("a").tolist() == [1234, 2345]
    kept = table(tmp_path, "a,b\nNA,1\n9,2\n", empty=["9"])
    assert kept.cells("a") == ["NA", None]
    assert table(tmp_path, "a\tb\n1\t2\n", separator="tab").names == ["a", "b"]


def test_a_separator_that_parts_nothing_is_refused(tmp_path: Path) -> None:
    for given in (";", "tab"):
        with pytest.raises(DataError, match=r"'a,b' is one cell with the separator .*, but ',' parts all rows; give"):
            table(tmp_path, "a,b\n1,2\n3,4\n", separator=given)
    assert table(tmp_path, "text\na, b\nc, d\n", separator="tab").names == ["text"]
    assert table(tmp_path, "a;b\n1;2\n3;4\n", separator=",").names == ["a;b"]


def test_separators_in_quotes_behind_spaces(tmp_path: Path) -> None:
    found = table(tmp_path, 'a, b, c\n1, "x, ""y""\nand z", "u"\n2, "v", "w"\n')
    assert [found.cells(name) for name in "abc"] == [["1", "2"], ['x, "y"\nand z', "v"], ["u", "w"]]
    assert [found.line(row) for row in (0, 1)] == [2, 4]
    kept = table(tmp_path, 'a,b\n"say, ""hi""", "x" y\n"no, ""no""",z\n')
    assert kept.cells("a") == ['say, "hi"', 'no, "no"']
    assert kept.cells("b") == [' "x" y', "z"]


def test_one_column_may_hold_its_own_name(tmp_path: Path) -> None:
    assert table(tmp_path, "word\nno\nword\nyes\nno\n", header=True).cells("word") == ["no", "word", "yes", "no"]


def test_columns_of_pandas(tmp_path: Path) -> None:
    found = table(tmp_path, ",0,1\n0,1.5,a\n1,2.5,b\n")
    assert found.names == ["Unnamed: 0", "0", "1"]
    assert "the first column has no name and is called 'Unnamed: 0'" in found.told
    assert table(tmp_path, "0,1,label\n1.5,3,x\n2.5,4,y\n").numbers("0").tolist() == [1.5, 2.5]


def test_long_texts(tmp_path: Path) -> None:
    text = "long, " * 50_000
    found = table(tmp_path, f'a,b\n1,"{text}"\n2,"x\ny"\n3,z\n')
    assert found.cells("b") == [text, "x\ny", "z"]
    assert [found.line(row) for row in range(3)] == [2, 3, 5]


MISSING = ["NaN", "nan", "NA", "N/A", "null", "None", "?", "-", "", "  ", "#N/A", "<NA>", "-nan", "1.#QNAN", " NA "]


@pytest.mark.parametrize("decimal", [".", ","])
def test_spellings_of_missing_are_empty(tmp_path: Path, decimal: str) -> None:
    content = "number;text\n" + "".join(f"{s};{s}\n" for s in MISSING) + f"1{decimal}5;word\n"
    found = table(tmp_path, content)
    assert found.cells("text") == [*(cell if cell in ("None", "-") else None for cell in MISSING), "word"]
    np.testing.assert_array_equal(found.numbers("number"), [NAN] * len(MISSING) + [1.5])
    assert number_share(found, "number") == 1
    assert any("column 'text': read as empty" in line and "2 'NA'" in line for line in found.told)


def test_plus_and_minus_are_classes(tmp_path: Path) -> None:
    assert table(tmp_path, "x,y\n1,+\n2,-\n").cells("y") == ["+", "-"]


@pytest.mark.parametrize(
    ("cells", "values"),
    [
        (["1", "2.5", "-3e2", "+4", ".5", "5."], [1, 2.5, -300, 4, 0.5, 5]),
        (["1,234", "12", "1,234,567.5", "-2,000"], [1234, 12, 1234567.5, -2000]),
        (["1'234", "12\u00a0345", "\u22127"], [1234, 12345, -7]),
        (["1\u2009234.5", "1\u2007000", "7"], [1234.5, 1000, 7]),
        (["1,23,456.5", "12,34,567", "1,234", "-7"], [123456.5, 1234567, 1234, -7]),
        (["12%", "3 %", "", "0.5%"], [0.12, 0.03, NAN, 0.005]),
        (["True", "false", "", "TRUE"], [1, 0, NAN, 1]),
    ],
)
def test_numbers_as_people_write_them(tmp_path: Path, cells: Sequence[str], values: Sequence[float]) -> None:
    found = table(tmp_path, "a,b\n" + "".join(f'"{cell}",x{i}\n' for i, cell in enumerate(cells)))
    np.testing.assert_array_equal(found.numbers("a"), values)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("1_11", "line 4: '1_11' is not a number"),
        ("inf", "line 4: inf is not a usable number"),
        ("1e999", "line 4: inf is not a usable number"),
        ("12%", "line 4: '12%' is not a number"),
        ("many", "1 of 4 cells are no numbers: line 4: 'many'.*--empty"),
        ("0x1F", "line 4"),
        ("1,23", "line 4"),
    ],
)
def test_the_first_bad_lines_are_named(tmp_path: Path, wrong: str, message: str) -> None:
    found = table(tmp_path, f'a,b\n1.5,x\n2,y\n"{wrong}",z\n4,w\n', decimal=".")
    assert number_share(found, "a") == 0.75
    with pytest.raises(DataError, match=message):
        found.numbers("a")


def test_lists_of_one_length_are_no_numbers_of_india(tmp_path: Path) -> None:
    found = table(tmp_path, 'a,b\n"10,20,30,100",x\n"11,25,30,102",y\n')
    assert number_share(found, "a") == 0


def test_a_text_column_with_one_number_remains_text(tmp_path: Path) -> None:
    found = table(tmp_path, "a,b\nred,1\n7,2\nblue,3\n")
    assert number_share(found, "a") == pytest.approx(1 / 3)
    assert found.cells("a") == ["red", "7", "blue"]


def test_decimal_marks_that_contradict_each_other_stop(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'1,5' in column 'a' has a decimal comma, '2\.5' in column 'b' a decimal point"
    ):
        table(tmp_path, "a;b\n1,5;2.5\n2,5;3.5\n").numbers("a")
    with pytest.raises(DataError, match="'1,234' in column 'a' has a decimal comma, or one between thousands"):
        table(tmp_path, "a;b\n1,234;x\n2,345;y\n").numbers("a")
    mixed = table(tmp_path, "a;b\n1,5;1.234\n2.000,25;5\n")
    assert (mixed.numbers("a").tolist(), mixed.numbers("b").tolist()) == ([1.5, 2000.25], [1234, 5])


def test_a_folder_of_parquet_files(tmp_path: Path) -> None:
    for i, split in enumerate(("test", "train")):
        for part in range(2):
            rows = pa.table({"a": [10 * i + part], "b": ["x"]})
            (tmp_path / "data").mkdir(exist_ok=True)
            pq.write_table(rows, tmp_path / "data" / f"{split}-0000{part}-of-00002.parquet")
    found = read_table(tmp_path / "data")
    assert found.numbers("a").tolist() == [0, 1, 10, 11]
    assert found.cells("split") == ["test", "test", "train", "train"]
    assert found.place(3, "a").endswith("train-00001-of-00002.parquet, row 1, column 'a'")
    assert found.folder == tmp_path / "data"
    pq.write_table(pa.table({"z": [1]}), tmp_path / "data" / "train-00009.parquet")
    with pytest.raises(
        DataError, match=r"train-00009\.parquet lacks the columns \['a', 'b'\] and has the further columns \['z'\]"
    ):
        read_table(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \.parquet files"):
        read_table(tmp_path / "empty")


def test_a_folder_that_datasets_has_saved(tmp_path: Path) -> None:
    features = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "x": {"dtype": "float64", "_type": "Value"}}
    schema = pa.schema({"x": pa.float64(), "label": pa.int64()})
    schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    for split, labels in (("train", [0, 1, -1]), ("test", [1])):
        (tmp_path / "saved" / split).mkdir(parents=True)
        name = "data-00000-of-00001.arrow"
        rows = pa.table({"x": [float(i) for i in range(len(labels))], "label": labels}, schema)
        with pa.OSFile(str(tmp_path / "saved" / split / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
            writer.write_table(rows)
        (tmp_path / "saved" / split / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (tmp_path / "saved" / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    found = read_table(tmp_path / "saved")
    assert found.cells("label") == ["cat", "dog", None, "dog"]
    assert found.cells("split") == ["train", "train", "train", "test"]
    assert read_table(tmp_path / "saved" / "train").numbers("x").tolist() == [0, 1, 2]


def test_rows_that_repeat(tmp_path: Path) -> None:
    found = table(tmp_path, "a,b\n1,x\n1,y\n,x\n1,x\n,x\n")
    assert found.repeated() == [3, 4]
    assert found.repeated(["b"]) == [2, 3, 4]
    assert found.repeated(["a"]) == [1, 3, 4]


def test_blocks_share_the_decimal_mark(tmp_path: Path) -> None:
    rows = [f"{i};{'0,5' if i == 49_999 else '1.234'}" for i in range(50_000)]
    (tmp_path / "t.csv").write_text("i;a\n" + "\n".join(rows) + "\n" + "x" * 0)
    blocks = list(stream_table(tmp_path / "t.csv", Reading(numbers=["a"])))
    values = np.concatenate([block.numbers("a") for block in blocks])
    assert set(values[:-1]) == {1234}
    assert values[-1] == 0.5
    assert blocks[-1].line(len(blocks[-1]) - 1) == 50_001
    known = Reading(likely=(";", ","), numbers=["a"])
    (tmp_path / "u.csv").write_text("i;a\n1;1,234\n2;2,345\n")
    assert [block.numbers("a").tolist() for block in stream_table(tmp_path / "u.csv", known)] == [[1.234, 2.345]]
    (tmp_path / "v.csv").write_text("i,a\n1,1.5\n2,2.345\n")
    assert [block.numbers("a").tolist() for block in stream_table(tmp_path / "v.csv", known)] == [[1.5, 2.345]]
    # What was likely of a table with other separators says nothing of this one.
    other = Reading(likely=(",", "."), numbers=["a"])
    with pytest.raises(DataError, match="decimal comma, or one between thousands"):
        list(stream_table(tmp_path / "u.csv", other))


def written(draw: random.Random) -> tuple[bytes, list[list[str]], list[list[float | None]]]:
    """A table in a random dialect: its bytes, its texts and its numbers."""
    separator = draw.choice([",", ";", "\t", "|"])
    comma = separator != "," and draw.random() < 0.5
    count, width = draw.randrange(2, 12), draw.randrange(1, 4)
    numbers: list[list[float | None]] = []
    texts: list[list[str]] = []
    rows = [[f"n{i}" for i in range(width)] + ["words", "label"]]
    quoting: Literal[0, 1] = draw.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    letters = "ab '\",;|\t\n\u00e9\u4e00" + ("\r" if quoting == csv.QUOTE_ALL else "")  # Python quotes no lone \r
    empties = ["", "NA", "NaN", "null", " ", "?"]
    for i in range(count):
        values = [
            None if draw.random() < 0.1 else round(draw.uniform(-1e3, 1e3), draw.choice([1, 2, 4]))
            for _ in range(width)
        ]
        cells = [draw.choice(empties) if v is None else draw.choice(["{}", " {}", "{:+}"]).format(v) for v in values]
        words = "".join(draw.choice(letters) for _ in range(draw.randrange(8))) + f"w{i}"
        numbers.append(list(values))
        texts.append([words, draw.choice("xyz")])
        rows.append([cell.replace(".", ",") if comma else cell for cell in cells] + texts[-1])
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=draw.choice(["\n", "\r\n"])).writerows(rows)
    text = file.getvalue()
    if draw.random() < 0.3:
        text = text.rstrip("\r\n")
    return text.encode(draw.choice(["utf-8", "utf-8-sig", "utf-16"])), texts, numbers


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_random_dialects_read_as_python_reads_them_or_stop(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    stopped: list[str] = []
    for _ in range(150):
        content, texts, numbers = written(draw)
        try:
            found = table(tmp_path, content)
            values = [found.numbers(name).tolist() for name in found.names if name.startswith("n")]
        except DataError as error:
            stopped.append(str(error))
            continue
        assert list(map(list, zip(found.cells("words"), found.cells("label"), strict=True))) == texts, content
        expected = [[NAN if v is None else v for v in column] for column in zip(*numbers, strict=True)]
        np.testing.assert_array_equal(values, expected, err_msg=repr(content))
    assert len(stopped) < 20
    assert [text for text in stopped if "--separator" not in text and "--decimal" not in text] == []


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_words_are_empty_among_numbers_only(tmp_path: Path, form: str) -> None:
    columns = {
        "number": ["1.5", "None", "-", "2", "NA"],
        "class": ["None", "cat", "None", "-", "NA"],
        "all": ["None"] * 5,
        "share": ["12%", "3 %", "None", "-", "5%"],
        "truth": ["True", "false", "None", "TRUE", "-"],
        "path": ["a/b.png", "None", "c.wav", "-", "my pictures/d.JPEG"],
        "text": ["None", "it says 1.5", "-", "v1.0", "owl."],
    }
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    lines = (
        [json.dumps(row) for row in rows]
        if form == "jsonl"
        else [",".join(r.values()) for r in [{n: n for n in columns}, *rows]]
    )
    found = table(tmp_path, "\n".join(lines), f"t.{form}")
    np.testing.assert_array_equal(found.numbers("number"), [1.5, np.nan, np.nan, 2, np.nan])
    assert found.cells("class") == ["None", "cat", "None", "-", None]
    assert found.cells("all") == ["None"] * 5
    assert [cell is None for cell in found.cells("share")] == [False, False, True, True, False]
    assert [cell is None for cell in found.cells("truth")] == [False, False, True, False, True]
    assert [cell is None for cell in found.cells("path")] == [False, True, False, True, False]
    assert found.cells("text") == columns["text"]
    assert found.emptied("number") == {"None": 1, "-": 1, "NA": 1}
    said = Table(found.path, {"class": columns["class"], "all": columns["all"]}, range(5), Reading(numbers=["all"]))
    assert said.cells("all") == [None] * 5
    assert said.cells("class") == ["None", "cat", "None", "-", None]
    user = Table(found.path, {"class": columns["class"]}, range(5), Reading(empty=["cat", "-"]))
    assert user.cells("class") == ["None", None, "None", None, "NA"]


def test_a_first_line_that_names_the_separator_counts(tmp_path: Path) -> None:
    # Commas part these rows as evenly.
    found = table(tmp_path, "sep=;\na,x;b\n1,2;3,4\n5,6;7,8\n")
    assert found.names == ["a,x", "b"]
    np.testing.assert_array_equal(found.numbers("b"), [3.4, 7.8])
    assert found.line(0) == 3
    with pytest.raises(DataError, match="line 4: byte 0xff is not UTF-8"):
        table(tmp_path, b'sep=;\na;b\n1;2\n1;\xff"\n')


def test_words_among_which_one_is_a_number_tell_no_decimal_mark(tmp_path: Path) -> None:
    found = table(tmp_path, "a;t\n1.5;x\n2.5;1,5\n3.5;y\n4.5;z\n")
    np.testing.assert_array_equal(found.numbers("a"), [1.5, 2.5, 3.5, 4.5])


@pytest.mark.parametrize(("cells", "wrong"), [(["12%", 2.5], [0]), (["true", 7, "1.5"], [0]), (["1,234", 5], [])])
def test_shares_beside_numbers_are_none(tmp_path: Path, cells: list[Any], wrong: list[int]) -> None:
    found = table(tmp_path, "\n".join(json.dumps({"a": cell}) for cell in cells), "t.jsonl").parsed("a")
    assert found.wrong.tolist() == wrong
    assert np.isnan(found.values[wrong]).all()
