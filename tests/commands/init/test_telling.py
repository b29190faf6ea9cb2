"""What `mmnas init` says, and how it ends."""

import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightning_mmnas.commands.mmnas import main
from tests.commands.init.tables import numbers, write_table

N = 40


@pytest.fixture
def table(tmp_path: Path) -> Path:
    kinds = ["[/b]", "[b]cat"]
    labels = [kinds[i % 2] for i in range(N)]
    columns = {"left_a": numbers(N, 1), "left_b": numbers(N, 2), "right_a": numbers(N, 3), "right_b": numbers(N, 4)}
    return write_table(tmp_path, {**columns, "Class": labels, "kind": [str(label == kinds[0]) for label in labels]})


def test_all_that_was_inferred_is_said(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(table), "--output", str(tmp_path / "c")]) == 0
    told = capsys.readouterr().out
    lines = told.splitlines()
    assert "label: column 'Class', by its name; --label COLUMN takes another, --no-label none" in lines
    assert "left: 2 numbers; --modality left=features:left_a,left_b" in lines
    assert any(
        line.startswith("left out: column 'kind': each of its values goes with one label only") for line in lines
    )
    assert "2 classes (one per row) in column 'Class'; training rows: [/b] 14, [b]cat 14" in lines
    assert f"wrote {tmp_path / 'c'}; look at the data: mmnas data {tmp_path / 'c'}" in lines
    assert not any("fusion needs two" in line for line in lines)
    content = yaml.safe_load((tmp_path / "c" / "common.yaml").read_text())["data"]["init_args"]
    # What is said can be given as it is.
    options = [
        word
        for line in lines
        if "; --modality " in line and "left out" not in line
        for word in shlex.split(line.partition("; ")[2])
    ]
    assert main(["init", str(table), "--output", str(tmp_path / "d"), *options]) == 0
    assert yaml.safe_load((tmp_path / "d" / "common.yaml").read_text())["data"]["init_args"] == content


def test_one_modality_and_one_row_of_a_class(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ["rare" if i in (3, 17, 30) else "ab"[i % 2] for i in range(N)]
    splits = ["val" if i in (17, *range(4)) else "test" if i in (30, *range(4, 8)) else "train" for i in range(N)]
    splits[3], labels[8] = "val", "rare"
    table = write_table(tmp_path, {"a": numbers(N, 1), "label": labels, "split": splits})
    assert main(["init", str(table), "--output", str(tmp_path / "c")]) == 0
    told = capsys.readouterr().out
    assert "note: there is one modality, 'numbers', and fusion needs two or more" in told
    assert "note: 1 class(es) have one training row only: 'rare'" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["missing.csv"], "there is no table missing.csv; check the path"),
        (["TABLE", "--no-label", "--label", "Class"], "--label and --no-label exclude each other"),
        (["TABLE", "--files-from", "nowhere"], "there is no folder nowhere; check --files-from"),
        (["TABLE", "--without", "nothing"], "has no column 'nothing'"),
        (["EMPTY"], "1 row(s) lack a modality: line 1; give --missing drop or mask"),
        (["DAMAGED"], "leave their samples out with --on-error skip"),
    ],
)
def test_mistakes_are_told_in_options_of_init(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    if options == ["EMPTY"]:
        options = [str(write_table(tmp_path, {"a": [None, *numbers(N)], "b": numbers(N + 1)}, "empty.jsonl"))]
    if options == ["DAMAGED"]:
        for i in range(N):
            (tmp_path / f"{i}.png").write_bytes(b"nothing")
        options = [str(write_table(tmp_path, {"a": [f"{i}.png" for i in range(N)]}, "damaged.jsonl"))]
    arguments = [str(table) if option == "TABLE" else option for option in options]
    assert main(["init", *arguments, "--output", str(tmp_path / "c")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "data.init_args" not in error
    assert not (tmp_path / "c").exists()


def test_configuration_of_another_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.commands.init.tables import picture

    for i in range(N):
        picture(tmp_path / "p" / f"{i}.png", 5 * i)
    table = write_table(tmp_path / "t", {"photo": [f"{i}.png" for i in range(N)], "x": numbers(N)})
    options = ["--files-from", str(tmp_path / "p"), "--output", str(tmp_path / "c")]
    assert main(["init", str(table), *options]) == 0
    content = yaml.safe_load((tmp_path / "c" / "common.yaml").read_text())["data"]["init_args"]
    assert content["files_from"] == str(tmp_path / "p")


def test_a_group_that_was_guessed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    columns: dict[str, list[Any]] = {
        "subject": ["s1" if i % 2 else "s2" for i in range(N)],
        "x": numbers(N),
        "z": numbers(N, 1),
    }
    table = write_table(tmp_path, columns)
    assert main(["init", str(table), "--output", str(tmp_path / "c")]) == 2
    assert "column 'subject' was taken for the group by its name: --no-group leaves that" in capsys.readouterr().err
    assert main(["init", str(table), "--output", str(tmp_path / "c"), "--no-group"]) == 0
