"""The converter of the collected files: what it writes is what `mmnas prepare avmnist` reads, splits included."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_mmnas.data.avmnist.mnist import read_mnist
from lightning_mmnas.data.avmnist.prepare import find_recordings, prepare_avmnist

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "avmnist_fsdd.py"


def test_splits_survive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    split = random.permutation(np.repeat([0, 1, 2], [110, 10, 20])).astype(np.uint8)
    images = random.integers(0, 256, (140, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 10, 140).astype(np.uint8)
    np.savez(tmp_path / "avmnist_images.npz", images=images, labels=labels, image_split=split)
    digit, take = (a.ravel() for a in np.meshgrid(np.arange(10), [0, 7, 30], indexing="ij"))
    lengths = random.integers(1000, 3000, 30)
    np.savez(
        tmp_path / "avmnist_audio.npz",
        waveforms=random.integers(-9000, 9000, lengths.sum()).astype(np.int16),
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        digit=digit,
        speaker=np.zeros(30, np.int64),
        speaker_names=np.array(["theo"]),
        take=take,
        sample_rate=8000,
    )
    monkeypatch.setattr(sys, "argv", ["avmnist_fsdd", str(tmp_path), str(tmp_path / "raw")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    train, test = (read_mnist(tmp_path / "raw" / "mnist", part) for part in ("train", "t10k"))
    assert np.array_equal(train.images, np.concatenate([images[split == 0], images[split == 1]]))
    assert np.array_equal(test.labels, labels[split == 2])
    recordings = find_recordings(tmp_path / "raw" / "fsdd")
    assert [(r.digit, r.split) for r in recordings[:3]] == [(0, "test"), (0, "train"), (0, "val")]
    output = prepare_avmnist(tmp_path / "raw" / "mnist", tmp_path / "raw" / "fsdd", tmp_path / "out")
    assert json.loads((output / "manifest.json").read_text())["samples"] == {"train": 110, "val": 10, "test": 20}
