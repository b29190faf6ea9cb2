"""Skeleton text is parsed once and strictly; samples have one shape."""

import os
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_mmnas.data.columns import skeletons
from lightning_mmnas.data.columns.skeletons import (
    SkeletonColumn,
    parse_skeleton,
    prepare_skeleton,
    read_joints,
    to_joints,
)
from lightning_mmnas.errors import ConfigError, DamagedFilesError
from tests.data.columns.make_skeletons import moving_body, write_skeleton

OFFICIAL = (
    Path(os.environ.get("MMNAS_LAYOUTS_DIR", Path(__file__).parents[4] / "shared" / "data" / "official_layouts"))
    / "ntu_rgbd"
)


def write(path: Path, *motions: float, frames: int = 10, seen: dict[int, range] | None = None) -> Path:
    bodies = {72057594037931101 + i: moving_body(frames, i, motion) for i, motion in enumerate(motions)}
    write_skeleton(path, bodies, frames, {72057594037931101 + i: r for i, r in (seen or {}).items()})
    return path


def test_one_body(tmp_path: Path) -> None:
    values = parse_skeleton(write(tmp_path / "a.skeleton", 0.3))
    assert values.shape == (3, 10, 25, 1)
    assert values.dtype == np.float32
    np.testing.assert_allclose(values[..., 0].transpose(1, 2, 0), moving_body(10).numpy(), atol=1e-6)


def test_the_two_bodies_that_move_most(tmp_path: Path) -> None:
    # Ids that differ by 1 are the same number in float64.
    values = parse_skeleton(write(tmp_path / "a.skeleton", 0.1, 0.9, 0.5))
    assert values.shape == (3, 10, 25, 2)
    np.testing.assert_allclose(values[..., 0].transpose(1, 2, 0), moving_body(10, 1, 0.9).numpy(), atol=1e-6)
    np.testing.assert_allclose(values[..., 1].transpose(1, 2, 0), moving_body(10, 2, 0.5).numpy(), atol=1e-6)


def test_bodies_come_and_go(tmp_path: Path) -> None:
    path = write(tmp_path / "a.skeleton", 0.5, 0.2, seen={0: range(2, 10), 1: range(4, 6)})
    values = parse_skeleton(path)
    assert (values != 0).any((0, 2)).sum(0).tolist() == [8, 2]
    sample = prepare_skeleton(torch.from_numpy(values), 10)
    origin = torch.from_numpy(values[:, 2, 1, 0])
    first, second = moving_body(10, 0, 0.5), moving_body(10, 1, 0.2)
    wanted = torch.stack([first[[2, 2, *range(2, 10)]], second[[4, 4, 4, 4, 4, 5, 5, 5, 5, 5]]], dim=-1)
    torch.testing.assert_close(sample, wanted.permute(2, 0, 1, 3) - origin.view(3, 1, 1, 1), atol=1e-5, rtol=0)


def test_no_body_at_all(tmp_path: Path) -> None:
    path = write(tmp_path / "a.skeleton", frames=3)
    assert parse_skeleton(path).shape == (3, 3, 25, 0)
    with pytest.raises(DamagedFilesError, match=r"a.skeleton: no frame has a body"):
        SkeletonColumn([path], 8).read(0)


def test_time_is_resampled_linearly() -> None:
    joints = torch.arange(1.0, 6.0).view(1, 5, 1, 1).expand(3, 5, 4, 1)
    sample = prepare_skeleton(joints, 9)
    assert sample.shape == (3, 9, 4, 2)
    torch.testing.assert_close(sample[0, :, 0, 0], torch.arange(9) / 2)
    assert sample[..., 1].abs().max() == 0  # nobody there
    assert prepare_skeleton(joints[:, :1], 4).shape == (3, 4, 4, 2)


def test_the_centre() -> None:
    joints = 1 + torch.rand(3, 6, 25, 2)
    sample = prepare_skeleton(joints, 6)
    assert sample[:, 0, skeletons.SPINE, 0].abs().max() == 0
    torch.testing.assert_close(sample, joints - joints[:, :1, 1:2, :1])
    assert prepare_skeleton(joints, 6, centre=None)[:, 0, :, 0].mean(1).abs().max() < 1e-6


def test_text_is_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [write(tmp_path / f"{i}.skeleton", 0.3 + i) for i in range(3)]
    calls: list[Path] = []

    def counted(path: Path) -> object:
        calls.append(path)
        return parse_skeleton(path)

    monkeypatch.setattr(skeletons, "parse_skeleton", counted)
    cache = tmp_path / "cache"
    plain, column = SkeletonColumn(paths, 8), SkeletonColumn(paths, 8, cache)
    samples = [plain.read(i) for i in range(3)]
    calls.clear()
    column.read(1)  # a build that was interrupted
    for again in (column, SkeletonColumn(paths, 8, cache)):
        assert all(torch.equal(again.read(i), samples[i]) for i in range(3))
    assert sorted(calls) == paths
    assert len(list(cache.iterdir())) == 3
    for stored in cache.iterdir():
        stored.write_bytes(stored.read_bytes()[:99])  # a damaged cache is no damage to the data
    assert torch.equal(SkeletonColumn(paths, 8, cache).read(2), samples[2])
    calls.pop()
    write(paths[0], 0.9, frames=12)
    assert not torch.equal(column.read(0), samples[0])
    assert len(calls) == 4


def test_fingerprints(tmp_path: Path) -> None:
    path = write(tmp_path / "a.skeleton", 0.3)
    before = SkeletonColumn([path], 8).fingerprint(0)
    assert SkeletonColumn([path], 8).fingerprint(0) == before
    assert SkeletonColumn([path], 8, centre=None).fingerprint(0) != before
    write(path, 0.3, frames=11)
    assert SkeletonColumn([path], 8).fingerprint(0) != before
    assert "missing" in SkeletonColumn([tmp_path / "b.skeleton"], 8).fingerprint(0)


def test_arrays_of_joints(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, moving_body(7).double().numpy())
    assert read_joints(path).shape == (3, 7, 25, 1)
    assert SkeletonColumn([path], 8).read(0).shape == (3, 8, 25, 2)
    np.save(path, np.ones((7, 17, 3, 4)))
    assert SkeletonColumn([path], 8, joints=17, centre=None, bodies=1).read(0).shape == (3, 8, 17, 1)
    with pytest.raises(DamagedFilesError, match=r"a.npy: it has 17 joints instead of 25"):
        SkeletonColumn([path], 8).read(0)
    for wrong, reason in (
        (np.ones((7, 75)), r"shape \(7, 75\) instead of"),
        (np.full((7, 25, 3), np.nan), "NaN"),
        (np.full((7, 25, 3), 1e300), "infinity"),
        (np.ones((0, 25, 3)), r"shape \(0, 25, 3\)"),
        (np.array(["x"]), "no numbers"),
    ):
        np.save(path, wrong)
        with pytest.raises(DamagedFilesError, match=f"a.npy: .*{reason}"):
            SkeletonColumn([path], 8).read(0)


def test_skeletons_in_a_picture_have_a_third_coordinate_of_zero() -> None:
    flat = np.random.default_rng(0).normal(size=(6, 17, 2))
    found = to_joints(flat, "a")
    assert np.array_equal(found, np.concatenate([flat, np.zeros((6, 17, 1))], 2).transpose(2, 0, 1)[..., None])
    assert np.array_equal(to_joints(flat.transpose(2, 0, 1), "a", "ctj"), found)
    with pytest.raises(DamagedFilesError, match=r"25 coordinates instead of 2 or 3; if it is 50 .* set axes: ctj"):
        to_joints(np.zeros((3, 50, 25)), "a")


def test_places_on_a_map_keep_their_motion() -> None:
    steps = np.random.default_rng(0).normal(size=(6, 17, 3)) * 0.01
    found = prepare_skeleton(torch.from_numpy(to_joints(5_400_000 + steps, "a")), 6, centre=None, bodies=1)
    wanted = torch.from_numpy(steps - steps[0].mean(0)).permute(2, 0, 1)
    torch.testing.assert_close(found[..., 0], wanted.float(), atol=1e-5, rtol=0)


def test_trembling_does_not_become_a_sway() -> None:
    tremble = np.sin(2 * np.pi * 60 * np.arange(500) / 500)[:, None, None] + np.full((500, 4, 3), 3)
    joints = torch.from_numpy(to_joints(tremble, "a"))
    assert prepare_skeleton(joints, 64, None, 1)[:, 4:-4].abs().max() > 0.9  # as 3D networks sample NTU
    assert prepare_skeleton(joints, 64, None, 1, smooth=True)[:, 4:-4].abs().max() < 0.05


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: "", "it is empty"),
        (lambda text: "0\n", "it has no frame"),
        (lambda text: text[: len(text) // 2], "it is cut short: it ends in frame"),
        (lambda text: text.replace("\n", "\n0\n", 1), r"numbers follow|cut short|instead of 25"),
        (lambda text: text + "1\n", "1 numbers follow the last of 10 frames"),
        (lambda text: text.replace("10\n", "ten\n", 1), "the number of frames is 'ten'"),
        (lambda text: text.replace("\n1\n", "\n7\n", 1), "bodies of frame 1 is '7'"),
        (lambda text: text.replace("\n25\n", "\n24\n", 1), "frame 1 has '24' joints"),
        (lambda text: text.replace("277.419", "277.4x9", 1), "frame 1: could not convert string to float"),
        (lambda text: re.sub(r"\n25\n\S+", "\n25\nnan", text, count=1), "frame 1 is NaN or further"),
        (lambda text: re.sub(r"\n25\n\S+", "\n25\n1e9", text, count=1), "frame 1 is NaN or further"),
        (lambda text: "\ufeff" + text, "byte 0 is not text"),
    ],
)
def test_malformed_text_is_named(tmp_path: Path, change: object, reason: str) -> None:
    path = write(tmp_path / "a.skeleton", 0.3)
    assert callable(change)
    path.write_text(change(path.read_text()), encoding="utf-8")
    with pytest.raises(DamagedFilesError, match=f"a.skeleton: .*({reason})"):
        parse_skeleton(path)


def test_damaged_texts(tmp_path: Path) -> None:
    """Each is either read to finite joints, or refused by name."""
    path = write(tmp_path / "a.skeleton", 0.3, 0.2, frames=4)
    whole = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        if generator.random() < 0.5:
            content = content[: generator.randrange(len(content))]
        for _ in range(generator.randrange(6) if content else 0):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            sample = SkeletonColumn([path], 8).read(0)
        except DamagedFilesError as error:
            refused += error.files[0][0] == str(path)
        else:
            assert sample.shape == (3, 8, 25, 2)
            assert sample.isfinite().all()
    assert refused > 150


def test_impossible_shapes_are_refused() -> None:
    with pytest.raises(ConfigError, match="frames=0"):
        SkeletonColumn([], 0)
    with pytest.raises(ConfigError, match="centre=25"):
        SkeletonColumn([], 8, centre=25)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason=f"no files in {OFFICIAL}; set MMNAS_LAYOUTS_DIR")
def test_files_in_the_official_layout() -> None:
    paths = sorted(OFFICIAL.glob("*/*.skeleton"))
    column = SkeletonColumn(paths, 32)
    for i in range(len(paths)):
        sample = column.read(i)
        assert sample.shape == (3, 32, 25, 2)
        assert 0.5 < float(sample[1, :, :, 0].max() - sample[1, :, :, 0].min()) < 3  # metres
