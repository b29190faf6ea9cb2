"""Columns of paths: found as they are meant, or refused with the first one that was looked for."""

import unicodedata
import wave
from pathlib import Path

import numpy as np
import pytest

from lightning_mmnas.data.table.columns import ColumnSpec, file_column
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.data.table.dialect import Reading
from lightning_mmnas.data.table.paths import locate, spellings
from lightning_mmnas.data.table.reading import read_table
from lightning_mmnas.delivery.inputs import samples_of
from lightning_mmnas.delivery.transforms import Transforms
from lightning_mmnas.errors import DataError
from tests.commands.init.tables import numbers, picture, proposed, write_table

N = 8
NFC, NFD = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")


def brightness(table: Path, cells_of: str, files_from: str | None = None) -> list[int]:
    """What is read of each row's picture."""
    spec = ColumnSpec("image", [cells_of], size=(6, 8))
    content = read_table(table)
    column = file_column(spec, content, range(len(content)), files_from)
    return [int(column.read(i).float().mean()) for i in range(len(content))]


@pytest.mark.parametrize(
    ("written", "on_disk"),
    [
        ("a\\b\\{i}.png", "a/b/{i}.png"),
        (f"{NFC}{{i}}.png", f"{NFD}{{i}}.png"),
        (f"{NFD}\\{{i}}.png", f"{NFC}/{{i}}.png"),
        (" {i}.png ", "{i}.png"),
        ("~/{i}.png", "home/{i}.png"),
    ],
)
def test_a_name_spelt_otherwise_is_the_one_file_that_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str, on_disk: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for i in range(N):
        picture(tmp_path / on_disk.format(i=i), 20 * i)
    table = write_table(tmp_path, {"photo": [written.format(i=i) for i in range(N)], "x": numbers(N)})
    assert proposed(table).specs["photo"].kind == "image"
    assert brightness(table, "photo") == [20 * i for i in range(N)]
    # A delivered model reads a new table likewise.
    transforms = Transforms({}, {"photo": ColumnSpec("image", ["photo"])}, {}, {})
    paths = [row.values["photo"] for row in samples_of(table, transforms).rows]
    assert [path.resolve() for path in paths] == [(tmp_path / on_disk.format(i=i)).resolve() for i in range(N)]


def test_a_name_is_taken_as_written_where_there_is_such_a_file(tmp_path: Path) -> None:
    picture(tmp_path / f"{NFC}.png", 10)
    picture(tmp_path / f"{NFD}.png", 20)
    assert locate(tmp_path, f"{NFC}.png") == tmp_path / f"{NFC}.png"
    assert locate(tmp_path, f"{NFD}.png") == tmp_path / f"{NFD}.png"
    picture(tmp_path / "a" / f"{NFC}.png")
    picture(tmp_path / "a" / f"{NFD}.png")
    both = locate(tmp_path, f"a\\{NFC}.png")
    assert both == tmp_path / f"a\\{NFC}.png"  # two files may be meant: neither is taken
    assert spellings("a/b.png") == ["a/b.png"]


def test_a_folder_that_files_are_named_from(tmp_path: Path) -> None:
    for i in range(N):
        picture(tmp_path / "pictures" / "in" / f"{i}.png", 20 * i)
    table = write_table(tmp_path / "meta", {"photo": [f"in/{i}.png" for i in range(N)], "x": numbers(N)})
    with pytest.raises(DataError) as error:
        proposed(table)
    text = str(error.value)
    assert f"{table}, line 1, column 'photo': 'in/0.png' looks like the path of a file" in text
    assert f"there is no file {tmp_path}/meta/in/0.png, nor any of the 8" in text
    assert f"there is {tmp_path}/pictures/in/0.png: --files-from {tmp_path}/pictures" in text
    assert "--without 'photo'" in text
    folder = str(tmp_path / "pictures")
    assert proposed(table, files_from=folder).specs["photo"].kind == "image"
    assert brightness(table, "photo", folder) == [20 * i for i in range(N)]
    assert list(proposed(table, without=["photo"]).specs) == ["numbers"]

    data = TableDataModule(
        str(table),
        {"photo": ColumnSpec("image", ["photo"], size=(6, 8))},
        files_from=folder,
        batch_size=2,
        labels=False,
    )
    data.setup("fit")
    assert sorted(int(s) for s in data.tensors("train")["photo"].float().mean((1, 2, 3))) == [
        20 * row for row in sorted(data.rows["train"])
    ]
    transforms = Transforms({}, {"photo": ColumnSpec("image", ["photo"])}, {}, {})
    rows = list(samples_of(table, transforms, reading=Reading(files_from=folder)).rows)
    assert rows[3].values["photo"] == tmp_path / "pictures" / "in" / "3.png"


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["https://host/a/{i}.jpg"], "'https://host/a/0.jpg' is an address on the web"),
        (["s3://bucket/{i}"], "'s3://bucket/0' is an address on the web"),
        (["{i}.jpg"], "'0.jpg' looks like the path of a file"),
        (["some folder/my photo {i}.JPEG"], "looks like the path of a file"),
        (["~nobody-here/{i}.wav"], "looks like the path of a file"),
        (["C:\\data\\{i}.opus"], "looks like the path of a file"),
        (["clips/{i}"], "'clips/0' looks like the path of a file"),
        (["/nowhere/{i}.dat"], "looks like the path of a file"),
        (["{i}.npz", "{i}.npz", "{i}.npz", "none"], "'0.npz' looks like the path of a file"),
    ],
)
def test_what_looks_like_files_stops(tmp_path: Path, cells: list[str], message: str) -> None:
    written = [cells[i % len(cells)].format(i=i) for i in range(N)]
    table = write_table(tmp_path, {"file": written, "x": numbers(N)})
    with pytest.raises(DataError) as error:
        proposed(table)
    assert message in str(error.value)
    assert "line 1, column 'file'" in str(error.value)
    assert "--without 'file'" in str(error.value)


@pytest.mark.parametrize(
    "cell",
    [
        " ".join(["word"] * 60) + " {i}",
        "x" * 5000 + " and more words {i}",
        "a cat and/or a dog number {i}.",
        "see photo.jpg for\nmore of number {i}",
        "he said: https://host/{i} is a page",
        "\0 odd {i} but a text",
    ],
)
def test_texts_are_no_paths(tmp_path: Path, cell: str) -> None:
    table = write_table(tmp_path, {"note": [cell.format(i=i) for i in range(N)], "x": numbers(N)})
    assert proposed(table).specs["note"].kind == "text"


@pytest.mark.parametrize("cell", ["12/0{i}/2020", "o/a", "km/h", "and/or", "site{i}", "A-0{i}"])
def test_short_texts_are_no_paths(tmp_path: Path, cell: str) -> None:
    cells = [cell.format(i=i) for i in range(N - 1)] + ["other"]
    table = write_table(tmp_path, {"code": cells, "x": numbers(N)})
    assert "short texts" in proposed(table).left["code"]


def test_files_that_begin_late(tmp_path: Path) -> None:
    rows = 600
    for i in range(400, rows):
        if i % 50 == 0:
            picture(tmp_path / f"{i}.png")
    table = write_table(tmp_path, {"photo": [f"{i}.png" for i in range(rows)], "x": numbers(rows)})
    assert proposed(table).specs["photo"].kind == "image"


def test_a_suffix_that_was_forgotten(tmp_path: Path) -> None:
    for i in range(N):
        picture(tmp_path / f"IMG_{i}.jpg")
    table = write_table(tmp_path, {"photo": [f"IMG_{i}" for i in range(N)], "x": numbers(N)})
    with pytest.raises(DataError, match=r"there is no file .*IMG_0, but .*IMG_0\.jpg; write names with their suffixes"):
        proposed(table)


def sound(path: Path) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.zeros(1600, dtype="<i2").tobytes())


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        (".jfif", "image"),
        (".avif", "image"),
        ("", "image"),
        (".bin", "audio"),
        (".aiff", "audio"),
        (".opus", "audio"),
        (".dat", "features"),
        (".webm", "video"),
    ],
)
def test_files_by_suffix_and_by_content(tmp_path: Path, suffix: str, kind: str) -> None:
    for i in range(N):
        path = tmp_path / f"f{i}{suffix}"
        if kind == "image":
            picture(path, format="JPEG")
        elif kind == "audio":
            sound(path)
        elif kind == "features":
            with path.open("wb") as file:
                np.save(file, np.arange(5.0) + i)
        else:
            path.write_bytes(b"\x1aE\xdf\xa3")
    table = write_table(tmp_path, {"file": [f"f{i}{suffix}" for i in range(N)], "x": numbers(N)})
    assert proposed(table).specs["file"].kind == kind


def test_files_that_are_nothing_we_know(tmp_path: Path) -> None:
    for i in range(N):
        (tmp_path / f"{i}.txt").write_text("hello")
        (tmp_path / f"{i}.pdf").write_bytes(b"%PDF-1.4")
        (tmp_path / f"d{i}").mkdir()
    columns = {"a": [f"{i}.txt" for i in range(N)], "b": [f"{i}.pdf" for i in range(N)]}
    table = write_table(tmp_path, {**columns, "d": [f"d{i}" for i in range(N)], "x": numbers(N)})
    left = proposed(table).left
    assert left["a"] == f"the files exist, but are no picture, sound, video or array: first {tmp_path}/0.txt"
    assert left["b"] == f"the files exist, but are no picture, sound, video or array: first {tmp_path}/0.pdf (PDF)"
    assert left["d"].startswith(f"its cells name folders (first {tmp_path}/d0)")


def test_a_picture_that_moves_is_a_video(tmp_path: Path) -> None:
    from PIL import Image

    for i in range(N):
        frames = [Image.fromarray(np.full((8, 8), 80 * k, dtype=np.uint8)) for k in range(3)]
        frames[0].save(tmp_path / f"{i}.gif", save_all=True, append_images=frames[1:])
    table = write_table(tmp_path, {"clip": [f"{i}.gif" for i in range(N)], "x": numbers(N)})
    assert proposed(table).specs["clip"].kind == "video"


@pytest.mark.parametrize(
    ("written", "on_disk"),
    [
        ("my%20folder/%231%20{i}.png", "my folder/#1 {i}.png"),
        ("100%20/{i}.png", "100%20/{i}.png"),
        ("file://{root}/my%20folder/{i}.png", "my folder/{i}.png"),
        ("file://localhost{root}/a b/{i}.PNG", "a b/{i}.PNG"),
    ],
)
def test_names_as_in_addresses(tmp_path: Path, written: str, on_disk: str) -> None:
    for i in range(N):
        picture(tmp_path / on_disk.format(i=i), 20 * i, "PNG")
    table = write_table(tmp_path, {"photo": [written.format(i=i, root=tmp_path) for i in range(N)], "x": numbers(N)})
    assert proposed(table).specs["photo"].kind == "image"
    assert brightness(table, "photo") == [20 * i for i in range(N)]


def test_the_way_out_of_files_that_are_not_there(tmp_path: Path) -> None:
    for i in range(N):
        picture(tmp_path / "a" / f"{i}.PNG", format="PNG")
    for written, message in (
        ("a/{i}.png", rf"there is {tmp_path}/a/0\.PNG, whose case differs"),
        ("C:\\a\\{i}.png", rf"as on another computer: write them relative to {tmp_path}"),
        ("/home/other/{i}.png", rf"as on another computer: write them relative to {tmp_path}"),
    ):
        table = write_table(tmp_path, {"photo": [written.format(i=i) for i in range(N)], "x": numbers(N)})
        with pytest.raises(DataError, match=message):
            proposed(table)


def test_reasons_name_what_is_in_the_cells(tmp_path: Path) -> None:
    dates = [f"2024-01-{i + 1:02}" for i in range(N)]
    table = write_table(tmp_path, {"when": dates, "photos": [["0.png", "1.png"]] * N, "x": numbers(N)})
    left = proposed(table).left
    assert left["when"].startswith("dates such as '2024-01-01' are not read; make numbers of them")
    assert left["photos"].startswith("lists of files such as '0.png' are not read")
    table = write_table(tmp_path, {"label": ["a", "b"] * (N // 2)})
    with pytest.raises(DataError, match=r"no column that is a modality \(label: it is the label\)"):
        proposed(table)
