"""`WatchDataModule` on the real recordings; skipped where seglearn is not installed."""

import importlib.machinery
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities import CombinedLoader

from lightning_mmnas.data import WatchDataModule, load_watch
from lightning_mmnas.errors import ConfigError, DataError, DatasetNotFoundError, MissingExtraError

needs_seglearn = pytest.mark.skipif(
    importlib.util.find_spec("seglearn") is None,
    reason="seglearn is not installed: pip install 'lightning-mmnas[demo]'",
)


def built(**arguments: Any) -> WatchDataModule:
    data = WatchDataModule(**arguments)
    data.setup("fit")
    data.setup("test")
    return data


def test_answers_before_setup() -> None:
    data = WatchDataModule(window=64)
    assert {name: spec.shape for name, spec in data.modalities.items()} == {
        "accelerometer": (3, 64),
        "gyroscope": (3, 64),
    }
    assert {spec.kind for spec in data.modalities.values()} == {"motion"}
    assert data.num_classes == 7
    assert data.task == "multiclass"
    assert data.class_names[0] == "PEN"
    assert all(not mean.any() for mean in data.modality_means().values())


@needs_seglearn
def test_recordings() -> None:
    recordings = load_watch()
    assert len(recordings.signals) == 140
    assert {signal.shape[1] for signal in recordings.signals} == {6}
    assert sorted(set(recordings.subjects)) == list(range(1, 11))
    # Every subject does every exercise with either arm.
    done = list(zip(recordings.subjects, recordings.exercises, strict=True))
    assert all(done.count((s, e)) == 2 for s in range(1, 11) for e in range(7))


@needs_seglearn
def test_windows_and_splits_by_subject() -> None:
    data = built()
    assert data.subjects == {"train": [1, 2, 3, 4, 5, 6], "val": [7], "test": [8, 9, 10]}
    counts = {split: sum(data.label_counts(split).values()) for split in ("train", "val", "test")}
    assert counts == {"train": 2055, "val": 405, "test": 1145}
    subjects = load_watch().subjects
    for split, chosen in data.subjects.items():
        groups = data._parts[split].groups
        assert groups is not None
        assert {subjects[group] for group in groups.tolist()} == set(chosen)


@needs_seglearn
def test_windows_are_the_recording_standardised_by_training_subjects() -> None:
    data = built()
    train, test = data.tensors("train"), data.tensors("test")
    for name in ("accelerometer", "gyroscope"):
        assert train[name].dtype == torch.float32
        std, mean = torch.std_mean(train[name].double(), dim=(0, 2))
        torch.testing.assert_close(mean, torch.zeros_like(mean), atol=1e-4, rtol=0)
        torch.testing.assert_close(std, torch.ones_like(std), atol=1e-4, rtol=0)
        # Were the test subjects standardised by themselves, this would be zero.
        assert test[name].mean((0, 2)).abs().max() > 0.01
    recordings = load_watch()
    first = recordings.subjects.index(8)
    groups = data._parts["test"].groups
    assert groups is not None
    second_window = int((groups == first).nonzero()[1])
    raw = torch.from_numpy(recordings.signals[first][64:192, :3]).T
    seen = test["accelerometer"][second_window].double()
    # An affine map per channel lies between the two: correlation 1.
    for channel in range(3):
        r = torch.corrcoef(torch.stack([raw[channel], seen[channel]]))[0, 1]
        assert r > 1 - 1e-6


@needs_seglearn
def test_test_windows_do_not_depend_on_what_was_set_up_before() -> None:
    alone = WatchDataModule()
    alone.setup("test")
    expected = built().tensors("test")
    for name, tensor in alone.tensors("test").items():
        assert torch.equal(tensor, expected[name])


@needs_seglearn
def test_architecture_parts_share_no_recording() -> None:
    data = WatchDataModule(labels=False, architecture_fraction=0.5)
    data.setup("fit")
    loader = data.train_dataloader()
    assert isinstance(loader, CombinedLoader)
    parts = {key: part.dataset for key, part in loader.iterables.items()}
    groups = {key: set(part.groups.tolist()) for key, part in parts.items()}
    assert not groups["weights"] & groups["architecture"]
    assert len(groups["weights"] | groups["architecture"]) == 84
    assert abs(len(parts["architecture"]) / 2055 - 0.5) < 0.01
    batch, _, _ = next(iter(loader))
    assert set(batch["weights"]) == {"accelerometer", "gyroscope"}


@needs_seglearn
def test_label_budgets() -> None:
    for budget in (5, 20):
        data = WatchDataModule(labels_per_class=budget, label_seed=3)
        data.setup("fit")
        assert set(data.label_counts("train").values()) == {budget}


@needs_seglearn
def test_folds() -> None:
    data = built(folds=5, fold=4)
    assert data.subjects == {"train": [2, 3, 4, 5, 6, 7, 8], "val": [1], "test": [9, 10]}
    sizes = [sum(data.label_counts(split).values()) for split in ("train", "val", "test")]
    assert sum(sizes) == 3605


@needs_seglearn
def test_window_longer_than_any_recording() -> None:
    with pytest.raises(DataError, match="no recording is as long as window=5000"):
        built(window=5000)


@pytest.mark.parametrize("arguments", [{"window": 7}, {"stride": 0}])
def test_bad_windows(arguments: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="window must be at least 8 and stride at least 1"):
        WatchDataModule(**arguments)  # type: ignore[arg-type]


def test_unknown_modality() -> None:
    with pytest.raises(DataError, match=r"modality 'acc' is not in \['accelerometer', 'gyroscope'\]; check data"):
        WatchDataModule(modalities=["acc"])


def pretend_seglearn(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    spec = None
    if folder is not None:
        spec = importlib.machinery.ModuleSpec("seglearn", None, origin=str(folder / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


def test_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_seglearn(monkeypatch, None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lightning-mmnas\[demo\]'"):
        load_watch()


def test_missing_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_seglearn(monkeypatch, tmp_path)
    with pytest.raises(DatasetNotFoundError, match=r"watch_dataset.npy is missing"):
        load_watch()


def test_changed_file_is_not_unpickled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pretend_seglearn(monkeypatch, tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "watch_dataset.npy").write_bytes(b"not the recordings")
    monkeypatch.setattr("numpy.load", lambda *_, **__: pytest.fail("was opened"))
    with pytest.raises(DataError, match="it was not opened"):
        load_watch()
