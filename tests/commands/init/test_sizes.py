"""Sizes are measured on a sample of the whole table, and what is cut is told."""

import io
import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lightning_mmnas.commands.init.sampling import SAMPLE, percent, quantile, spread
from lightning_mmnas.errors import DataError
from tests.commands.init.tables import numbers, picture, proposed, write_table

N = 24


def write_sound(path: Path, seconds: float, rate: int = 8000) -> None:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(np.ones(round(seconds * rate), dtype="<i2").tobytes())


def test_a_sample_is_spread_over_everything() -> None:
    assert spread(range(10)) == list(range(10))
    drawn = spread(range(10_000))
    assert len(drawn) == SAMPLE
    assert drawn == sorted(set(drawn)) == spread(range(10_000))
    assert max(np.diff([0, *drawn, 10_000])) < 400
    assert quantile([1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 0.9) == 9
    assert quantile([1.5], 0.9) == 1.5
    assert (percent(1, 8), percent(1, 500), percent(0, 9)) == ("12 %", "under 1 %", "0 %")


def test_sounds_are_as_long_as_most_and_the_rest_is_told(tmp_path: Path) -> None:
    for i in range(N):
        write_sound(tmp_path / f"{i}.wav", 8.0 if i in (0, 12) else 2.5, 16_000 if i % 2 else 22_050)
    table = write_table(tmp_path, {"song": [f"{i}.wav" for i in range(N)], "x": numbers(N)})
    song = proposed(table).columns["song"]
    assert (song.spec.seconds, song.spec.rate) == (2.5, 16_000)
    assert song.notes == [
        "8 % of the sounds are longer than 2.5 s and are cut there (seconds=8 keeps all)",
        "50 % of the sounds have up to 22050 Hz; what lies above 8000 Hz is left out (rate=22050 keeps it)",
    ]
    given = proposed(table, "s=audio:song,seconds=8,rate=4000").columns["s"]
    assert (given.spec.seconds, given.spec.rate) == (8.0, 4000)
    assert "cut there" not in " ".join(given.notes)


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_five_seconds_are_five_seconds_in_every_format(tmp_path: Path, suffix: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    sound = np.sin(np.arange(5 * 16_000) / 9).astype(np.float32)
    for i in range(8):
        soundfile.write(tmp_path / f"{i}.{suffix}", sound, 16_000)
    table = write_table(tmp_path, {"song": [f"{i}.{suffix}" for i in range(8)], "x": numbers(8)})
    spec = proposed(table).specs["song"]
    assert spec.seconds == pytest.approx(5, abs=0.1)  # MP3 has frames of 36 ms
    assert spec.rate == 16_000


def test_the_greatest_value_of_all_arrays_becomes_white(tmp_path: Path) -> None:
    for i in range(40):
        np.save(tmp_path / f"{i}.npy", np.full((20, 20), 3000 if i == 30 else 100 + i, dtype=np.uint16))
    table = write_table(tmp_path, {"depth": [f"{i}.npy" for i in range(40)], "x": numbers(40)})
    depth = proposed(table).columns["depth"]
    assert (depth.spec.kind, depth.spec.maximum, depth.spec.channels) == ("image", 3000.0, 1)
    assert "3000 becomes white" in depth.reading


def test_pictures_of_twelve_bits_in_sixteen(tmp_path: Path) -> None:
    for i in range(N):
        pixels = np.linspace(0, 4095 if i == 20 else 1000, 64).reshape(8, 8).astype(np.uint16)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        picture(tmp_path / f"rgb{i}.png", i)
    table = write_table(tmp_path, {"d": [f"{i}.png" for i in range(N)], "c": [f"rgb{i}.png" for i in range(N)]})
    found = proposed(table)
    assert found.specs["d"].maximum == 4095
    assert found.specs["c"].maximum is None


def test_numbers_far_from_all_others_are_told(tmp_path: Path) -> None:
    some = numbers(40)
    coded = [-999 if i % 8 == 0 else value for i, value in enumerate(some)]
    wrong = [1e12 if i == 4 else value for i, value in enumerate(some)]
    columns = {"coded": coded, "wrong": wrong, "some": some, "nines": [99, 120, *range(95, 133)]}
    table = write_table(tmp_path, columns)
    first, second = proposed(table).columns["numbers"].notes
    least, most = min(v for v in coded if v != -999), max(coded)
    assert first.startswith(
        f"column 'coded': 5 cells are -999, and the others from {least:g} to {most:g}; if it stands"
    )
    assert first.endswith("--empty -999")
    assert second.startswith("column 'wrong': 1 cell(s) are far away from the others")
    assert "line 5: 1e+12" in second
    assert len(proposed(table, reading={"empty": ["-999"]}).columns["numbers"].notes) == 1


def test_pages_are_told(tmp_path: Path) -> None:
    for i in range(N):
        pages = [Image.fromarray(np.full((8, 8), 40 * k + i, dtype=np.uint8)) for k in range(1 + 2 * (i % 2))]
        pages[0].save(tmp_path / f"{i}.tif", save_all=True, append_images=pages[1:])
    table = write_table(tmp_path, {"scan": [f"{i}.tif" for i in range(N)], "x": numbers(N)})
    scan = proposed(table).columns["scan"]
    assert scan.spec.kind == "image"
    assert scan.notes == ["50 % of the pictures have up to 3 pages; the first is read"]


def test_texts_are_measured_in_tokens(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    texts = [" ".join(["don't-stop!"] * (40 if i < 2 else 4)) + f" {i}" for i in range(N)]  # 6 tokens a word
    table = write_table(tmp_path, {"note": texts, "x": numbers(N)})
    note = proposed(table).columns["note"]
    assert note.spec.length == 32  # 25 tokens, up to eights
    assert note.notes == ["8 % of the texts are longer than 32 tokens and are cut there (length=241 keeps all)"]
    assert proposed(table, "n=text:note,length=241").specs["n"].length == 241


def test_chinese_is_a_text(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers")
    texts = [f"今天天气很好我们去公园玩吧{i}" for i in range(N)]
    table = write_table(tmp_path, {"note": texts, "x": numbers(N)})
    assert proposed(table).specs["note"].kind == "text"


@pytest.mark.parametrize(
    ("shape", "dtype", "setting", "reading"),
    [
        ((40, 6), "float32", "m=motion:a", "motion: 40 moments of 6 channels, resampled to 40"),
        ((6, 128), "float32", "m=motion:a,axes=ct", "motion: 128 moments of 6 channels, resampled to 128"),
        ((6, 128), "float32", "m=motion:a,axes=tc", "motion: 6 moments of 128 channels, resampled to 16"),
        ((3, 20, 24), "uint8", "m=image:a", "image: 20 x 24 pixels (h, w) of 3 colours, channels first"),
        ((12,), "float64", "m=features:a", "features: 12 numbers"),
    ],
)
def test_arrays_are_told_in_words(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, setting: str, reading: str
) -> None:
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", np.random.default_rng(i).normal(size=shape).astype(dtype) % 200)
    table = write_table(tmp_path, {"a": [f"{i}.npy" for i in range(8)], "x": numbers(8)})
    found = proposed(table, setting).columns["m"]
    assert found.reading.startswith(reading)
    if "axes" in setting:
        assert found.spec.axes == (None if setting.endswith("tc") else "ct") or found.spec.axes == "tc"


def test_doubtful_arrays_are_a_question(tmp_path: Path) -> None:
    for i in range(8):
        np.save(tmp_path / f"{i}.npy", np.zeros((6, 128), dtype=np.float32) + i)
    table = write_table(tmp_path, {"mel": [f"{i}.npy" for i in range(8)], "x": numbers(8)})
    with pytest.raises(DataError) as error:
        proposed(table)
    assert "arrays of shape (6, 128) and type float32 can be read in several ways" in str(error.value)
    assert "--modality mel=motion:mel,axes=ct   (motion: 128 moments of 6 channels)" in str(error.value)
    assert "--modality mel=motion:mel,axes=tc   (motion: 6 moments of 128 channels)" in str(error.value)
    with pytest.raises(DataError, match="--modality mel=motion:mel,axes=tc"):
        proposed(table, "mel=motion:mel")
    for option in ("mel=motion:mel,axes=ct", "mel=motion:mel,axes=tc"):
        assert proposed(table, option).specs["mel"].channels == (6 if "ct" in option else 128)


def test_archives_of_arrays(tmp_path: Path) -> None:
    for i in range(8):
        np.savez(tmp_path / f"{i}.npz", a=np.arange(30.0).reshape(10, 3)[: 5 + i % 3])
        content = io.BytesIO()
        np.savez(content, a=np.arange(5.0) + i)
        (tmp_path / f"plain{i}").write_bytes(content.getvalue())
    table = write_table(tmp_path, {"m": [f"{i}.npz" for i in range(8)], "v": [f"plain{i}" for i in range(8)]})
    found = proposed(table)
    assert (found.specs["m"].kind, found.specs["m"].channels) == ("motion", 3)
    assert (found.specs["v"].kind, found.specs["v"].length) == ("features", 5)
