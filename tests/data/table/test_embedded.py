"""Files in the cells of a table, as Hugging Face's data sets have them: against the files themselves."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from lightning_mmnas.data.columns.audio import Waveform, fit_length
from lightning_mmnas.data.table.columns import ColumnSpec, file_column
from lightning_mmnas.data.table.data_module import TableDataModule
from lightning_mmnas.data.table.embedded import Content, media_in
from lightning_mmnas.data.table.reading import read_table
from lightning_mmnas.delivery.transforms import Statistics, Transforms
from lightning_mmnas.errors import DamagedFilesError, DataError

parquet = pytest.importorskip("pyarrow.parquet")
soundfile = pytest.importorskip("soundfile")

ROWS, RATE = 24, 8000
GENERATOR = np.random.default_rng(0)
PICTURES = GENERATOR.integers(0, 256, (ROWS, 6, 9, 3), dtype=np.uint8)
SOUNDS = GENERATOR.integers(-3000, 3000, (ROWS, 800)).astype(np.int16)
IMAGE = ColumnSpec("image", ["image"], size=(6, 9))
AUDIO = ColumnSpec("audio", ["audio"], rate=RATE, seconds=0.1)


def png(pixels: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def flac(samples: np.ndarray) -> bytes:
    stream = io.BytesIO()
    soundfile.write(stream, samples, RATE, format="FLAC")
    return stream.getvalue()


def write(path: Path, **columns: list[Any]) -> Path:
    import pyarrow

    parquet.write_table(pyarrow.table(columns), path)
    return path


def cells(form: str, folder: Path) -> dict[str, list[Any]]:
    """The same pictures and sounds in another form."""
    (folder / "files").mkdir()
    found: dict[str, list[Any]] = {"image": [], "audio": []}
    for i in range(ROWS):
        contents = {"image": png(PICTURES[i]), "audio": flac(SOUNDS[i])}
        for name, suffix in (("image", "png"), ("audio", "flac")):
            path = f"files/{i}.{suffix}"
            struct = form == "struct" or (form == "mixed" and i % 2)
            if form == "path" or (form == "mixed" and not i % 2):
                (folder / path).write_bytes(contents[name])
            named = None if form == "struct" else path
            if form == "bytes":
                found[name].append(contents[name])
            elif form == "array" and name == "audio":
                found[name].append({"array": (SOUNDS[i] / 32768).tolist(), "sampling_rate": RATE})
            elif form == "array":
                found[name].append({"bytes": contents[name], "path": "elsewhere.png"})
            else:
                found[name].append({"bytes": contents[name] if struct else None, "path": named})
    return found


@pytest.mark.parametrize("form", ["bytes", "struct", "path", "mixed", "array"])
def test_every_form_is_read_to_the_end(form: str, tmp_path: Path) -> None:
    split = ["train"] * 12 + ["val"] * 6 + ["test"] * 6
    table = write(
        tmp_path / "rows.parquet", **cells(form, tmp_path), label=[f"c{i % 2}" for i in range(ROWS)], split=split
    )
    data = TableDataModule(str(table), {"image": IMAGE, "audio": AUDIO}, "label", split="split", batch_size=5)
    data.prepare_data()
    data.setup("fit")
    seen = 0
    for batch in data.val_dataloader():
        for image, audio in zip(batch["image"], batch["audio"], strict=True):
            row = 12 + seen
            assert np.array_equal(image.permute(1, 2, 0).numpy(), PICTURES[row])
            assert np.array_equal(audio[0].numpy(), SOUNDS[row] / np.float32(32768))
            seen += 1
    assert seen == 6
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (5, 3, 6, 9)
    assert batch["audio"].shape == (5, 1, 800)


def column_of(path: Path, spec: ColumnSpec) -> Any:
    table = read_table(path)
    return file_column(spec, table, range(len(table)))


def test_sounds_in_arrays_are_resampled_and_their_channels_made_one(tmp_path: Path) -> None:
    one, other = GENERATOR.standard_normal((2, 900)) / 10
    rows = [{"array": [one.tolist(), other.tolist()], "sampling_rate": RATE}] * 2
    column = column_of(write(tmp_path / "a.parquet", audio=rows), AUDIO)
    wanted = torch.from_numpy(((one.astype(np.float32) + other.astype(np.float32)) / 2)[None])
    assert torch.allclose(column.read(1), fit_length(wanted, 800), atol=1e-7)
    half = ColumnSpec("audio", ["audio"], rate=RATE // 2, seconds=0.1)
    assert column_of(tmp_path / "a.parquet", half).read(0).shape == (1, 400)


@pytest.mark.parametrize("suffix", ["", ".npy"])
def test_arrays_in_cells(suffix: str, tmp_path: Path) -> None:
    values = GENERATOR.standard_normal((11, 3)).astype(np.float32)
    stream = io.BytesIO()
    np.save(stream, values)
    rows = [{"bytes": stream.getvalue(), "path": f"a{suffix}"}] * 2
    spec = ColumnSpec("motion", ["motion"], channels=3, length=11)
    column = column_of(write(tmp_path / "a.parquet", motion=rows), spec)
    assert np.array_equal(column.read(0).numpy(), values.T)


def test_videos_in_cells(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "gray"
        for level in range(4):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16), 60 * level, np.uint8), format="gray")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    spec = ColumnSpec("video", ["clip"], size=(16, 16), channels=1, length=4)
    table = write(tmp_path / "a.parquet", clip=[{"bytes": path.read_bytes(), "path": "a.mkv"}])
    assert column_of(table, spec).read(0)[0, :, 3, 3].tolist() == pytest.approx([0, 60, 120, 180], abs=1)


def test_digests_are_those_of_files_and_fingerprints_change(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(PICTURES[0]))
    rows = [
        {"bytes": png(PICTURES[0]), "path": None},
        {"bytes": None, "path": "a.png"},
        {"bytes": png(PICTURES[1]), "path": "a.png"},
    ]
    column = column_of(write(tmp_path / "a.parquet", image=rows), IMAGE)
    assert column.digest(0) == column.digest(1) != column.digest(2)
    assert len({column.fingerprint(i) for i in range(3)}) == 3
    again = column_of(tmp_path / "a.parquet", ColumnSpec("image", ["image"], size=(6, 10)))
    assert column.fingerprint(0) != again.fingerprint(0)


def test_damage_names_line_and_column(tmp_path: Path) -> None:
    rows = [
        {"bytes": png(PICTURES[0])[:60], "path": None},
        {"bytes": None, "path": "gone.png"},
        {"bytes": b"", "path": "a.png"},
        {"bytes": b"<html>", "path": "a.png"},
        {"bytes": None, "path": " "},
    ]
    path = write(tmp_path / "a.parquet", image=rows)
    column = column_of(path, IMAGE)
    reasons = [
        "row 1, column 'image': .*",
        r"gone\.png: there is no such file",
        "row 3, column 'image': it is empty",
        "row 4, column 'image': it is not a picture but an HTML page",
        "row 5, column 'image': it holds neither bytes nor a path",
    ]
    for index, reason in enumerate(reasons):
        with pytest.raises(DamagedFilesError, match=reason):
            column.read(index)
        assert index == 1 or column.digest(index)  # of files that are there


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (3.5, "a float is neither a path, nor the bytes of a file, nor a list of numbers"),
        (["a", 2], "a list is neither a path"),
        ({"bytes": "iVBORw0K", "path": None}, "its bytes are a str"),
        ({"url": "x"}, r"neither bytes nor a path, but \['url'\]"),
        ({"array": [[1.0], [2.0, 3.0]], "sampling_rate": 8000}, "channels of different lengths"),
        ({"array": ["a"], "sampling_rate": 8000}, "its array holds no numbers"),
        ({"array": [1.0], "sampling_rate": None}, "the sampling_rate None, not a number of Hz"),
        ({"array": [[[1.0]]], "sampling_rate": 8000}, r"shape \(1, 1, 1\) instead of"),
        ({"array": [[0.0, 0.1]] * 9, "sampling_rate": 8000}, "more channels than moments; channels come first"),
    ],
)
def test_what_is_no_file_is_named(cell: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        media_in(cell, Path)


def test_what_cells_hold() -> None:
    assert media_in("a.png", Path) == Path("a.png")
    assert media_in(bytearray(b"x"), Path) == Content(b"x")
    assert media_in({"bytes": b"x", "path": "b/A.PNG"}, Path) == Content(b"x", ".png")
    found = media_in({"array": [0.5, 0.25], "sampling_rate": 100, "path": None}, Path)
    assert isinstance(found, Waveform)
    assert found.samples.tolist() == [[0.5, 0.25]]
    assert found.rate == 100


def test_a_sound_of_numbers_that_is_no_waveform(tmp_path: Path) -> None:
    rows = [{"array": [0.0, 20000.0], "sampling_rate": RATE}]
    with pytest.raises(DamagedFilesError, match=r"row 1, column 'audio': its floats reach 20,000"):
        column_of(write(tmp_path / "a.parquet", audio=rows), AUDIO).read(0)


def test_a_delivered_model_takes_the_same_cells(tmp_path: Path) -> None:
    columns = {"image": IMAGE, "audio": AUDIO}
    specs = {name: spec.modality() for name, spec in columns.items()}
    transforms = Transforms(specs, columns, {}, {name: Statistics() for name in columns})
    stereo = np.stack([SOUNDS[0] / 32768, SOUNDS[0] / -32768]).astype(np.float32)
    samples: list[dict[str, Any]] = [
        {"image": png(PICTURES[0]), "audio": flac(SOUNDS[0])},
        {"image": {"bytes": png(PICTURES[0]), "path": None}, "audio": {"bytes": flac(SOUNDS[0]), "path": "a.flac"}},
        {"image": Image.fromarray(PICTURES[0]), "audio": (torch.from_numpy(stereo), RATE)},
        {"image": png(PICTURES[0]), "audio": {"array": stereo, "sampling_rate": RATE}},
    ]
    for sample in samples:
        found: dict[str, Tensor] = transforms(sample)
        assert np.array_equal(found["image"].permute(1, 2, 0).numpy(), PICTURES[0])
        assert np.array_equal(found["audio"][0].numpy(), SOUNDS[0] / np.float32(32768))
        assert transforms.is_single("image", sample["image"])
    with pytest.raises(DataError, match="neither bytes nor a path"):
        transforms({"image": {"url": "x"}, "audio": flac(SOUNDS[0])})
