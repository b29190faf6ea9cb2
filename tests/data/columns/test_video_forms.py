"""Videos as a player shows them: turned, by time, with what is transparent; animations and folders of frames."""

import io
import re
import shutil
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from PIL.PngImagePlugin import PngImageFile
from rich.console import Console

from lightning_mmnas.commands.init.command import init
from lightning_mmnas.commands.init.media import Files, find_files
from lightning_mmnas.data.columns.column import FileColumn
from lightning_mmnas.data.columns.video import (
    FrameFolderColumn,
    FrameRange,
    Sampling,
    clip_positions,
    frame_files,
    read_video,
    video_column,
    video_length,
)
from lightning_mmnas.data.table.columns import ColumnSpec
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.data.table.reading import read_table
from lightning_mmnas.errors import DamagedFilesError
from tests.data.columns.make_videos import moving_square, write_video

Array = np.ndarray[Any, np.dtype[Any]]


def write_times(path: Path, clip: Array, times: list[int], codec: str = "ffv1", pixels: str = "bgr0") -> None:
    """Writes frames (t, h, w, 3 or 4) that are shown from `times` on, in milliseconds; the codec loses nothing."""
    import av

    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=30)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = pixels
        stream.codec_context.time_base = Fraction(1, 1000)
        for frame, time in zip(clip, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgba" if clip.shape[3] == 4 else "rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture.reformat(format=pixels)))
        container.mux(stream.encode())


def noise(frames: int, h: int = 8, w: int = 12, channels: int = 3) -> Array:
    return np.random.default_rng(0).integers(0, 256, (frames, h, w, channels), dtype=np.uint8)


def decoded(path: Path) -> list[Array]:
    """All frames of a file, as they are stored."""
    import av

    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def tensor(frames: list[Array]) -> torch.Tensor:
    return torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv"])
def test_constant_rates_give_the_frames_of_equal_segments(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    write_video(path, moving_square(31), rate=30)
    stored = decoded(path)
    wanted = tensor([stored[i] for i in clip_positions(31, 7, "uniform")])
    assert torch.equal(read_video(path, 7, (32, 32)), wanted)


def test_varying_rates_are_sampled_by_time(tmp_path: Path) -> None:
    path, clip = tmp_path / "clip.mkv", noise(20)
    times = [100 * i for i in range(10)] + [
        1000 + 1000 * i for i in range(10)
    ]  # half of the frames in the first second
    write_times(path, clip, times)
    found = read_video(path, 11, (8, 12))
    moments = [(2 * i + 1) * 10_033 / 22 for i in range(11)]  # the file says that the last frame lasts 33 ms
    shown = [max(i for i, time in enumerate(times) if time <= moment) for moment in moments]
    assert shown == [4, 10, 11, 12, 13, 14, 14, 15, 16, 17, 18]
    assert torch.equal(found, tensor([clip[i] for i in shown]))
    write_times(path, clip, [33 * i + i % 2 for i in range(20)])  # a constant rate, rounded
    assert torch.equal(read_video(path, 4, (8, 12)), tensor([clip[i] for i in (2, 7, 12, 17)]))


def write_trimmed(path: Path, source: Path, first: int) -> None:
    """Copies a film without encoding it again; an edit list hides what comes before a frame, as phones write it."""
    import av

    options = {"avoid_negative_ts": "disabled"}
    with av.open(str(source)) as film, av.open(str(path), "w", options=options) as container:
        stream = film.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for packet in film.demux(stream):
            if packet.pts is not None and packet.dts is not None and packet.time_base is not None:
                shift = round(Fraction(first, 30) / packet.time_base)
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, copy
                container.mux(packet)


@pytest.mark.parametrize("first", [3, 20])
def test_trimmed_films_have_the_frames_that_are_shown(tmp_path: Path, first: int) -> None:
    path, whole = tmp_path / "clip.mp4", tmp_path / "whole.mp4"
    write_video(whole, moving_square(31), rate=30)
    write_trimmed(path, whole, first)
    stored, length = decoded(path), 31 - first
    assert all(np.array_equal(one, other) for one, other in zip(stored, decoded(whole)[first:], strict=True))
    assert video_length(path) == length
    samplings: tuple[Sampling, ...] = ("uniform", "centre")
    for frames in (1, 4, length):
        for sampling in samplings:
            wanted = tensor([stored[i] for i in clip_positions(length, frames, sampling)])
            assert torch.equal(read_video(path, frames, (32, 32), sampling=sampling), wanted)


@pytest.mark.parametrize("first", [0, 20])
def test_films_that_are_cut_short_are_refused(tmp_path: Path, first: int) -> None:
    """Their header comes first, as in films for the web; a part of their pictures does not come at all."""
    import av

    path, whole = tmp_path / "clip.mp4", tmp_path / "whole.mp4"
    write_video(whole, moving_square(61), rate=30)
    write_trimmed(path, whole, first)
    with av.open(str(path)) as film, av.open(str(whole), "w", options={"movflags": "faststart"}) as container:
        copy = container.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(film.streams.video[0]):
            if packet.dts is not None:
                packet.stream = copy
                container.mux(packet)
    content = whole.read_bytes()
    assert video_length(whole) == 61 - first
    path.write_bytes(content[: len(content) * 3 // 4])
    with pytest.raises(DamagedFilesError, match=r"clip\.mp4: it is cut short: \d+ frames of \d+"):
        read_video(path, 4, (32, 32))


def test_frames_that_cannot_be_decoded_are_named(tmp_path: Path) -> None:
    path = tmp_path / "clip.mpg"
    write_video(path, moving_square(20), "mpeg2video")
    content = bytearray(path.read_bytes())
    for place in range(len(content) // 3, len(content) * 2 // 3, 40):
        content[place] ^= 0x55
    path.write_bytes(content)
    with pytest.raises(DamagedFilesError, match=r"clip\.mpg: frame \d+ cannot be decoded"):
        read_video(path, 20, (32, 32))


def test_sounds_are_no_videos(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.ogg", np.zeros(8000), 8000)
    with pytest.raises(DamagedFilesError, match=r"a\.ogg: it holds no video"):
        read_video(tmp_path / "a.ogg", 2, (8, 8))


MATRICES: dict[str, tuple[tuple[int, int, int, int], Callable[[Array], Array]]] = {
    "clockwise": ((0, 1, -1, 0), lambda frame: np.rot90(frame, -1)),
    "counterclockwise": ((0, -1, 1, 0), np.rot90),
    "upside down": ((-1, 0, 0, -1), lambda frame: np.rot90(frame, 2)),
    "mirrored": ((-1, 0, 0, 1), lambda frame: frame[:, ::-1]),
    "as it is": ((1, 0, 0, 1), lambda frame: frame),
}


@pytest.mark.parametrize("name", MATRICES)
def test_turned_and_mirrored_videos(tmp_path: Path, name: str) -> None:
    (a, b, c, d), turned = MATRICES[name]
    path = tmp_path / "clip.mp4"
    clip = moving_square(8)[:, :24]  # 24 x 32
    write_video(path, clip)
    stored = decoded(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    one = 1 << 16
    content[place : place + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    wanted = tensor([turned(frame) for frame in stored])
    found = read_video(path, 8, (wanted.shape[2], wanted.shape[3]))
    assert torch.equal(found, wanted)


def test_transparent_videos_show_their_background(tmp_path: Path) -> None:
    path, clip = tmp_path / "clip.mkv", np.zeros((4, 8, 12, 4), np.uint8)
    for t in range(4):
        clip[t, 2:5, t : t + 4, 3] = 255  # black all over; the shape is in the opacity
    write_times(path, clip, [0, 40, 80, 120], pixels="bgra")
    wanted = 255 - torch.from_numpy(clip[..., 3])
    for channels in (1, 3):
        found = read_video(path, 4, (8, 12), 1 if channels == 1 else 3)
        assert torch.equal(found, wanted.expand(channels, -1, -1, -1))


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations_are_videos(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    colours = [(40 * i, 255 - 40 * i, 80) for i in range(6)]
    pictures = [Image.new("RGB", (12, 8), colour) for colour in colours]
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, **options)
    assert video_length(path) == 6
    found = read_video(path, 3, (8, 12))
    assert found[:, :, 0, 0].T.tolist() == [list(colours[i]) for i in (1, 3, 5)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=[100] * 5 + [1500], **options)
    assert read_video(path, 4, (8, 12))[:, :, 0, 0].T.tolist() == [list(colours[i]) for i in (2, 5, 5, 5)]


def test_pages_of_twelve_bits(tmp_path: Path) -> None:
    path, values = tmp_path / "stack.tif", np.arange(4 * 48).reshape(4, 6, 8).astype(np.uint16) * 21
    pages = [Image.fromarray(page) for page in values]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    found = read_video(path, 4, (6, 8), 1, maximum=4095)
    assert torch.equal(found[0], (torch.from_numpy(values.astype(np.float32)) / 4095 * 255).round().byte())


@pytest.fixture
def folder(tmp_path: Path) -> tuple[Path, Array]:
    clip = noise(12)
    (tmp_path / "clip").mkdir()
    for number, frame in enumerate(clip, 1):
        Image.fromarray(frame).save(tmp_path / "clip" / f"frame {number}.png")
    (tmp_path / "clip" / "notes.txt").write_text("no frame")
    (tmp_path / "clip" / ".frame 0.png").write_text("nor this")
    return tmp_path / "clip", clip


def test_folders_of_frames_in_natural_order(folder: tuple[Path, Array]) -> None:
    path, clip = folder
    assert [int(re.sub(r"\D", "", file.name)) for file in frame_files(path)] == list(range(1, 13))
    assert video_length(path) == 12
    column = video_column([path, path.parent / "gone"], 4, (8, 12))
    assert torch.equal(column.read(0), tensor([clip[i] for i in (1, 4, 7, 10)]))
    before, digest = column.fingerprint(0), column.digest(0)
    Image.fromarray(clip[0]).save(path / "frame 12.png")
    assert (column.fingerprint(0) != before, column.digest(0) != digest) == (True, True)
    with pytest.raises(DamagedFilesError, match="gone: there is no such file"):
        column.read(1)
    (path.parent / "empty").mkdir()
    with pytest.raises(DamagedFilesError, match=r"empty: the folder holds no pictures \(.avif"):
        video_column([path.parent / "empty"], 4, (8, 12)).read(0)
    with pytest.raises(DamagedFilesError, match="clip: there is no such file"):
        FileColumn([path], lambda path: torch.empty(0)).read(0)


def test_a_folder_of_frames_has_one_background(tmp_path: Path) -> None:
    """The first picture is dark on white; the second, nearly white, would alone be on black."""
    for i, ink in enumerate((30, 250)):
        frame = np.full((8, 8, 4), ink, np.uint8)
        frame[..., 3] = 0
        frame[2:5, 2:5, 3] = 255
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    found = read_video(tmp_path, 2, (8, 8), 1)[0]
    assert (found[:, 0, 0].tolist(), found[:, 3, 3].tolist()) == ([255, 255], [30, 250])
    assert torch.equal(read_video(tmp_path, 1, (8, 8), 1)[0], found[1:])  # also where the first is not in the clip
    column = FrameFolderColumn([FrameRange(tmp_path, 0, 1)], 2, (8, 8), 1, pattern="{}.png")
    assert torch.equal(column.read(0)[0], found)
    Image.fromarray(np.full((8, 8, 4), (30, 30, 30, 255), np.uint8)).save(tmp_path / "0.png")  # opaque
    assert read_video(tmp_path, 2, (8, 8), 1)[0, :, 0, 0].tolist() == [30, 255]
    frame[..., 3] = 0  # shapes in the opacity alone: none is lost
    for i, ink in enumerate((30, 250)):
        frame[..., :3] = ink
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    assert read_video(tmp_path, 2, (8, 8), 1)[0, :, 3, 3].tolist() == [30, 250]


def test_counting_frames_does_not_decode_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "clip.png"
    pictures = [Image.fromarray(frame) for frame in noise(4)]
    pictures[0].save(path, save_all=True, append_images=pictures[1:])
    load, loaded = PngImageFile.load, []

    def count(picture: PngImageFile) -> Any:
        loaded.append(picture.tell())
        return load(picture)

    monkeypatch.setattr(PngImageFile, "load", count)
    assert video_length(path) == 4
    assert set(loaded) <= {0}


def test_a_table_of_folders(folder: tuple[Path, Array]) -> None:
    path, clip = folder
    table = path.parent / "t.csv"
    table.write_text("v,n\n" + "".join(f"clip,{i}\n" for i in range(6)))
    files = find_files(read_table(table), "v", path.parent)
    assert isinstance(files, Files)
    assert (files.media, files.paths[0]) == ("video", path)
    columns = {"v": ColumnSpec("video", ["v"], size=(8, 12), length=12), "n": ColumnSpec("features", ["n"])}
    data = TableDataModule(str(table), columns, batch_size=2, labels=False)
    data.setup("fit")
    assert torch.equal(next(iter(data.train_dataloader()))["v"][0], tensor(list(clip)))


@pytest.mark.filterwarnings("ignore:.*repeat an earlier one")
def test_init_proposes_folders_of_frames(folder: tuple[Path, Array]) -> None:
    path, _ = folder
    table = path.parent / "t.csv"
    table.write_text("v,n,m\n" + "".join(f"clip{i % 3},{i * i % 7},{i % 5}\n" for i in range(24)))
    for i in range(3):
        shutil.copytree(path, path.parent / f"clip{i}")
    console = Console(file=io.StringIO(), width=200)
    written = init(str(table), str(path.parent / "configs"), console=console)
    assert isinstance(console.file, io.StringIO)
    told = console.file.getvalue()
    assert "note: look at v: 24 of 24 samples are not the only ones with their content, 24 have the same" in told
    columns = yaml.safe_load((written / "common.yaml").read_text())["data"]["init_args"]["columns"]
    assert columns["v"] == {"kind": "video", "columns": ["v"], "size": [64, 64], "channels": 3, "length": 16}
