"""Labels, splits, groups and ids by their names; columns that give the label or the row away."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightning_mmnas.commands.init.command import init
from lightning_mmnas.commands.init.special import role_of
from lightning_mmnas.commands.init.telling import as_options
from lightning_mmnas.errors import ConfigError, DataError
from tests.commands.init.tables import numbers, proposed, write_table

N = 24
SIDES = ["left" if i % 3 else "right" for i in range(N)]


def inputs(path: Path, **options: Any) -> list[str]:
    """The columns that become inputs."""
    return [column for spec in proposed(path, **options).specs.values() for column in spec.columns]


@pytest.mark.parametrize(
    ("name", "role"),
    [
        *(
            (name, "label")
            for name in ("label", "Label", "LABELS", "class", "target", "Class ID", "label_id", "classId")
        ),
        *((name, "split") for name in ("split", "Fold", "set", "partition")),
        *((name, "group") for name in ("Group", "subject", "patient_id", "Speaker", "user")),
        *((name, "id") for name in ("ID", "__index_level_0__", "Unnamed: 0", "index", "uid")),
        *((name, None) for name in ("classical", "width", "targeted", "username", "photo")),
    ],
)
def test_roles_by_name(name: str, role: str | None) -> None:
    assert role_of(name) == role


def test_the_label_is_no_input_whatever_it_is_called(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "picture": numbers(N, 1),
        "left": numbers(N, 2),
        "right": numbers(N, 3),
        "target": [i % 2 for i in range(N)],
    }
    table = write_table(tmp_path, columns)
    found = proposed(table)
    assert found.special == {"label": "target"}
    assert inputs(table) == ["picture", "left", "right"]
    assert "label: column 'target', by its name; --label COLUMN takes another, --no-label none" in found.told
    without = proposed(table, without_roles=["label"])
    assert without.special == {}
    assert without.left["target"].startswith("it is called like a label and is no input")
    asked = proposed(table, "x=features:left,target")
    assert asked.special == {}
    assert asked.specs["x"].columns == ["left", "target"]
    with pytest.raises(ConfigError, match="--label and --no-label exclude each other"):
        proposed(table, label="target", without_roles=["label"])


def test_special_columns_are_no_inputs(tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "Unnamed: 0": list(range(N)),
        "__index_level_0__": [3 * i for i in range(N)],
        "Label": SIDES,
        "label_id": [int(side == "left") for side in SIDES],
        "fold": [i % 5 for i in range(N)],
        "Subject": [f"s{i // 2}" for i in range(N)],
        "camera_id": [i % 4 for i in range(N)],
        "x": numbers(N),
    }
    table = write_table(tmp_path, columns)
    found = proposed(table)
    assert found.special == {"label": "Label", "group": "Subject", "id": "Unnamed: 0"}
    assert inputs(table) == ["x"]
    assert set(found.left) == {"__index_level_0__", "label_id", "fold", "camera_id"}
    assert found.left["camera_id"] == (
        f"it is called like an id, and 4 of them are in {N} rows: where one is a recording or a person, "
        "--group camera_id keeps its rows in one split; --modality makes it an input"
    )
    assert found.left["fold"].startswith("it is called like a split and is no input; --split fold")
    assert inputs(table, without_roles=["group", "id", "split", "label"]) == ["x"]


def test_several_labels_are_a_question(tmp_path: Path) -> None:
    other = [f"c{i // 7}" for i in range(N)]
    table = write_table(tmp_path, {"class": SIDES, "target": other, "x": numbers(N)})
    with pytest.raises(DataError) as error:
        proposed(table)
    assert "--label class or --label target, or --no-label" in str(error.value)
    assert proposed(table, label="target").special == {"label": "target"}
    assert inputs(table, label="target") == ["x"]
    # The same label twice is no question.
    table = write_table(tmp_path, {"target": SIDES, "label": [side.upper() for side in SIDES], "x": numbers(N)})
    assert proposed(table).special == {"label": "label"}
    assert inputs(table) == ["x"]


def test_coordinates_are_no_label(tmp_path: Path) -> None:
    table = write_table(tmp_path, {"x": numbers(N, 1), "y": numbers(N, 2)})
    assert proposed(table).special == {}
    assert inputs(table) == ["x", "y"]


def test_a_column_of_splits_and_one_of_folds(tmp_path: Path) -> None:
    named = [("train", "Validation", "TEST")[i % 3] for i in range(N)]
    table = write_table(tmp_path, {"set": named, "x": numbers(N)})
    assert proposed(table).special == {"split": "set"}
    table = write_table(tmp_path, {"set": [i % 3 for i in range(N)], "x": numbers(N)})
    assert proposed(table).special == {}
    assert inputs(table) == ["x"]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([10 * (side == "left") + 5 for side in SIDES], "each of its values goes with one label only"),
        (
            [(i % 2) + 10 * (side == "left") for i, side in enumerate(SIDES)],
            "each of its values goes with one label only",
        ),
        ([f"a {side} hand side" for side in SIDES], "each of its values goes with one label only"),
        ([7 * i + 2 for i in range(N)], "it numbers the rows"),
        (list(np.random.default_rng(0).permutation(N) + 100), "it numbers the rows"),
    ],
)
def test_columns_that_give_the_label_or_the_row_away(tmp_path: Path, values: list[Any], reason: str) -> None:
    values = [value if isinstance(value, str) else int(value) for value in values]
    table = write_table(tmp_path, {"label": SIDES, "leak": values, "x": numbers(N)})
    found = proposed(table)
    assert inputs(table) == ["x"]
    assert found.left["leak"].startswith(reason)
    assert proposed(table, "y=features:x", "z=text:leak").specs["z"].columns == ["leak"]


def test_a_coarser_label_and_the_label_in_another_unit(tmp_path: Path) -> None:
    birds = [("owl", "jay", "trout", "carp")[i % 4] for i in range(N)]
    table = write_table(tmp_path, {"label": birds, "swims": [int(i % 4 > 1) for i in range(N)], "x": numbers(N)})
    assert proposed(table).left["swims"].startswith("each label goes with one of its values only")
    metres = [i / 4 for i in range(12)] * 2
    table = write_table(tmp_path, {"label": metres, "cm": [100 * m + 3 for m in metres], "x": numbers(N)})
    assert proposed(table).left["cm"].startswith("it is the label in another unit")


@pytest.mark.parametrize(
    "values",
    [
        numbers(N),  # each value occurs once
        [i % 5 for i in range(N)],  # goes with both labels
        [1.5 * i * i for i in range(N)],  # in order, but no count
        [0.1 * i for i in range(N)],
    ],
)
def test_columns_that_are_inputs(tmp_path: Path, values: list[float]) -> None:
    table = write_table(tmp_path, {"label": SIDES, "v": values, "x": numbers(N, 1)})
    assert inputs(table) == ["v", "x"]


def test_ids_in_text(tmp_path: Path) -> None:
    import uuid

    ids = [str(uuid.UUID(int=i)) for i in range(N)]
    table = write_table(tmp_path, {"key1": ids, "x": numbers(N)})
    assert proposed(table).left["key1"].startswith("it is an id, another one in every row")


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ([f"{7919 * i * i % 99991:05d}" for i in range(30)], "it holds codes with leading zeros, such as '0"),
        ([f"2024{1 + i % 12:02d}{1 + i * i % 28:02d}" for i in range(30)], "it holds dates, such as 20240101"),
        ([20_240_101 + 100 * (i % 9) for i in range(30)], "it holds dates, such as 20240101"),
        ([2**53 + i * i for i in range(30)], "such as 9007199254741833, longer than numbers that are told apart"),
        ([str(2**62 + i * i) for i in range(30)], "longer than numbers that are told apart: ids and no amounts"),
    ],
)
def test_codes_are_no_amounts(tmp_path: Path, cells: list[Any], reason: str) -> None:
    found = proposed(write_table(tmp_path, {"code": cells, "x": numbers(30)}))
    assert reason in found.left["code"]
    assert found.specs["numbers"].columns == ["x"]
    kept = proposed(found.table.path, "code=features:code").specs["code"]
    assert kept.columns == ["code"]


def test_labels_in_several_columns_are_a_question_or_no_inputs(tmp_path: Path) -> None:
    flags = [i % 3 == 0 for i in range(N)]
    columns: dict[str, list[Any]] = {
        "label_cat": flags,
        "label_dog": [not flag for flag in flags],
        "class_size": numbers(N),
        "y_up": flags,
    }
    found = proposed(write_table(tmp_path, {**columns, "x": numbers(N, 1)}))
    assert inputs(found.table.path) == ["class_size", "x"]
    assert found.left["label_dog"].startswith("it is one of 3 columns of zeros and ones that are called like labels")
    one = proposed(write_table(tmp_path / "one", {"y_up": flags, "x": numbers(N, 1)}))
    assert one.specs["numbers"].columns == ["y_up", "x"]
    counted = write_table(tmp_path / "counted", {"label": SIDES, "label2": numbers(N), "x": numbers(N, 1)})
    with pytest.raises(DataError, match=r"\['label', 'label2'\] are all called like a label, and they differ"):
        proposed(counted)
    assert inputs(counted, label="label") == ["x"]


def test_splits_by_their_cells(tmp_path: Path) -> None:
    splits = ["train"] * 16 + ["valid"] * 4 + ["test"] * 4
    flags = [split == "train" for split in splits]
    columns: dict[str, list[Any]] = {
        "phase": splits,
        "is_train": flags,
        "inTest": [int(not flag) for flag in flags],
        "test": flags,
    }
    found = proposed(write_table(tmp_path, {**columns, "x": numbers(N)}))
    assert found.special == {}
    assert found.left["phase"] == "its cells name splits, and it is no input; --split phase takes it as such"
    assert found.left["is_train"].startswith("it says which rows are in a split, and is no input")
    assert "inTest" in found.left
    assert inputs(found.table.path) == ["test", "x"]
    assert proposed(found.table.path, split="phase").special == {"split": "phase"}
    angle = proposed(write_table(tmp_path / "angle", {"phase": numbers(N), "x": numbers(N, 1)}))
    assert angle.specs["numbers"].columns == ["phase", "x"]


def test_short_texts_are_told_by_example(tmp_path: Path) -> None:
    found = proposed(write_table(tmp_path, {"unit": [f"{i}\u200bkg" for i in range(N)], "x": numbers(N)}))
    assert found.left["unit"].startswith(r"short texts, 24 different ones such as '0\u200bkg', '1\u200bkg', and not")


def test_amounts_that_look_a_little_like_codes_are_inputs(tmp_path: Path) -> None:
    amounts = [0, 0.5, *(20_240_100 + 37 * i for i in range(28))]
    table = write_table(tmp_path, {"x": numbers(30), "y": amounts, "z": [f"0.{i:02d}" for i in range(30)]})
    assert inputs(table) == ["x", "y", "z"]


def test_rows_of_one_recording_are_told(tmp_path: Path) -> None:
    """A time series with a row per moment has the same id many times: no id, and better a group."""
    ids = [f"r{i // 4}" for i in range(N)]
    left = proposed(write_table(tmp_path, {"sample_id": ids, "x": numbers(N)})).left
    assert f"{N // 4} of them are in {N} rows" in left["sample_id"]
    assert "--group sample_id keeps its rows in one split" in left["sample_id"]
    table = write_table(tmp_path, {"id": ids, "x": numbers(N)})
    with pytest.raises(DataError) as error:
        init(str(table), str(tmp_path / "out"))
    way = "id 'r0' is also in line 1; leave id out (--no-id), or give --group 'id' in its place"
    assert way in str(as_options(error.value))


def test_the_label_is_no_input(tmp_path: Path) -> None:
    table = write_table(tmp_path, {"side": SIDES, "x": numbers(N)})
    with pytest.raises(ConfigError, match=r"column 'side' is to be learnt .* and is no input"):
        proposed(table, "n=text:side", label="side")


def test_a_test_split_without_labels_says_the_ways_out(tmp_path: Path) -> None:
    parts = ["train", "val", "test"]
    columns: dict[str, list[Any]] = {
        "split": [parts[i % 3] for i in range(3 * N)],
        "label": [SIDES[i // 3] if i % 3 < 2 else None for i in range(3 * N)],
        "x": numbers(3 * N),
    }
    with pytest.raises(DataError, match="the test split has no labelled row; leave split out to have it drawn, or"):
        init(str(write_table(tmp_path, columns)), str(tmp_path / "out"))
