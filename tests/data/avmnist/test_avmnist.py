"""AV-MNIST's layouts, splits, groups and damage."""

import json
import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_mmnas import AVMNISTDataModule
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, DatasetNotFoundError
from tests.data.avmnist.make_avmnist import make_avmnist

SHARED = Path(os.environ.get("MMNAS_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))
LAYOUT = SHARED / "official_layouts" / "avmnist"


def build(root: Path, stage: str = "fit", **options: object) -> AVMNISTDataModule:
    data = AVMNISTDataModule(str(root), batch_size=4, **options)  # type: ignore[arg-type]
    data.setup(stage)
    return data


@pytest.mark.parametrize("images", ["images", "image"])
def test_values_are_those_of_the_files(images: str, tmp_path: Path) -> None:
    data = build(make_avmnist(tmp_path, images=images))
    pictures = np.load(tmp_path / images / "train_data.npy")
    sounds = np.load(tmp_path / "audio" / "train_data.npy")
    train, val = data.tensors("train"), data.tensors("val")
    assert len(train["label"]) == 55  # all but a twelfth
    assert len(val["label"]) == 5
    assert torch.equal(train["image"], torch.from_numpy(pictures[:55]).reshape(-1, 1, 28, 28) * (1 / 255))
    assert torch.equal(val["audio"], torch.from_numpy(sounds[55:]).reshape(-1, 1, 112, 112).float() * (1 / 255))
    assert train["label"].tolist() == [i % 10 for i in range(55)]
    data.setup("test")
    assert len(data.tensors("test")["label"]) == 20
    assert {name: tuple(train[name].shape[1:]) for name in data.modalities} == {
        name: spec.shape for name, spec in data.modalities.items()
    }


def test_answers_before_setup_need_no_files() -> None:
    data = AVMNISTDataModule("nowhere")
    assert data.class_names == [str(i) for i in range(10)]
    assert data.task == "multiclass"
    assert data.num_classes == 10
    with pytest.raises(DatasetNotFoundError, match=r"nowhere.*train_labels.*mmnas prepare avmnist.*mfas.*Consortium"):
        data.setup("fit")


def test_the_size_of_the_validation_split(tmp_path: Path) -> None:
    make_avmnist(tmp_path)
    assert len(build(tmp_path, val_size=20).tensors("val")["label"]) == 20
    (tmp_path / "manifest.json").write_text(json.dumps({"val_size": 7}))
    assert len(build(tmp_path).tensors("val")["label"]) == 7
    assert len(build(tmp_path, val_size=20).tensors("val")["label"]) == 20
    with pytest.raises(DataError, match=r"val_size=60, but .* has 60 training samples"):
        build(tmp_path, val_size=60)
    with pytest.raises(ConfigError, match="val_size must be at least 1, got 0"):
        build(tmp_path, val_size=0)
    (tmp_path / "manifest.json").write_text("{}")
    with pytest.raises(DamagedFilesError, match=r"manifest\.json: no number val_size"):
        build(tmp_path)


def test_an_architecture_split_never_divides_a_recording(tmp_path: Path) -> None:
    make_avmnist(tmp_path)
    recordings = np.arange(60) // 3
    np.save(tmp_path / "train_pairs.npy", np.stack([np.arange(60), recordings], axis=1))
    data = build(tmp_path, architecture_fraction=0.5, labels=False)
    loaders = data.train_dataloader().iterables  # type: ignore[union-attr]
    groups = {name: set(loader.dataset.groups.tolist()) for name, loader in loaders.items()}
    assert groups["weights"]
    assert groups["architecture"]
    assert not groups["weights"] & groups["architecture"]
    np.save(tmp_path / "train_pairs.npy", np.zeros((59, 2), np.int32))
    with pytest.raises(DamagedFilesError, match=r"train_pairs\.npy: int32 numbers of shape \(59, 2\)"):
        build(tmp_path)


def test_damaged_samples_are_named_or_left_out(tmp_path: Path) -> None:
    make_avmnist(tmp_path)
    images, labels = tmp_path / "images" / "train_data.npy", tmp_path / "train_labels.npy"
    pictures = np.load(images)
    pictures[3, 5] = np.nan
    np.save(images, pictures)
    wrong = np.load(labels).astype(np.float64)
    wrong[[7, 8, 9]] = [10, 2.5, np.nan]
    np.save(labels, wrong)
    with pytest.raises(DamagedFilesError) as caught:
        build(tmp_path)
    message = str(caught.value)
    assert "4 damaged" in message
    assert f"{images}, row 3: it holds NaN" in message
    assert f"{labels}, row 7: label 10 is not a digit" in message
    with pytest.warns(UserWarning, match=r"4 damaged samples of the train split are left out: .*row 3"):
        data = build(tmp_path, on_error="skip")
    kept = data.tensors("train")
    assert len(kept["label"]) == 51
    assert torch.equal(kept["image"][3], torch.from_numpy(pictures[4]).reshape(1, 28, 28) * (1 / 255))


def test_only_what_is_used_is_read(tmp_path: Path) -> None:
    make_avmnist(tmp_path)
    sounds = np.full((60, 112, 112), np.nan, np.float32)
    np.save(tmp_path / "audio" / "train_data.npy", sounds)
    assert set(build(tmp_path, modalities=["image"]).tensors("train")) == {"image", "label"}


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    make_avmnist(tmp_path)
    np.save(tmp_path / "train_labels.npy", np.zeros(59, np.int64))
    with pytest.raises(DataError, match=r"do not belong together, .*train_labels\.npy': 59"):
        build(tmp_path)
    np.save(tmp_path / "train_labels.npy", np.zeros((60, 2), np.int64))
    with pytest.raises(DamagedFilesError, match=r"train_labels\.npy: labels of shape \(60, 2\)"):
        build(tmp_path)


def test_random_damage_is_reported_or_harmless(tmp_path: Path) -> None:
    make_avmnist(tmp_path, train=24, test=2)
    files = [tmp_path / "images" / "train_data.npy", tmp_path / "audio" / "train_data.npy"]
    files += [tmp_path / "train_labels.npy"]
    draw, reported, harmless = random.Random(0), 0, 0
    for _ in range(200):
        path = draw.choice(files)
        content = path.read_bytes()
        damaged = bytearray(content)
        if draw.random() < 0.5:
            del damaged[draw.randrange(len(damaged)) :]
        else:
            for _ in range(draw.randrange(1, 10)):
                damaged[draw.randrange(min(len(damaged), draw.choice([128, 10**6])))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            data = build(tmp_path)
            batch = data.tensors("train")
        except DataError as error:
            reported += re.search(re.escape(str(path)), str(error)) is not None
        else:
            harmless += 1
            assert batch["image"].shape == (22, 1, 28, 28)
            assert all(torch.isfinite(batch[name]).all() for name in ("image", "audio"))
        path.write_bytes(content)
    assert reported + harmless == 200
    assert reported > 20


@pytest.mark.skipif(not LAYOUT.is_dir(), reason=f"no folder {LAYOUT}; set MMNAS_SHARED_DATA")
def test_the_official_layout() -> None:
    data = build(LAYOUT)
    assert sum(data.label_counts("train").values()) == 184
    assert sum(data.label_counts("val").values()) == 16
    sample = data.tensors("val")
    assert 0 <= sample["audio"].min() < sample["audio"].max() <= 1
    assert data.modality_means()["image"].shape == (1, 28, 28)
