"""EgoGesture: gestures of the annotation, frames of RGB and depth, damage named."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_mmnas.data.egogesture import ANNOTATION, EgoGestureDataModule, read_annotation
from lightning_mmnas.errors import DamagedFilesError, DatasetNotFoundError
from tests.data.make_egogesture import LABELS, make_egogesture

OFFICIAL = (
    Path(os.environ.get("MMNAS_LAYOUTS_DIR", Path(__file__).parents[3] / "shared" / "data" / "official_layouts"))
    / "egogesture"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_egogesture(tmp_path / "ego")


def module(root: Path, **arguments: Any) -> EgoGestureDataModule:
    return EgoGestureDataModule(str(root), **{"frames": 4, "size": (8, 10), "batch_size": 2, **arguments})


def test_clips_of_both_modalities(root: Path) -> None:
    data = module(root)
    assert data.class_names == list(LABELS)
    assert data.num_classes == 2
    data.setup("fit")
    data.setup("test")
    batch = data.tensors("train")
    assert {name: (spec.shape, spec.dtype) for name, spec in data.modalities.items()} == {
        name: (tuple(batch[name].shape[1:]), batch[name].dtype) for name in ("rgb", "depth")
    }
    assert batch["rgb"].shape == (8, 3, 4, 8, 10)
    assert batch["depth"].shape == (8, 1, 4, 8, 10)
    grey = (batch["rgb"].float() * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1, 1)).sum(1, keepdim=True)
    assert (grey - batch["depth"].float()).abs().mean() < 4  # the same moments of the same recording
    assert batch["label"].tolist() == [0, 1] * 4
    assert [len(data._part(split)) for split in ("train", "val", "test")] == [8, 4, 4]
    groups = data._part("train").groups
    assert groups is not None
    assert groups.tolist() == [groups[0]] * 4 + [groups[4]] * 4
    others = data._part("val").groups
    assert others is not None
    assert not {*groups.tolist()} & {*others.tolist()}, "a number is one recording in all splits"
    assert data.plot(data._part("train")[0]).axes
    assert module(root, modalities=["depth"]).modalities.keys() == {"depth"}


def test_images_may_lie_one_folder_deeper(root: Path) -> None:
    (root / "images").mkdir()
    for path in root.glob("Subject*"):
        path.rename(root / "images" / path.name)
    data = module(root)
    data.setup("fit")
    assert len(data._part("train")) == 8


def test_random_clips_are_for_training(root: Path) -> None:
    random_, centre = module(root, sampling="random", frames=2), module(root, sampling="centre", frames=2)
    random_.setup("fit")
    centre.setup("fit")
    assert not torch.equal(random_.tensors("train")["rgb"], centre.tensors("train")["rgb"])
    assert torch.equal(random_.tensors("train")["rgb"], random_.tensors("train")["rgb"])
    assert torch.equal(random_.tensors("val")["rgb"], centre.tensors("val")["rgb"])


def test_damage_is_named_or_left_out(root: Path) -> None:
    (root / "Subject03/Scene1/Color/rgb1/000002.jpg").unlink()
    (root / "Subject03/Scene1/Depth/depth2/000007.jpg").write_bytes(b"")
    with pytest.raises(
        DamagedFilesError, match=r"(?s)2 damaged.*rgb1/000002.jpg: there is no.*000007.jpg: it is empty"
    ):
        module(root).setup("fit")
    data = module(root, on_error="skip")
    with pytest.warns(UserWarning, match=r"2 damaged samples of the train split are left out: .*Subject03"):
        data.setup("fit")
    assert len(data._part("train")) == 6
    (root / "Subject03/Scene1/Color/rgb1/000011.jpg").write_bytes(b"no picture")
    data = module(root, on_error="skip", check="content")
    with pytest.warns(UserWarning, match="3 damaged samples"):
        data.setup("fit")


def test_missing_data_say_what_to_do(tmp_path: Path, root: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"there is no .*nlpr.ia.ac.cn.*academic.*Real-time-GesRec"):
        _ = module(tmp_path / "nowhere").class_names
    (tmp_path / "empty").mkdir()
    (root / ANNOTATION).rename(tmp_path / "empty" / ANNOTATION)
    with pytest.raises(DatasetNotFoundError, match="has folders Subject01, Subject02"):
        module(tmp_path / "empty").setup("fit")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subset": "spare"}, "KeyError: 'spare'"),
        ({"annotations": {"label": "Unknown", "start_frame": "1.0", "end_frame": "2.0"}}, "KeyError: 'Unknown'"),
        ({"annotations": {"label": LABELS[0], "start_frame": "x", "end_frame": "2.0"}}, "ValueError"),
        ({"annotations": {"label": LABELS[0], "start_frame": "5.0", "end_frame": "2.0"}}, "5 to 2 are no range"),
        ({"annotations": {"label": LABELS[0], "start_frame": "nan", "end_frame": "2.0"}}, "nan to 2 are no range"),
        ({"annotations": [1]}, "TypeError"),
    ],
)
def test_wrong_entries_are_named(root: Path, change: dict[str, Any], reason: str) -> None:
    path = root / ANNOTATION
    content = json.loads(path.read_text())
    content["database"]["Subject03/Scene1/Color/rgb1_2"] |= change
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFilesError, match=rf"{ANNOTATION}, 'Subject03/Scene1/Color/rgb1_2': .*{reason}"):
        read_annotation(path)


def test_keys_stay_below_the_root(root: Path) -> None:
    path = root / ANNOTATION
    content = json.loads(path.read_text())
    content["database"]["../../Color/rgb1"] = next(iter(content["database"].values()))
    path.write_text(json.dumps(content))
    with pytest.raises(DamagedFilesError, match="the key is not like"):
        read_annotation(path)


def test_damaged_annotations(root: Path) -> None:
    """Each is either read, or refused by name."""
    path = root / ANNOTATION
    whole = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        if generator.random() < 0.3:
            content = content[: generator.randrange(len(content))]
        for _ in range(generator.randrange(8) if content else 0):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            read_annotation(path)
        except DamagedFilesError as error:
            refused += error.files[0][0].startswith(str(path))
    assert refused > 120


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"no files in {OFFICIAL}; set MMNAS_LAYOUTS_DIR")
def test_the_published_annotation() -> None:
    names, clips = read_annotation(OFFICIAL / ANNOTATION)
    assert len(names) == 83
    sizes = {split: sum(clip.split == split for clip in clips) for split in ("train", "val", "test")}
    assert sizes == {"train": 14416, "val": 4768, "test": 4977}
    assert clips[1] == ("Subject03/Scene1/Color/rgb1_1", 296, 356, names.index("Scroll_hand_backward"), "train")
    # The text lists beside it say the same.
    lines = (OFFICIAL / "trainlistall_but_None.txt").read_text().splitlines()
    listed = {(folder, *(float(number) for number in numbers)) for folder, *numbers in map(str.split, lines) if numbers}
    assert listed == {(c.folder, c.label + 1, c.first, c.last) for c in clips if c.split == "train"}
