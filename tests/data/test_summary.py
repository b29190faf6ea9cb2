"""What `summarise` finds out about a data set."""

from pathlib import Path

import pytest
import torch

from lightning_mmnas.data import TensorDataModule
from lightning_mmnas.data.summary import SplitSummary, summarise
from tests.data.file_toys import NumberFiles, make_files


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_files(tmp_path / "files")


def test_sizes_labels_groups_and_shapes(root: Path) -> None:
    seen: list[int] = []
    found = summarise(NumberFiles(str(root)), seen.append)
    assert found.modalities["number"] == {"kind": "features", "shape": [1], "dtype": "float32"}
    assert sum(seen) == 16
    assert found.splits["train"] == SplitSummary(
        samples=8, unlabelled=1, groups=3, labels={"even": 3, "odd": 4}, duplicates={"number": 0, "constant": 0}
    )
    assert [split.samples for split in found.splits.values()] == [8, 4, 4]
    # Rows 6 and 7 are of the same group as row 8; row 12 begins a new one.
    assert [(o.splits, o.modality, o.count) for o in found.overlaps] == [(("train", "val"), "group", 1)]
    assert not found.damaged
    assert not found.missing


def test_identical_files_within_and_between_splits(root: Path) -> None:
    for i in (1, 9, 13):
        (root / f"{i}.txt").write_text("7.5")  # as 7.txt
    found = summarise(NumberFiles(str(root)))
    assert found.splits["train"].duplicates["number"] == 2
    shared = {o.splits: o for o in found.overlaps if o.modality == "number"}
    assert set(shared) == {("train", "val"), ("train", "test"), ("val", "test")}
    overlap = shared["train", "test"]
    assert overlap.count == 1
    assert overlap.examples == [(str(root / "1.txt"), str(root / "13.txt"))]


def test_damage_hides_its_split_but_not_the_others(root: Path) -> None:
    (root / "9.txt").write_text("nine")
    (root / "10.txt").unlink()
    found = summarise(NumberFiles(str(root)))
    assert list(found.splits) == ["train", "test"]
    assert [Path(source).name for source, _ in found.damaged] == ["9.txt", "10.txt"]
    skipped = summarise(NumberFiles(str(root), on_error="skip"))
    assert skipped.splits["val"].samples == 2
    assert not skipped.damaged


def test_a_missing_split_and_multi_label_counts() -> None:
    labels = torch.tensor([[1, 0, 1], [-1, -1, -1], [0, 0, 1]])
    train = {"x": torch.randn(3, 2), "label": labels}
    found = summarise(TensorDataModule(train, train, kinds={"x": "features"}, class_names=["a", "b", "c"]))
    assert found.splits["train"].labels == {"a": 1, "b": 0, "c": 2}
    assert found.splits["train"].unlabelled == 1
    assert "no test split" in found.missing["test"]
    assert found.overlaps[0].count == 3
