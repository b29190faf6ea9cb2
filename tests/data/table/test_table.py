"""Tables of a user's own files."""

import csv
import functools
import json
import operator
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mmnas.data.summary import summarise
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.data.table.reading import read_table
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, DatasetNotFoundError
from tests.data.table.make_table import CLASSES, make_table

BIRDS = {
    "photo": ColumnSpec("image", ["photo"], size=(8, 8)),
    "song": ColumnSpec("audio", ["song"], rate=8000, seconds=0.1),
    "numbers": ColumnSpec("features", ["mass", "wing"]),
}
NUMBERS = {"x": ColumnSpec("features", ["a", "b"])}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif path.suffix == ".parquet":
        pa = pytest.importorskip("pyarrow")
        pq = pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


def numbers(n: int = 30) -> list[dict[str, Any]]:
    return [{"a": float(i), "b": i % 7 * 2.0, "y": "ab"[i % 2], "g": f"g{i // 3}"} for i in range(n)]


def built(path: Path, columns: dict[str, ColumnSpec] = NUMBERS, **arguments: Any) -> TableDataModule:
    data = TableDataModule(str(path), columns, batch_size=2, **arguments)
    for stage in ("fit", "test"):
        data.setup(stage)
    return data


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_samples(tmp_path: Path, suffix: str) -> None:
    data = built(write(tmp_path / f"t{suffix}", numbers()), label="y")
    batch = data.tensors("train")
    rows = data.rows["train"]
    raw = torch.tensor([[float(i), i % 7 * 2.0] for i in rows], dtype=torch.float64)
    expected = (raw - raw.mean(0)) / raw.std(0, unbiased=False)
    torch.testing.assert_close(batch["x"], expected.float(), atol=1e-5, rtol=1e-5)
    assert batch["label"].tolist() == [i % 2 for i in rows]
    assert data.class_names == ["a", "b"]
    assert sorted(functools.reduce(operator.iadd, data.rows.values(), [])) == list(range(30))


def test_three_modalities_of_files(tmp_path: Path) -> None:
    data = TableDataModule(str(make_table(tmp_path)), BIRDS, label="label", batch_size=4)
    assert {n: s.shape for n, s in data.modalities.items()} == {"photo": (3, 8, 8), "song": (1, 800), "numbers": (2,)}
    assert data.class_names == sorted(CLASSES)
    data.setup("fit")
    batch = data.tensors("train")
    assert batch["photo"].dtype == torch.uint8
    assert data.label_counts("train") == dict.fromkeys(sorted(CLASSES), 14)
    assert data.label_counts("val") == dict.fromkeys(sorted(CLASSES), 3)


def test_groups_never_straddle_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", numbers())
    data = built(path, label="y", group="g")
    groups = {split: {row // 3 for row in rows} for split, rows in data.rows.items()}
    assert not groups["train"] & groups["val"]
    assert not groups["train"] & groups["test"]
    assert not summarise(data).overlaps
    assert data.rows == built(path, label="y", group="g").rows
    rows = [row | {"s": "test" if i % 5 == 0 else "train"} for i, row in enumerate(numbers())]
    with pytest.raises(DataError, match=r"group 'g0' is in the splits train and test"):
        built(write(tmp_path / "u.csv", rows), group="g", split="s", labels=False)


def test_given_splits(tmp_path: Path) -> None:
    names = ["train", "TRAIN", "training", "dev", "test"]
    rows = [row | {"s": names[i % 5]} for i, row in enumerate(numbers())]
    data = built(write(tmp_path / "t.csv", rows), split="s", label="y")
    assert data.rows["val"] == list(range(3, 30, 5))
    rows[4]["s"] = "later"
    with pytest.raises(DataError, match=r"line 6, column 's': 'later' is not in"):
        built(write(tmp_path / "t.csv", rows), split="s", labels=False)


def test_a_class_only_in_test_is_named(tmp_path: Path) -> None:
    rows = [row | {"s": ["train", "train", "val", "test"][i % 4]} for i, row in enumerate(numbers())]
    rows[3]["y"] = "typo"
    with pytest.raises(DataError, match="class 'typo' is in the test split, but never in the train"):
        built(write(tmp_path / "t.csv", rows), split="s", label="y")


def test_several_classes_in_lists_and_in_cells(tmp_path: Path) -> None:
    rows = [row | {"y": ["a", "b"] if i % 3 else ["a"]} for i, row in enumerate(numbers())]
    lists = built(write(tmp_path / "t.jsonl", rows), label="y")
    rows = [row | {"y": "a|b" if i % 3 else "a"} for i, row in enumerate(numbers())]
    cells = built(write(tmp_path / "t.csv", rows), label="y", label_separator="|")
    assert lists.task == cells.task == "multilabel"
    assert torch.equal(lists.tensors("train")["label"], cells.tensors("train")["label"])
    assert lists.tensors("train")["label"].tolist() == [[1, int(i % 3 > 0)] for i in lists.rows["train"]]


def test_unlabelled_rows_serve_the_stages_without_labels_only(tmp_path: Path) -> None:
    rows = numbers()
    for row in rows[:6]:
        row["y"] = ""
    path = write(tmp_path / "t.csv", rows)
    with_labels, without = built(path, label="y"), built(path, label="y", labels=False)
    assert set(range(6)) <= set(with_labels.rows["train"])
    assert len(without.tensors("train")["x"]) - len(with_labels.tensors("train")["x"]) == 6
    labels = without.source("train").labels
    assert labels is not None
    assert (labels == -1).sum() == 6


def test_missing_modalities(tmp_path: Path) -> None:
    rows = [row | {"text": f"word{i} common words"} for i, row in enumerate(numbers())]
    rows[2]["a"], rows[5]["text"] = "", ""
    path = write(tmp_path / "t.csv", rows)
    columns = NUMBERS | {"text": ColumnSpec("text", ["text"], length=4)}
    with pytest.raises(DataError, match=r"2 row\(s\) lack a modality: line 4, 7"):
        built(path, columns, label="y")
    assert sum(len(r) for r in built(path, columns, label="y", missing="drop").rows.values()) == 28
    data = built(path, columns, label="y", missing="mask")
    for split, members in data.rows.items():
        batch = data.tensors(split)
        for place, row in enumerate(members):
            if row == 2:
                assert batch["x"][place].tolist() == [0, 0]  # the mean of standardised numbers
            if row == 5:
                assert batch["text"][place].tolist() == [0] * 4


def test_a_missing_picture_is_the_mean_picture(tmp_path: Path) -> None:
    rows = []
    for i in range(12):
        np.save(tmp_path / f"{i}.npy", np.full((4, 4), 10 * i, dtype=np.uint8))
        rows.append({"p": f"{i}.npy", "a": i, "b": i % 5, "s": ["train", "train", "val", "test"][i % 4]})
    rows[1]["p"] = ""
    columns = NUMBERS | {"p": ColumnSpec("image", ["p"], size=(4, 4), channels=1)}
    data = built(write(tmp_path / "t.csv", rows), columns, split="s", missing="mask", labels=False)
    assert data.tensors("train")["p"][1].float().mean() == round(np.mean([0, 40, 50, 80, 90]))


def test_arrays_of_every_shape(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = []
    for i in range(9):
        arrays: dict[str, np.ndarray[Any, Any]] = {
            "motion": draw.normal(5, 2, (10 + i, 3)),
            "skeleton": draw.normal(0, 1, (20 + i, 5, 3)),
            "clip": draw.integers(0, 4000, (6 + i, 8, 9), dtype=np.uint16),
            "image": draw.integers(0, 255, (7, 9, 3), dtype=np.uint8),
            "vector": draw.normal(3, 1, 6).astype(np.float32),
        }
        for name, array in arrays.items():
            np.save(tmp_path / f"{name}{i}.npy", array)
        rows.append({name: f"{name}{i}.npy" for name in arrays})
    columns = {
        "motion": ColumnSpec("motion", ["motion"], channels=3, length=16),
        "cropped": ColumnSpec("motion", ["motion"], channels=3, length=14, fit="crop"),
        "skeleton": ColumnSpec("skeleton", ["skeleton"], joints=5, length=16),
        "clip": ColumnSpec("video", ["clip"], channels=1, length=4, size=(6, 6), maximum=4000),
        "image": ColumnSpec("image", ["image"], size=(7, 9)),
        "vector": ColumnSpec("features", ["vector"], files=True, length=6),
    }
    data = built(write(tmp_path / "t.csv", rows), columns, labels=False)
    for split in data.rows:
        for name, values in data.tensors(split).items():
            spec = data.modalities[name]
            assert tuple(values.shape[1:]) == spec.shape
            assert values.dtype == spec.dtype
    first = data.rows["train"][0]
    image = torch.from_numpy(np.load(tmp_path / f"image{first}.npy")).permute(2, 0, 1)
    assert torch.equal(data.tensors("train")["image"][0], image)
    motion = data.tensors("train")["motion"]
    torch.testing.assert_close(motion.mean((0, 2)), torch.zeros(3), atol=1e-5, rtol=0)


def test_motion_is_standardised_before_it_is_rounded(tmp_path: Path) -> None:
    draw, rows, raw = np.random.default_rng(0), [], []
    for i in range(12):
        array = np.stack([1.7e9 + draw.integers(0, 100, 20), 1e-14 * draw.normal(size=20), draw.normal(size=20)])
        np.save(tmp_path / f"{i}.npy", array)
        np.save(tmp_path / f"v{i}.npy", array[:2, 0])
        rows.append({"m": f"{i}.npy", "v": f"v{i}.npy"})
        raw.append(array)
    columns = {
        "m": ColumnSpec("motion", ["m"], channels=3, length=20, axes="ct"),
        "v": ColumnSpec("features", ["v"], files=True, length=2),
    }
    data = built(write(tmp_path / "t.csv", rows), columns, labels=False)
    whole = np.stack([raw[row] for row in data.rows["train"]])
    wanted = (whole - whole.mean((0, 2), keepdims=True)) / whole.std((0, 2), keepdims=True)
    found = data.tensors("train")
    assert found["m"].dtype == found["v"].dtype == torch.float32
    np.testing.assert_allclose(found["m"], wanted, atol=1e-5)
    first = whole[:, :2, 0]
    np.testing.assert_allclose(found["v"], (first - first.mean(0)) / first.std(0), atol=1e-5)


def test_axes_and_keys_of_arrays(tmp_path: Path) -> None:
    draw, rows = np.random.default_rng(0), []
    for i in range(6):
        np.save(tmp_path / f"i{i}.npy", draw.integers(0, 255, (3, 7, 9), dtype=np.uint8))
        np.savez(tmp_path / f"s{i}.npz", joints=draw.normal(size=(8, 17, 2)), score=np.ones(8))
        rows.append({"i": f"i{i}.npy", "s": f"s{i}.npz"})
    columns = {
        "i": ColumnSpec("image", ["i"], size=(7, 9), axes="chw"),
        "s": ColumnSpec("skeleton", ["s"], joints=17, length=8, key="joints"),
    }
    data = built(write(tmp_path / "t.csv", rows), columns, labels=False)
    found, first = data.tensors("train"), data.rows["train"][0]
    assert torch.equal(found["i"][0], torch.from_numpy(np.load(tmp_path / f"i{first}.npy")))
    joints = torch.from_numpy(np.load(tmp_path / f"s{first}.npz")["joints"]).permute(2, 0, 1)
    torch.testing.assert_close(found["s"][0, :2, ..., 0], (joints - joints[:, 0].mean(1)[:, None, None]).float())
    with pytest.raises(ConfigError, match=r"letters of 't' or 'tc'.*check data.init_args.columns.m"):
        built(tmp_path / "t.csv", {"m": ColumnSpec("motion", ["i"], axes="hw")})


@pytest.mark.filterwarnings("ignore:.*are left out")
def test_damaged_files_are_named_or_left_out(tmp_path: Path) -> None:
    path = make_table(tmp_path)
    (tmp_path / "photos" / "004.png").write_bytes(b"")
    (tmp_path / "songs" / "007.wav").unlink()
    with pytest.raises(DamagedFilesError, match=r"004\.png|007\.wav"):
        built(path, BIRDS, label="label")
    data = built(path, BIRDS, label="label", on_error="skip")
    assert sum(len(data.source(split)) for split in data.rows) == 58


def test_skipping_is_told(tmp_path: Path) -> None:
    rows = numbers()
    rows[3]["a"] = "many"
    with pytest.warns(
        UserWarning, match=r"1 damaged samples of the \w+ split are left out: .*t.csv, line 5, column 'a'"
    ):
        built(write(tmp_path / "t.csv", rows), label="y", on_error="skip")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n1,2\n3\n", "line 3: 1 cells instead of 2"),
        (b"a,a\n1,2\n", r"several columns have the names \['a'\]"),
        (b"a,b\n1,\xff\n", "line 2: byte 0xff is not UTF-8"),
        (b"", "is empty"),
        (b"a,b\n", "has no rows"),
        (b"a,\n1,2\n", "column 2 has no name"),
        (b'a,b\n1,"2\n', "line 2"),
        (b"a,c\n1,2\n", r"no column 'b', but \['a', 'c'\]"),
    ],
)
def test_tables_that_are_wrong(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        built(path, labels=False)


def test_wrong_arguments(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="there is no table"):
        built(tmp_path / "none.csv", labels=False)
    with pytest.raises(DataError, match=r"suffix '\.xls'"):
        read_table(tmp_path / "t.xls")
    with pytest.raises(ConfigError, match="takes one column"):
        built(tmp_path / "t.csv", {"p": ColumnSpec("image", ["a", "b"])})
    with pytest.raises(ConfigError, match="missing 'ignore'"):
        built(tmp_path / "t.csv", missing="ignore")


def test_repeated_ids_and_rows(tmp_path: Path) -> None:
    rows = [*numbers(), numbers()[4]]
    path = write(tmp_path / "t.csv", rows)
    with pytest.warns(UserWarning, match=r"1 row\(s\) repeat an earlier one: line 32"):
        built(path, label="y")
    with pytest.raises(DataError, match=r"line 32, column 'a': id '4\.0' is also in line 6"):
        built(path, label="y", id="a")


@pytest.mark.filterwarnings("ignore:.*are left out", "ignore:.*repeat an earlier one")
@pytest.mark.slow
@pytest.mark.parametrize("on_error", ["raise", "skip"])
def test_two_hundred_damaged_tables(tmp_path: Path, on_error: Any) -> None:
    draw = random.Random(0)
    suffixes = [".csv", ".jsonl", ".parquet"]
    told: list[str] = []
    for case in range(200):
        suffix = suffixes[case % 3]
        path = write(tmp_path / f"t{suffix}", numbers(12))
        content = bytearray(path.read_bytes())
        way = draw.randrange(5)
        if way == 0:
            content = content[: draw.randrange(len(content))]
        elif way == 1:
            for _ in range(draw.randrange(1, 9)):
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        elif way == 2:
            place = draw.randrange(len(content))
            content[place:place] = draw.choice([b"\xff\xfe", b"\0", b"nan", b'"', b",", b"\n", b"1e999", b"{", b"[]"])
        elif way == 3:
            content = bytearray()
        else:
            content = content.replace(draw.choice([b"1", b"2", b"a", b"g"]), draw.choice([b"NaN", b"", b"\xe9", b"x"]))
        path.write_bytes(bytes(content))
        try:
            data = built(path, label="y", group="g", id="a", on_error=on_error)
        except (DataError, DatasetNotFoundError) as error:
            told.append(str(error))
        else:
            for split in data.rows:
                assert torch.isfinite(data.tensors(split)["x"]).all()
    assert len(told) > 50
    assert [text for text in told if str(tmp_path) not in text] == []
