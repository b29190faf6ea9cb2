"""Sounds of every format, header and number of channels: lengths and samples against soundfile and numpy."""

import io
import struct
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mmnas.data.columns.audio import channels_cancel, mono, read_audio, resample, sound_length
from lightning_mmnas.errors import DamagedFilesError, MissingExtraError

RATE = 8000
GENERATOR = np.random.default_rng(0)
SOUND = (0.4 * np.sin(np.arange(5 * RATE) * 0.3) + 0.05 * GENERATOR.standard_normal(5 * RATE)).astype(np.float32)


def encoded(samples: np.ndarray, kind: str, subtype: str | None = None, rate: int = RATE) -> bytes:
    soundfile = pytest.importorskip("soundfile")
    stream = io.BytesIO()
    soundfile.write(stream, samples, rate, format=kind, subtype=subtype)
    content: bytes = stream.getvalue()
    return content


def wav(raw: bytes, code: int, channels: int, width: int, sizes: tuple[int, int] | None = None, **other: Any) -> bytes:
    """A WAV file written by hand; `sizes` is what its header claims, of the file and of the samples."""
    form = struct.pack("<HHIIHH", code, channels, RATE, RATE * channels * width, channels * width, 8 * width)
    form += other.get("extension", b"")
    chunks = b"fmt " + struct.pack("<I", len(form)) + form + other.get("before", b"")
    after = other.get("after", b"")
    whole, size = sizes or (4 + len(chunks) + 8 + len(raw) + len(after), len(raw))
    content = b"RIFF" + struct.pack("<I", whole) + b"WAVE" + chunks + b"data" + struct.pack("<I", size) + raw + after
    return bytes(content)


FORMATS = [
    *(("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "IMA_ADPCM")),
    *(("WAVEX", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT")),
    *((kind, None) for kind in ("FLAC", "MP3", "AIFF", "AU", "CAF", "W64", "RF64")),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
]


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_lengths_and_samples_of_every_format(kind: str, subtype: str | None, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    content = encoded(SOUND, kind, subtype)
    wanted, rate = soundfile.read(io.BytesIO(content), dtype="float32")
    path = tmp_path / "sound.bin"
    path.write_bytes(content)
    found = read_audio(path, rate)
    assert found.shape == (1, len(wanted))
    assert np.abs(found[0].numpy() - wanted).max() < 1e-6
    assert torch.equal(read_audio(content, rate), found)
    assert torch.equal(read_audio(content, rate, 0.5), found[:, : round(0.5 * rate)])
    assert sound_length(path) == sound_length(content) == (rate, 1, len(wanted) / rate)
    assert sound_length(content)[2] == pytest.approx(5, abs=0.06)


@pytest.mark.parametrize(("code", "width"), [(1, 1), (1, 2), (1, 3), (1, 4), (3, 4), (3, 8)])
@pytest.mark.parametrize("extensible", [False, True])
def test_wav_needs_no_other_package(code: int, width: int, extensible: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    stereo = GENERATOR.integers(-100, 100, (300, 2))
    if code == 3:
        raw = (stereo / 128).astype(f"<f{width}").tobytes()
    elif width == 1:
        raw = (stereo + 128).astype(np.uint8).tobytes()
    else:
        raw = b"".join(int(v).to_bytes(width, "little", signed=True) for v in (stereo << 8 * (width - 1)).flat)
    guid = struct.pack("<H", code) + bytes.fromhex("000000001000800000aa00389b71")
    options: dict[str, Any] = {"extension": struct.pack("<HHI", 22, 8 * width, 3) + guid} if extensible else {}
    content = wav(raw, 0xFFFE if extensible else code, 2, width, **options)
    assert np.array_equal(read_audio(content, RATE)[0].numpy(), (stereo / 128).mean(1).astype(np.float32))
    assert sound_length(content) == (RATE, 2, 300 / RATE)


RAW = (GENERATOR.integers(-30000, 30000, 1000)).astype("<i2")
UNKNOWN = {
    "sox": (0x7FFFF024, 0x7FFFF000),
    "ffmpeg": (0xFFFFFFFF, 0xFFFFFFFF),
    "arecord": (0x80000024, 0x80000000),
    "signed": (0x7FFFFFFF, 0x7FFFFFFF),
    "zeros": (0, 0),
    "header only": (36, 0),
    "half known": (36 + 2000, 0xFFFFFFFF),
}


@pytest.mark.parametrize("sizes", UNKNOWN.values(), ids=UNKNOWN)
def test_sizes_that_the_header_does_not_know(sizes: tuple[int, int]) -> None:
    content = wav(RAW.tobytes(), 1, 1, 2, sizes)
    assert sound_length(content) == (RATE, 1, 1000 / RATE)
    assert np.array_equal(read_audio(content, RATE)[0].numpy(), RAW / np.float32(32768))
    floats = wav((RAW / 32768).astype("<f4").tobytes(), 3, 1, 4, sizes)
    assert np.array_equal(read_audio(floats, RATE)[0].numpy(), RAW / np.float32(32768))


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_sizes_of_other_codings(size: int) -> None:
    content = bytearray(encoded(SOUND, "WAV", "ULAW"))
    wanted, place = read_audio(bytes(content), RATE), content.index(b"data")
    content[4:8] = content[place + 4 : place + 8] = size.to_bytes(4, "little")
    assert sound_length(bytes(content)) == (RATE, 1, 5.0)
    assert torch.equal(read_audio(bytes(content), RATE), wanted)


def test_chunks_around_the_samples() -> None:
    notes = b"LIST" + struct.pack("<I", 5) + b"INFOx\0"
    content = wav(RAW.tobytes(), 1, 1, 2, before=notes, after=notes)
    assert np.array_equal(read_audio(content, RATE)[0].numpy(), RAW / np.float32(32768))
    empty = wav(b"", 1, 1, 2, after=notes)
    assert sound_length(empty)[2] == 0
    with pytest.raises(DamagedFilesError, match="it holds no sound"):
        read_audio(empty, RATE)


def test_a_wrong_size_of_the_file_alone_is_no_damage() -> None:
    content = wav(RAW.tobytes(), 1, 1, 2, (36 + 2000 + 8, 2000))  # as programs write that count the first 8 bytes too
    assert np.array_equal(read_audio(content, RATE)[0].numpy(), RAW / np.float32(32768))


def test_what_is_cut_short_is_refused() -> None:
    for kind, subtype in FORMATS:
        content = encoded(SOUND, kind, subtype)
        with pytest.raises(DamagedFilesError, match=r"cut short|malformed|lost sync"):
            read_audio(content[: len(content) // 2], RATE)


def test_flac_that_was_written_to_a_pipe() -> None:
    content = bytearray(encoded(SOUND, "FLAC"))
    wanted = read_audio(bytes(content), RATE)
    content[21] &= 0xF0  # the number of samples is 0: not known
    content[22:26] = bytes(4)
    assert sound_length(bytes(content)) == (RATE, 1, 5.0)
    assert torch.equal(read_audio(bytes(content), RATE), wanted)
    assert torch.equal(read_audio(bytes(content), RATE, 1.0), wanted[:, :RATE])


@pytest.mark.parametrize("share", [1.0, 0.9, 1.05, 0.6])
def test_channels_that_cancel(share: float) -> None:
    left, noise = torch.from_numpy(SOUND), 0.01 * torch.randn(len(SOUND), generator=torch.Generator().manual_seed(0))
    stereo = torch.stack((left, -share * left + noise))
    loudest = int(stereo.square().mean(1).argmax())
    assert torch.equal(mono(stereo), stereo[loudest : loudest + 1])
    content = encoded(stereo.T.numpy(), "WAV", "FLOAT")
    assert torch.equal(read_audio(content, RATE), stereo[loudest : loudest + 1])
    assert torch.equal(read_audio(content, 4000), resample(stereo[loudest : loudest + 1], RATE, 4000))
    assert channels_cancel(content)


def test_channels_that_do_not_cancel_are_averaged() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 2000, generator=generator)
    cases = {
        "equal": torch.stack((one, one)),
        "independent": torch.stack((one, other)),
        "less than half against": torch.stack((one, -0.4 * one)),
        "half against": torch.stack((one, -0.5 * one + other)),
        "one silent": torch.stack((one, 0 * one)),
        "many": torch.randn(16, 2000, generator=generator),
        "one of many": torch.cat((one[None], torch.zeros(15, 2000))),
        "silence": torch.zeros(2, 2000),
        "mono": one[None],
    }
    for name, waveform in cases.items():
        assert torch.equal(mono(waveform), waveform.T.contiguous().mean(1)[None]), name
        assert not channels_cancel(encoded((waveform / 10).T.numpy(), "WAV", "FLOAT")), name


@pytest.mark.parametrize("kind", ["WAV", "FLAC"])
@pytest.mark.parametrize("rate", [3000, 4000, 7999, 11_025])
def test_the_beginning_is_that_of_the_whole(kind: str, rate: int) -> None:
    """Its last samples need more of the file than its seconds."""
    content = encoded(SOUND, kind)
    assert torch.equal(read_audio(content, rate, 1.0), read_audio(content, rate)[:, :rate])


@pytest.mark.parametrize("kind", ["WAV", "CAF"])
def test_what_comes_after_the_beginning_is_not_read(kind: str) -> None:
    samples = SOUND.copy()
    samples[4 * RATE] = np.nan
    content = encoded(samples, kind, "FLOAT")
    assert np.array_equal(read_audio(content, RATE, 1.0)[0].numpy(), SOUND[:RATE])
    with pytest.raises(DamagedFilesError, match="it holds NaN"):
        read_audio(content, RATE)


def test_numbers_that_are_no_waveform() -> None:
    with pytest.raises(DamagedFilesError, match=r"its floats reach 30,000, those of a sound are in \[-1, 1\]"):
        read_audio(encoded(np.array([0.0, 30_000.0]), "WAV", "FLOAT"), RATE)
    assert read_audio(encoded(np.array([0.0, 1.5]), "WAV", "FLOAT"), RATE).tolist() == [[0, 1.5]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b"<html><body>404</body></html>", "it is an HTML page: no sound that is read"),
        (b"\0\0\0\x20ftypM4A \0\0\0\0", r"it is AAC in MP4 \(.m4a\): no sound that is read"),
        (b"\xff\xf1\x50\x80" + bytes(60), "it is AAC: no sound"),
        ("Text".encode("utf-16"), "it is UTF-16 text: no sound"),
        (b"\xfe\xff" + "Текст".encode("utf-16-be"), "it is UTF-16 text: no sound"),
        (b"\xff\xfb\x90\0" + bytes(60), "it is MP3, but damaged or of a variant that libsndfile does not decode"),
        (b"MThd\0\0\0\6", "it is MIDI, notes without sound"),
        (b"\x89PNG\r\n\x1a\n", "it is PNG: no sound"),
        (b"RIFF\x04\0\0\0WAVE", "it has no samples: its header ends before them"),
        (b"RIFF\x04\0\0\0WAVEdata\0\0\0\0", "its samples come before their format"),
    ],
)
def test_the_reason_is_what_the_file_is(content: bytes, reason: str, tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    path = tmp_path / "a.wav"
    path.write_bytes(content)
    for read in (lambda: read_audio(path, RATE), lambda: sound_length(path)):
        with pytest.raises(DamagedFilesError, match=rf"a\.wav: {reason}"):
            read()


def test_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DamagedFilesError, match=r"a\.flac: there is no such file"):
        sound_length(tmp_path / "a.flac")


def test_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(SOUND, "FLAC")
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lightning-mmnas\[audio\]'"):
        sound_length(content)


def test_the_suffix_raw_says_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.raw"
    path.write_bytes(encoded(SOUND, "FLAC"))
    assert sound_length(path) == (RATE, 1, 5.0)
