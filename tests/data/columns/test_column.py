"""Columns: what is read from files, what is checked, and how damage is reported."""

import pickle
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import ColumnSamples, FileColumn, SelectedColumn, TensorColumn, usable_rows
from lightning_mmnas.data.samples import Part
from lightning_mmnas.data.spec import ModalitySpec, Vocabulary
from lightning_mmnas.errors import DamagedFilesError, DataError


def number(path: Path) -> Tensor:
    return torch.tensor([float(path.read_text())])


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{i}.txt" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_text(str(i))
    return paths


def test_a_batch_reads_only_what_is_asked_for(files: list[Path]) -> None:
    def never(path: Path) -> Tensor:
        raise AssertionError(path)

    samples = ColumnSamples({"a": FileColumn(files, number), "b": FileColumn(files, never)}, torch.arange(5))
    part = Part(samples, torch.tensor([3, 1]), ["a"], labels=True)
    batch = part.__getitems__([0, 1])
    assert batch["a"].tolist() == [[3.0], [1.0]]
    assert batch["label"].tolist() == [3, 1]
    assert part[1]["a"].item() == 1.0


def test_damage_is_named_and_counted_or_skipped(files: list[Path]) -> None:
    files[1].write_text("")
    files[2].unlink()
    files[3].write_text("nan")
    columns = {"a": FileColumn(files, number), "b": TensorColumn(torch.zeros(5, 2), "table.csv")}
    with pytest.raises(DamagedFilesError) as caught:
        usable_rows(columns, "raise")
    message = str(caught.value)
    assert message.startswith("3 damaged or missing file(s):")
    assert f"{files[1]}: ValueError: could not convert" in message
    assert f"{files[2]}: there is no such file" in message
    assert f"{files[3]}: it holds NaN or infinity" in message
    assert usable_rows(columns, "skip").tolist() == [0, 4]
    warning = r"3 damaged samples of the val split are left out: .*1\.txt: ValueError.*2\.txt: there is no such file"
    with pytest.warns(UserWarning, match=warning):
        usable_rows(columns, "skip", "val")
    assert str(pickle.loads(pickle.dumps(caught.value))) == message  # from a loader's worker


def counted(path: Path, how: object = None) -> Tensor:
    READ.append(path)
    return number(path)


READ: list[Path] = []


def test_a_file_that_was_whole_is_read_again_only_when_it_changes(files: list[Path]) -> None:
    READ.clear()
    for rows in (range(5), [3, 1]):
        column = SelectedColumn(FileColumn(files, counted), list(rows))
        for _ in range(2):
            assert len(usable_rows({"a": column}, "raise")) == len(rows)
    assert files == READ
    usable_rows({"a": FileColumn(files, partial(counted, how=2))}, "raise")  # read in another way
    assert files * 2 == READ
    files[2].write_text("broken")
    for _ in range(2):  # damage is looked for each time
        with pytest.raises(DamagedFilesError, match=r"1 damaged .*\n.*2\.txt"):
            usable_rows({"a": FileColumn(files, counted)}, "raise")
    files[4].unlink()
    with pytest.raises(DamagedFilesError, match="2 damaged"):
        usable_rows({"a": FileColumn(files, counted)}, "raise")
    assert [*files * 2, *[files[2]] * 3] == READ


def test_functions_that_nothing_tells_apart_are_not_remembered(files: list[Path]) -> None:
    class Decoder:
        def __call__(self, path: Path) -> Tensor:
            return counted(path)

    READ.clear()
    for decode in (lambda path: counted(path), Decoder(), partial(counted, how=Decoder()), Decoder().__call__):
        for _ in range(2):
            FileColumn(files[:1], decode).check(0)
    assert files[:1] * 8 == READ


def test_of_many_samples_some_are_read_and_the_others_are_there(files: list[Path]) -> None:
    files[1].write_text("broken")
    files[3].unlink()
    READ.clear()
    assert usable_rows({"a": FileColumn(files, counted)}, "skip", most=2).tolist() == [0, 1, 2, 4]
    assert [files[0], files[2]] == READ
    assert usable_rows({"a": FileColumn(files, counted)}, "skip", most=5).tolist() == [0, 2, 4]


def test_only_the_first_files_are_named() -> None:
    error = DamagedFilesError([(f"{i}.jpg", "empty") for i in range(12)])
    assert "12 damaged" in str(error)
    assert "9.jpg" in str(error)
    assert "10.jpg" not in str(error)
    assert "and 2 more" in str(error)


def test_fingerprint_and_digest_follow_the_file(files: list[Path]) -> None:
    files[1].write_text("0")
    column = FileColumn(files, number)
    assert column.digest(0) == column.digest(1) != column.digest(2)
    before = list(ColumnSamples({"a": column}).fingerprint())
    files[0].write_text("00")
    after = list(ColumnSamples({"a": column}).fingerprint())
    assert before[0] != after[0]
    assert before[1:] == after[1:]


def scaled(path: Path, factor: float) -> Tensor:
    return factor * number(path)


def test_fingerprint_knows_how_a_file_is_read(files: list[Path]) -> None:
    twice, thrice = (FileColumn(files, partial(scaled, factor=factor)) for factor in (2.0, 3.0))
    assert twice.fingerprint(0) == FileColumn(files, partial(scaled, factor=2.0)).fingerprint(0)
    assert len({twice.fingerprint(0), thrice.fingerprint(0), FileColumn(files, number).fingerprint(0)}) == 3


def test_means_are_in_the_unit_of_the_views() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    ids = torch.full((2, 3), 7)
    samples = ColumnSamples({"image": TensorColumn(pixels, "x"), "text": TensorColumn(ids, "x")})
    means = samples.means(
        {
            "image": ModalitySpec("image", (1, 1, 1), torch.uint8),
            "text": ModalitySpec("text", (3,), torch.long, Vocabulary(size=9, pad=4)),
        }
    )
    assert means["image"].item() == 0.5
    assert means["text"].tolist() == [4, 4, 4]


def test_lengths_must_agree() -> None:
    with pytest.raises(DataError, match="same number of samples"):
        ColumnSamples({"a": TensorColumn(torch.zeros(2), "a")}, torch.zeros(3))
