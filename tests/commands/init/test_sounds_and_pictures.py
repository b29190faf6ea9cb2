"""What `mmnas init` measures and tells of sounds and pictures, in files and in cells; read as proposed."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lightning_mmnas.commands.init.columns import Proposal
from lightning_mmnas.data.table.columns import file_column
from lightning_mmnas.data.table.reading import read_table
from tests.commands.init.tables import proposed

parquet = pytest.importorskip("pyarrow.parquet")
soundfile = pytest.importorskip("soundfile")

ROWS, RATE, SECONDS = 12, 8000, 5
GENERATOR = np.random.default_rng(0)
TWELVE = GENERATOR.integers(0, 4000, (ROWS, 64, 64)).astype(np.uint16)
TWELVE[3, 0, 0] = 4095
SOUND = (GENERATOR.standard_normal((ROWS, RATE * SECONDS)) / 10).astype(np.float32)


def in_memory(sample: np.ndarray, kind: str, subtype: str | None = None) -> bytes:
    stream = io.BytesIO()
    if kind == "PNG":
        Image.fromarray(sample).save(stream, "PNG")
    else:
        soundfile.write(stream, sample, RATE, format=kind, subtype=subtype)
    return stream.getvalue()


def written(folder: Path, contents: list[bytes], suffix: str, form: str) -> Path:
    """A table of a column `media` that names the files, or holds them."""
    import pyarrow

    cells: list[Any] = []
    for index, content in enumerate(contents):
        name = f"{index}{suffix}"
        if form in ("files", "paths"):
            (folder / name).write_bytes(content)
        cells.append(
            {"files": name, "paths": {"bytes": None, "path": name}}.get(form, {"bytes": content, "path": name})
        )
    labels = ["a", "b"] * (len(cells) // 2)
    parquet.write_table(pyarrow.table({"media": cells, "label": labels}), folder / "t.parquet")
    return folder / "t.parquet"


def read(table: Path, found: Proposal) -> list[np.ndarray]:
    content = read_table(table)
    column = file_column(found.columns["media"].spec, content, range(len(content)))
    return [column.read(i).numpy() for i in range(len(column))]


@pytest.mark.parametrize("form", ["files", "cells", "paths"])
@pytest.mark.parametrize(
    ("kind", "subtype"),
    [("FLAC", None), ("MP3", None), ("OGG", "VORBIS"), ("WAV", "FLOAT"), ("WAVEX", "PCM_24"), ("AIFF", None)],
)
def test_five_seconds_stay_five_seconds(kind: str, subtype: str | None, form: str, tmp_path: Path) -> None:
    contents = [in_memory(sound, kind, subtype) for sound in SOUND]
    table = written(tmp_path, contents, f".{kind[:4].lower().removesuffix('x')}", form)
    found = proposed(table)
    spec = found.columns["media"].spec
    assert (spec.kind, spec.rate, spec.seconds) == ("audio", RATE, SECONDS)
    for waveform, content in zip(read(table, found), contents, strict=True):
        wanted = soundfile.read(io.BytesIO(content), dtype="float32")[0]
        assert np.abs(waveform[0] - wanted[: RATE * SECONDS]).max() < 1e-6


@pytest.mark.parametrize("form", ["files", "cells", "paths"])
def test_twelve_bits_keep_their_levels(form: str, tmp_path: Path) -> None:
    table = written(tmp_path, [in_memory(picture, "PNG") for picture in TWELVE], ".png", form)
    found = proposed(table)
    assert found.columns["media"].spec.maximum == 4095
    assert "4095 becomes white" in found.columns["media"].reading
    for pixels, values in zip(read(table, found), TWELVE, strict=True):
        assert np.array_equal(pixels[0], np.round(values / np.float32(4095) * 255))


def test_channels_that_cancel_are_told(tmp_path: Path) -> None:
    stereo = [np.stack([sound, -sound if i % 2 else sound], 1) for i, sound in enumerate(SOUND)]
    table = written(tmp_path, [in_memory(sound, "WAV", "FLOAT") for sound in stereo], ".wav", "cells")
    found = proposed(table)
    assert "the channels of 50 % of the sounds with several cancel out" in " ".join(found.columns["media"].notes)
    for waveform, sound in zip(read(table, found), SOUND, strict=True):
        assert np.array_equal(waveform[0], sound)


def test_decoded_sounds(tmp_path: Path) -> None:
    import pyarrow

    cells = [{"array": sound.tolist(), "sampling_rate": RATE, "path": "x.wav"} for sound in SOUND[:, :4000]]
    parquet.write_table(pyarrow.table({"media": cells, "label": ["a", "b"] * (ROWS // 2)}), tmp_path / "t.parquet")
    found = proposed(tmp_path / "t.parquet")
    assert (found.columns["media"].spec.kind, found.columns["media"].spec.seconds) == ("audio", 0.5)
    for waveform, sound in zip(read(tmp_path / "t.parquet", found), SOUND, strict=True):
        assert np.array_equal(waveform[0], sound[:4000])


def test_transparency_and_pages_are_told(tmp_path: Path) -> None:
    shape = np.zeros((64, 64, 4), np.uint8)
    shape[20:40, 10:30, 3] = 255
    stream = io.BytesIO()
    pages = [Image.new("L", (64, 64), level) for level in (10, 20, 30)]
    pages[0].save(stream, "TIFF", save_all=True, append_images=pages[1:])
    contents = [in_memory(shape, "PNG"), stream.getvalue(), in_memory(shape[..., 0], "PNG")] * 4
    table = written(tmp_path, contents, "", "cells")
    found = proposed(table)
    notes = " ".join(found.columns["media"].notes)
    assert "33 % of the pictures have transparency; it shows white" in notes
    assert "33 % of the pictures have up to 3 pages; the first is read" in notes
    clear, paged, _ = read(table, found)[:3]
    assert np.array_equal(clear[0], 255 - shape[..., 3])
    assert np.array_equal(paged[0], np.full((64, 64), 10))
