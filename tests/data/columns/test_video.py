"""Clips of videos and of folders of frames; damaged ones are named."""

import random
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_mmnas.data.columns.column import usable_rows
from lightning_mmnas.data.columns.video import (
    FrameFolderColumn,
    FrameRange,
    PresenceColumn,
    Sampling,
    clip_positions,
    read_video,
    video_column,
    video_length,
)
from lightning_mmnas.errors import ConfigError, DamagedFilesError, MissingExtraError
from tests.data.columns.make_videos import moving_square, write_frames, write_video


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    write_video(path, moving_square(20))
    return path


def test_positions() -> None:
    assert clip_positions(8, 4, "uniform") == [1, 3, 5, 7]
    assert clip_positions(2, 4, "uniform") == [0, 0, 1, 1]
    assert clip_positions(10, 4, "centre") == [3, 4, 5, 6]
    assert clip_positions(3, 5, "centre") == [0, 1, 2, 0, 1]
    assert clip_positions(1, 3, "random") == [0, 0, 0]


def test_random_positions_depend_on_seed_and_name_alone() -> None:
    starts = {key: clip_positions(50, 8, "random", 0, key)[0] for key in map(str, range(300))}
    torch.manual_seed(1)
    assert starts == {key: clip_positions(50, 8, "random", 0, key)[0] for key in starts}
    assert set(starts.values()) == set(range(43))  # every place occurs
    other = {key: clip_positions(50, 8, "random", 1, key)[0] for key in starts}
    assert sum(starts[key] == other[key] for key in starts) < 30


@pytest.mark.parametrize("sampling", ["uniform", "random", "centre"])
def test_a_clip_has_the_frames_that_were_chosen(video: Path, sampling: Sampling) -> None:
    assert video_length(video) == 20
    state = torch.get_rng_state()
    clip = read_video(video, 6, (32, 32), sampling=sampling)
    assert torch.equal(torch.get_rng_state(), state)
    assert (clip.dtype, clip.shape) == (torch.uint8, (3, 6, 32, 32))
    wanted = moving_square(20)[clip_positions(20, 6, sampling, 0, "clip.avi")].permute(3, 0, 1, 2)
    assert (clip.float() - wanted.float()).abs().mean() < 6  # mpeg4 is lossy


def test_size_and_channels(video: Path) -> None:
    grey = read_video(video, 4, (10, 14), channels=1)
    assert grey.shape == (1, 4, 10, 14)
    rgb = read_video(video, 4, (10, 14)).float()
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1, 1)
    assert ((rgb * weights).sum(0) - grey[0]).abs().mean() < 20  # grey is the luma of limited range


@pytest.mark.parametrize(("content", "reason"), [(b"", "it is empty"), (b"no video at all" * 50, "InvalidData")])
def test_what_is_no_video_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "clip.avi"
    path.write_bytes(content)
    with pytest.raises(DamagedFilesError, match=f"{path}: {reason}"):
        video_column([path], 4, (8, 8)).read(0)


def test_cut_short_is_damage(video: Path) -> None:
    write_video(video, moving_square(20, 128))
    content = video.read_bytes()
    video.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(DamagedFilesError, match=r"clip.avi: it is cut short: \d+ frames of 20"):
        read_video(video, 4, (8, 8))


@pytest.mark.parametrize("name", ["clip.avi", "clip.mp4", "clip.mkv"])
def test_damaged_videos(tmp_path: Path, name: str) -> None:
    """Each is either read to a clip of the size asked for, or refused by name."""
    path = tmp_path / name
    write_video(path, moving_square(12))
    whole = path.read_bytes()
    generator = random.Random(name)
    column = video_column([path], 4, (8, 8))
    refused = 0
    for _ in range(200):
        content = bytearray(whole)
        if generator.random() < 0.5:
            content = content[: generator.randrange(len(content))]
        for _ in range(generator.randrange(20) if content else 0):
            content[generator.randrange(len(content))] = generator.randrange(256)
        path.write_bytes(content)
        try:
            clip = column.read(0)
        except DamagedFilesError as error:
            refused += error.files[0][0] == str(path)
        else:
            assert clip.shape == (3, 4, 8, 8)
    assert refused > 10


def test_pyav_is_an_extra(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"package av.*lightning-mmnas\[video\]"):
        read_video(video, 4, (8, 8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_frames(tmp_path / "rgb1", moving_square(12), first=7)
    return tmp_path


def test_folders_of_frames(folder: Path) -> None:
    column = FrameFolderColumn([FrameRange(folder / "rgb1", 8, 15)], 4, (32, 32), root=folder)
    clip = column.read(0)
    wanted: Tensor = moving_square(12)[1:9][[1, 3, 5, 7]].permute(3, 0, 1, 2)
    assert (clip.dtype, clip.shape) == (torch.uint8, (3, 4, 32, 32))
    assert (clip.float() - wanted.float()).abs().mean() < 4
    before = column.fingerprint(0)
    (folder / "rgb1" / "000009.jpg").write_bytes(b"x")
    assert column.fingerprint(0) != before


def test_damaged_frames_are_named(folder: Path) -> None:
    frames = folder / "rgb1"
    ranges = [FrameRange(frames, 7, 10), FrameRange(frames, 11, 14), FrameRange(frames, 20, 19)]
    column = FrameFolderColumn([*ranges, FrameRange(frames, 15, 40)], 4, (8, 8))
    (frames / "000008.jpg").write_bytes((frames / "000008.jpg").read_bytes()[:200])
    (frames / "000012.jpg").write_bytes(b"")
    with pytest.raises(DamagedFilesError, match=r"(?s)4 damaged.*000008.jpg.*000012.jpg: it is empty.*frames 20 to 19"):
        usable_rows({"rgb": column}, "raise")
    with pytest.raises(DamagedFilesError, match=r"000024.jpg: there is no such file"):
        column.read(3)
    assert usable_rows({"rgb": PresenceColumn(column)}, "skip").tolist() == [0]  # does not look into files


def test_another_clip_is_another_fingerprint(video: Path) -> None:
    settings: list[tuple[Sampling, int]] = [("uniform", 0), ("centre", 0), ("random", 0), ("random", 1)]
    columns = [video_column([video], 4, (8, 8), sampling=sampling, seed=seed) for sampling, seed in settings]
    assert len({column.fingerprint(0) for column in columns}) == 4
    before = columns[0].fingerprint(0)
    assert video_column([video], 4, (8, 8), seed=5).fingerprint(0) == before
    write_video(video, moving_square(12))
    assert columns[0].fingerprint(0) != before


def test_presence_of_videos(video: Path) -> None:
    bad = video.with_name("bad.avi")
    bad.write_bytes(b"nothing")
    column = video_column([video, bad, video.with_name("gone.avi")], 4, (8, 8))
    assert usable_rows({"rgb": PresenceColumn(column)}, "skip").tolist() == [0, 1]
    assert usable_rows({"rgb": PresenceColumn(column, video_length)}, "skip").tolist() == [0]


def test_impossible_clips_are_refused() -> None:
    with pytest.raises(ConfigError, match="frames=0"):
        video_column([], 0, (8, 8))
    with pytest.raises(ConfigError, match="'middle' is not in"):
        FrameFolderColumn([], 4, (8, 8), sampling="middle")  # type: ignore[arg-type]
