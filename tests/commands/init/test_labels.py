"""Labels, splits and texts as `mmnas init` takes them from a table."""

import csv
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_mmnas.commands.mmnas import main


def table(path: Path, **columns: list[Any]) -> Path:
    """A CSV with two columns of numbers and others."""
    draw = random.Random(0)
    size = len(next(iter(columns.values())))
    columns = {"a": [draw.random() for _ in range(size)], "b": [draw.random() for _ in range(size)], **columns}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
    return path


def init(path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    folder = path.parent / "configs"
    code = main(["init", str(path), "--output", str(folder), *options])
    if not folder.exists():
        return code, {}
    return code, yaml.safe_load((folder / "common.yaml").read_text())["data"]["init_args"]


def test_empty_columns_of_labels_and_splits_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = init(table(tmp_path / "t.csv", label=[""] * 40, split=["nan"] * 40, group=[None] * 40))
    told = capsys.readouterr().out
    assert code == 0
    assert not {"label", "split", "group"} & found.keys()
    for name in ("label", "split", "group"):
        assert f"left out: column {name!r}: it is called like a {name}, and is empty" in told


def test_an_empty_column_that_is_asked_for_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = init(table(tmp_path / "t.csv", y=["NA"] * 40), "--label", "y")
    assert code != 0
    assert "no row has a label in column 'y'; leave label out (--no-label)" in " ".join(capsys.readouterr().err.split())


def test_labels_are_read_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = ["cat", "Cat", "dog", "cat|dog", "NA"] * 12
    code, found = init(table(tmp_path / "t.csv", label=label))
    told = capsys.readouterr().out
    assert (code, found["label"]) == (0, "label")
    assert "4 classes (one per row) in column 'label'" in told
    assert "'NA' (12 rows) is read as no label" in told
    assert "'Cat' (12 rows), 'cat' (12 rows)" in told
    assert "give --label-separator '|'" in told


def test_lists_in_a_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = ["['cat', 'dog']", '["cat"]', "['dog' 'bird']"] * 20
    code, _ = init(table(tmp_path / "t.csv", label=label))
    assert code == 0
    assert "3 classes (several per row) in column 'label'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [f"row {i}" for i in range(60)]}, "60 classes in 60 labelled rows, and none has the three rows"),
        ({"label": ["one"] * 60}, "are of ['one'] only; leave label out (--no-label)"),
        ({"label": ["one", "?"] * 30}, "are of ['one'] only ('?' is read as empty, unless --empty says otherwise)"),
        (
            {"split": [str(i % 5) for i in range(60)]},
            "are folds and no splits; write train, val or test in their place",
        ),
        ({"split": [str(i % 5) for i in range(60)]}, "leave split out (--no-split) to have it drawn"),
        ({"split": ["train", "val"] * 30}, "no row of column 'split' is test"),
        ({"group": ["a", "b"] * 30}, "there are 2 groups for 60 rows"),
    ],
)
def test_what_is_refused_has_a_way_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: dict[str, list[Any]], message: str
) -> None:
    code, _ = init(table(tmp_path / "t.csv", **columns), *(["--task", "classes"] if "label" in columns else []))
    assert code != 0
    assert message in " ".join(capsys.readouterr().err.split())


def test_amounts_are_no_classes_even_if_they_are_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _ = init(table(tmp_path / "t.csv", label=[f"{i / 7:.3f}" for i in range(60)]), "--task", "classes")
    assert code != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "amounts, not classes. To predict them give --task regression" in said


def test_one_text_among_amounts_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label = [f"{i / 7:.3f}" for i in range(60)]
    label[5] = "12.5 kg"
    assert init(table(tmp_path / "t.csv", label=label))[0] != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 60 cells are no numbers: line 7: '12.5 kg' is not a number" in said
    assert "--task classes" in said
    few = ["1", "2", "unknown"] * 20
    assert init(table(tmp_path / "few.csv", label=few))[0] == 0


def test_texts_of_other_languages(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    draw = random.Random(0)
    chinese = ["".join(draw.choices("我用手机很好今天气鸟飞水山", k=draw.randint(9, 30))) for _ in range(60)]
    hindi = [" ".join(draw.choices(["की", "के", "का", "को", "में", "हिन्दी"], k=12)) for _ in range(60)]
    code, found = init(table(tmp_path / "t.csv", chinese=chinese, hindi=hindi, label=["x", "y"] * 30))
    assert code == 0
    columns = found["columns"]
    assert (columns["chinese"]["kind"], columns["chinese"]["vocabulary"]) == ("text", 64)
    assert columns["hindi"]["length"] == 16  # 12 words
    lengths = sorted(map(len, chinese))
    assert lengths[int(0.9 * 59)] <= columns["chinese"]["length"] <= 32


def test_accents_that_are_tones_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tokenizers")
    code, _ = init(table(tmp_path / "t.csv", note=["ma má mà mả mã mạ", "tiếng Việt của tôi"] * 30))
    assert code == 0
    assert "note: Latin letters keep their accents" in capsys.readouterr().out


def test_texts_that_are_cut_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tokenizers")
    notes = [f"don't go {i % 7}!" for i in range(90)] + ["a, " * 40] * 10  # 6 tokens, though 3 words; 80
    code, found = init(table(tmp_path / "t.csv", note=notes, label=["x", "y"] * 50))
    assert (code, found["columns"]["note"]["length"]) == (0, 8)
    told = capsys.readouterr().out
    assert "10 %" in told or "10.0 %" in told
    assert "length=80" in told
