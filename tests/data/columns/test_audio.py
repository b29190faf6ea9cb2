"""Audio files: every width of PCM, other formats, resampling against a direct sum, and damage by name."""

import math
import random
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lightning_mmnas.data.columns.audio import audio_column, fit_length, read_audio, resample
from lightning_mmnas.data.columns.column import usable_rows
from lightning_mmnas.errors import ConfigError, DamagedFilesError, MissingExtraError


def write_wav(path: Path, samples: Tensor, rate: int = 8000, width: int = 2) -> Path:
    """Writes samples in [-1, 1), shape (channels, t)."""
    values = (samples.T.double().numpy() * 2 ** (8 * width - 1)).round().astype(np.int64)
    content = (values + 128).astype(np.uint8) if width == 1 else values.astype("<i8")
    raw = content.tobytes() if width == 1 else content.reshape(-1, 1).view(np.uint8)[:, :width].tobytes()
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(samples))
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return path


def tone(hertz: float, rate: int, t: int) -> Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(t) / rate).unsqueeze(0)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_pcm_of_every_width(width: int, tmp_path: Path) -> None:
    exact = torch.tensor([[0.0, 0.5, -0.5, -1.0, 0.25]])
    path = write_wav(tmp_path / "a.wav", exact, width=width)
    read = read_audio(path, 8000)
    assert read.dtype == torch.float32
    assert torch.equal(read, exact)


def test_channels_are_averaged_and_the_length_is_fitted(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", torch.tensor([[0.5, 0.25, 0.0], [0.0, -0.25, 0.5]]))
    assert read_audio(path, 8000).tolist() == [[0.25, 0.0, 0.25]]
    assert read_audio(path, 8000, 2 / 8000).tolist() == [[0.25, 0.0]]
    assert read_audio(path, 8000, 5 / 8000).tolist() == [[0.25, 0.0, 0.25, 0.0, 0.0]]
    assert fit_length(torch.ones(2, 1), 3).tolist() == [[1, 0, 0], [1, 0, 0]]


@pytest.mark.parametrize("suffix", ["flac", "ogg", "wav"])
def test_other_formats(suffix: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"a.{suffix}"
    wanted = tone(300, 8000, 4000)
    soundfile.write(path, wanted[0].numpy(), 8000, subtype="FLOAT" if suffix == "wav" else None)
    read = read_audio(path, 8000, 0.25)
    assert read.shape == (1, 2000)
    assert (read - wanted[:, :2000]).abs().max() < (0.05 if suffix == "ogg" else 1e-4)


@pytest.mark.parametrize(("before", "after"), [(8000, 16000), (44100, 16000), (16000, 8000), (11025, 8000)])
def test_resampling_against_a_direct_sum(before: int, after: int) -> None:
    x = torch.randn(1, 150, generator=torch.Generator().manual_seed(0))
    found = resample(x, before, after)
    assert found.shape == (1, math.ceil(150 * after / before))
    cutoff, reach = min(1.0, after / before), math.ceil(6 / min(1.0, after / before))
    for m in range(found.shape[1]):
        position, total, weights = m * before / after, 0.0, 0.0
        for n in range(math.floor(position) - reach, math.floor(position) + reach + 1):
            distance = cutoff * (position - n)
            if abs(distance) < 6:
                sinc = 1.0 if distance == 0 else math.sin(math.pi * distance) / (math.pi * distance)
                weight = sinc * math.cos(math.pi * distance / 12) ** 2
                weights += weight
                total += weight * (x[0, n].item() if 0 <= n < 150 else 0.0)
        assert found[0, m].item() == pytest.approx(total / weights, abs=1e-5)


@pytest.mark.parametrize(("before", "after"), [(8000, 16000), (44100, 8000), (22050, 16000)])
def test_a_tone_stays_a_tone(before: int, after: int) -> None:
    found = resample(tone(440, before, before // 2), before, after)
    inner = slice(after // 20, -after // 20)
    assert (found - tone(440, after, found.shape[1]))[:, inner].abs().max() < 5e-3


def test_what_is_above_the_new_nyquist_frequency_is_gone() -> None:
    found = resample(tone(7000, 16000, 4000), 16000, 8000)
    assert found[:, 100:-100].abs().max() < 0.01


def test_resampling_in_a_column(tmp_path: Path) -> None:
    paths = [write_wav(tmp_path / f"{i}.wav", tone(200, rate, rate)) for i, rate in enumerate((8000, 44100))]
    paths[1] = write_wav(paths[1], tone(200, 44100, 44100), rate=44100)
    column = audio_column(paths, 16000, 0.5)
    assert [column.read(i).shape for i in range(2)] == [(1, 8000)] * 2
    assert (column.read(0) - column.read(1))[:, 100:-100].abs().max() < 0.01


def test_damage_is_named(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    whole = write_wav(tmp_path / "whole.wav", tone(200, 8000, 800))
    content = whole.read_bytes()
    paths = {name: tmp_path / f"{name}.wav" for name in ("empty", "short", "header", "nan", "silent", "text", "rate")}
    paths["empty"].write_bytes(b"")
    paths["short"].write_bytes(content[:1000])
    paths["header"].write_bytes(content[:4] + (1000 - 8).to_bytes(4, "little") + content[8:1000])
    soundfile.write(paths["nan"], np.full(800, np.nan), 8000, subtype="FLOAT")
    write_wav(paths["silent"], torch.zeros(1, 0))
    paths["text"].write_text("not sound at all")
    paths["rate"].write_bytes(content[:24] + (7).to_bytes(4, "little") + content[28:])
    reasons = {
        "empty": "it is empty",
        "short": r"cut short: 1,000 bytes of 1,644",
        "header": "cut short: at most 500 samples of 800|cut short: 478 samples of 800",
        "nan": "NaN or infinity",
        "silent": "it holds no sound",
        "text": "LibsndfileError",
        "rate": "its header says 7 Hz",
    }
    for name, path in paths.items():
        with pytest.raises(DamagedFilesError, match=rf"{name}\.wav: .*({reasons[name]})"):
            audio_column([path], 8000, 0.1).read(0)
    columns = {"sound": audio_column([whole, *paths.values()], 8000, 0.1)}
    assert usable_rows(columns, "skip").tolist() == [0]


def test_a_wav_written_to_a_pipe_is_read(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "a.wav", tone(200, 8000, 800))
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = b"\xff" * 4
    path.write_bytes(content)
    assert torch.equal(read_audio(path, 8000), (tone(200, 8000, 800) * 32768).round() / 32768)


@pytest.mark.parametrize("kind", ["wav", "float", "flac", "ogg"])
def test_random_damage_is_reported_or_harmless(kind: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / ("a.wav" if kind == "float" else f"a.{kind}")
    subtype = {"wav": "PCM_16", "float": "FLOAT"}.get(kind)
    soundfile.write(path, tone(200, 8000, 2000)[0].numpy(), 8000, subtype=subtype)
    content = path.read_bytes()
    draw = random.Random(0)
    column = audio_column([path], 4000, 0.2)
    reported = harmless = 0
    for _ in range(200):
        damaged = bytearray(content)
        if draw.random() < 0.5:
            del damaged[draw.randrange(len(damaged)) :]
        else:
            for _ in range(draw.randrange(1, 30)):
                damaged[draw.randrange(min(len(damaged), draw.choice([64, 10**6])))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            waveform = column.read(0)
        except DamagedFilesError as error:
            reported += str(path) in str(error)
        else:
            harmless += 1
            assert waveform.shape == (1, 800)
            assert torch.isfinite(waveform).all()
    assert reported + harmless == 200
    assert reported > 10


def test_without_soundfile_only_pcm_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    assert read_audio(write_wav(tmp_path / "a.wav", tone(200, 8000, 80)), 8000).shape == (1, 80)
    path = tmp_path / "a.flac"
    path.write_bytes(b"fLaC")
    with pytest.raises(MissingExtraError, match=r"a\.flac .*pip install 'lightning-mmnas\[audio\]'"):
        audio_column([path], 8000, 1.0).read(0)


def test_lengths_must_be_positive() -> None:
    with pytest.raises(ConfigError, match=r"rate=8000 and seconds=0\.0"):
        audio_column([], 8000, 0.0)
