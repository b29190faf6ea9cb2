"""NTU RGB+D: files matched by name, official splits, missing skeletons left out, damage named."""

import os
from collections import Counter
from pathlib import Path

import pytest
import torch

from lightning_mmnas.data.ntu import ACTIONS, SUBJECTS, Name, NTUDataModule, split_of
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, DatasetNotFoundError
from tests.data.columns.make_skeletons import write_skeleton
from tests.data.make_ntu import make_ntu

OFFICIAL = (
    Path(os.environ.get("MMNAS_LAYOUTS_DIR", Path(__file__).parents[3] / "shared" / "data" / "official_layouts"))
    / "ntu_rgbd"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ntu(tmp_path_factory.mktemp("ntu"))


@pytest.fixture
def skeletons(tmp_path: Path) -> Path:
    return make_ntu(tmp_path / "ntu", videos=False)


def module(root: Path, *modalities: str, **arguments: object) -> NTUDataModule:
    arguments = {"batch_size": 2, "video_frames": 4, "video_size": (8, 10), "skeleton_frames": 8, **arguments}
    return NTUDataModule(str(root), modalities=modalities or None, **arguments)  # type: ignore[arg-type]


def test_names_and_splits() -> None:
    name = Name.of("S001C002P003R002A013_rgb.avi")
    assert name == (1, 2, 3, 2, 13)
    assert str(name) == "S001C002P003R002A013"
    assert Name.of("readme.txt") is None
    assert sorted(subject for subjects in SUBJECTS.values() for subject in subjects) == list(range(1, 41))
    assert [len(subjects) for subjects in SUBJECTS.values()] == [16, 4, 20]
    assert len(set(ACTIONS)) == 60
    assert (ACTIONS[0], ACTIONS[42], ACTIONS[59]) == ("drink water", "falling down", "walking apart")
    assert [split_of(Name(1, c, 3, 1, 1), "cross_view") for c in (1, 2, 3)] == ["test", "train", "train"]
    assert [split_of(Name(1, c, 5, 1, 1), "cross_view") for c in (1, 2, 3)] == ["test", "val", "val"]
    with pytest.raises(DataError, match="subject 41"):
        split_of(Name(1, 1, 41, 1, 1), "cross_subject")


def test_both_modalities(root: Path) -> None:
    data = module(root)
    data.setup("fit")
    data.setup("test")
    batch = data.tensors("train")
    assert batch["skeleton"].shape == (12, 3, 8, 25, 2)
    assert batch["rgb"].shape == (12, 3, 4, 8, 10)
    assert batch["rgb"].dtype == torch.uint8
    assert {name: (spec.shape, spec.dtype) for name, spec in data.modalities.items()} == {
        name: (tuple(batch[name].shape[1:]), batch[name].dtype) for name in ("skeleton", "rgb")
    }
    assert batch["label"].tolist() == [0, 59] * 6  # sorted by setup, camera, subject, repetition, action
    second = (batch["skeleton"][..., 1] != 0).flatten(1).any(1)
    assert second.tolist() == [False, True] * 6
    assert {split: len(data.tensors(split)["label"]) for split in ("train", "val", "test")} == dict.fromkeys(
        ("train", "val", "test"), 12
    )
    assert data.label_counts("test")["walking apart"] == 6
    groups = data._part("train").groups
    assert groups is not None
    assert [*Counter(groups.tolist()).values()] == [3] * 4  # performances, seen by three cameras
    others = data._part("test").groups
    assert others is not None
    assert not {*groups.tolist()} & {*others.tolist()}, "a number is one performance in all splits"
    assert data.plot(data._part("train")[0]).axes
    assert {name: mean.shape for name, mean in data.modality_means().items()} == {
        name: spec.shape for name, spec in data.modalities.items()
    }


def test_cross_view(root: Path) -> None:
    data = module(root, "skeleton", protocol="cross_view")
    data.setup("fit")
    data.setup("test")
    assert [len(data._part(split)) for split in ("train", "val", "test")] == [16, 8, 12]


def test_skeletons_alone_need_no_videos_and_are_parsed_once(skeletons: Path) -> None:
    data = module(skeletons, "skeleton")
    data.setup("fit")
    cached = {path: path.stat().st_mtime_ns for path in (skeletons / ".mmnas").iterdir()}
    assert len(cached) == 24
    again = module(skeletons, "skeleton")
    again.setup("fit")
    assert {path: path.stat().st_mtime_ns for path in (skeletons / ".mmnas").iterdir()} == cached
    assert torch.equal(again.tensors("train")["skeleton"], data.tensors("train")["skeleton"])
    elsewhere = module(skeletons, "skeleton", cache_dir=str(skeletons / "other"))
    elsewhere.setup("validate")
    assert len(list((skeletons / "other").iterdir())) == 12
    with pytest.raises(DatasetNotFoundError, match=r"none of the folders nturgb\+d_rgb.*modalities \[skeleton\]"):
        module(skeletons).setup("fit")


def test_missing_skeletons_are_left_out(skeletons: Path) -> None:
    folder = skeletons / "nturgb+d_skeletons"
    write_skeleton(folder / "S001C001P001R001A001.skeleton", {}, 5, {})  # nobody in any frame
    data = module(skeletons, "skeleton")
    data.setup("fit")
    assert len(data._part("train")) == 11
    text = "302 of the captured samples ...\n\nS001C002P001R001A001\nS001C003P001R001A060\n"
    (skeletons / "NTU_RGBD_samples_with_missing_skeletons.txt").write_text(text)
    data = module(skeletons, "skeleton")
    data.setup("fit")
    assert len(data._part("train")) == 9
    own = skeletons / "own.txt"
    own.write_text("S001C002P004R001A001.skeleton\n")
    data = module(skeletons, "skeleton", missing_list=str(own))
    data.setup("fit")
    assert len(data._part("train")) == 10
    own.write_text("nothing\n")
    with pytest.raises(DataError, match=r"own.txt names no sample"):
        module(skeletons, "skeleton", missing_list=str(own)).setup("fit")
    with pytest.raises(DatasetNotFoundError, match=r"gone.txt; check data.init_args.missing_list"):
        module(skeletons, "skeleton", missing_list="gone.txt").setup("fit")


def test_damage_is_named_or_left_out(tmp_path: Path) -> None:
    root = make_ntu(tmp_path / "ntu")
    (root / "nturgb+d_skeletons" / "S001C001P001R001A001.skeleton").write_text("3\n1\n")
    videos = root / "nturgb+d_rgb_256x256_30"
    (videos / "S001C002P001R001A001_rgb.avi").write_bytes(b"")
    (videos / "S001C003P001R001A001_rgb.avi").unlink()
    with pytest.raises(DamagedFilesError) as caught:
        module(root).setup("fit")
    message = str(caught.value)
    assert message.startswith("3 damaged or missing")
    assert "A001.skeleton: it is cut short" in message
    assert "C002P001R001A001_rgb.avi: it is empty" in message
    assert "C003P001R001A001_rgb.avi: there is no such file" in message
    data = module(root, on_error="skip")
    with pytest.warns(UserWarning, match=r"3 damaged samples of the train split.*S001C001P001R001A001"):
        data.setup("fit")
    assert len(data._part("train")) == 9
    whole = (videos / "S001C001P004R001A001_rgb.avi").read_bytes()
    (videos / "S001C001P004R001A001_rgb.avi").write_bytes(whole[:6000] + bytes(len(whole) - 6000))
    with pytest.raises(DamagedFilesError, match=r"P004R001A001_rgb.avi"):
        module(root, "rgb", check="content").setup("fit")


def test_random_clips_are_for_training_and_stay_the_same(root: Path) -> None:
    first, second = (module(root, "rgb", sampling="random", seed=seed) for seed in (0, 0))
    centre = module(root, "rgb", sampling="centre")
    for data in (first, second, centre):
        data.setup("fit")
    assert torch.equal(first.tensors("train")["rgb"], second.tensors("train")["rgb"])
    assert torch.equal(first.tensors("train")["rgb"], first.tensors("train")["rgb"])
    assert not torch.equal(first.tensors("train")["rgb"], centre.tensors("train")["rgb"])
    assert torch.equal(first.tensors("val")["rgb"], centre.tensors("val")["rgb"])


def test_folders(skeletons: Path) -> None:
    (skeletons / "nturgb+d_skeletons").rename(skeletons / "nturgbd_skeletons")  # MFAS
    for name in ("nturgbd_rgb/avi_256x256_30", "nturgb+d_rgb"):
        (skeletons / name).mkdir(parents=True)
    module(skeletons, "skeleton").setup("fit")
    with pytest.raises(
        ConfigError, match=r"several folders of rgb: avi_256x256_30, nturgb.d_rgb; name one in .*video_dir"
    ):
        module(skeletons).setup("fit")
    with pytest.raises(DatasetNotFoundError, match=r"no folder .*elsewhere; check data.init_args.skeleton_dir"):
        module(skeletons, "skeleton", skeleton_dir="elsewhere").setup("fit")
    with pytest.raises(DatasetNotFoundError, match=r"rose1.ntu.edu.sg"):
        module(skeletons / "nowhere", "skeleton").setup("fit")


def test_impossible_arguments(tmp_path: Path) -> None:
    for arguments, message in (
        ({"protocol": "cross_setup"}, "protocol 'cross_setup' is not in"),
        ({"skeleton_frames": 0}, "skeleton_frames must be at least 1"),
        ({"video_frames": 0}, "frames=0"),
        ({"sampling": "some"}, "sampling 'some' is not in"),
    ):
        with pytest.raises(ConfigError, match=message):
            module(tmp_path, **arguments)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"no files in {OFFICIAL}; set MMNAS_LAYOUTS_DIR")
def test_the_published_list(tmp_path: Path) -> None:
    path = OFFICIAL / "NTU_RGBD_samples_with_missing_skeletons.txt"
    assert len(module(tmp_path, missing_list=str(path))._left_out()) == 302
    assert len(module(tmp_path, missing_list=str(OFFICIAL / "bad_skel.txt"))._left_out()) > 100
    data = NTUDataModule(
        str(OFFICIAL),
        skeleton_dir="nturgbd_skeletons_converted",
        modalities=["skeleton"],
        batch_size=2,
        cache_dir=str(tmp_path),
    )
    data.setup("fit")
    assert data.tensors("train")["skeleton"].shape == (3, 3, 32, 25, 2)
    assert data.tensors("train")["label"].tolist() == [0, 8, 21]
