"""Builds AV-MNIST from MNIST and the Free Spoken Digit Dataset, with the published degradation of both."""

import glob
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from lightning_mmnas.data.avmnist.data_module import MANIFEST
from lightning_mmnas.data.avmnist.mnist import Degradation, Mnist, Pictures, fit_degradation, read_mnist
from lightning_mmnas.data.columns.audio import fit_length, read_audio
from lightning_mmnas.data.columns.column import FileColumn, damaged, usable_rows
from lightning_mmnas.data.mel import mel_filters
from lightning_mmnas.data.spec import Split
from lightning_mmnas.errors import ConfigError, DataError, DatasetNotFoundError, RunDirectoryError
from lightning_mmnas.files import write_json

Numbers = np.ndarray[Any, np.dtype[np.int64]]
T = TypeVar("T")

SPLITS: tuple[Split, ...] = ("train", "val", "test")
RATE = 8000
"""Of FSDD's recordings, in Hz; every recording is cut or filled up to one second."""

MELS, WINDOW, HOP, TRANSFORM = 112, 256, 72, 1024
"""Of the spectrogram: mel filters; window, hop and length of the transform in samples, so that one second has 112
windows and every filter some of the frequencies."""

DECIBELS = (-60.0, 40.0)
"""Range of the spectrogram; 0 is white noise of unit variance. Numbers 0 to 255 stand for it linearly."""

_SHARES = (0.7, 0.1, 0.2)
_BATCH = 256
_TAKES = {"test": range(5), "val": range(5, 10)}  # FSDD's official test split is its takes 0 to 4
_LICENCES = {
    "MNIST": "Y. LeCun, C. Cortes, C. Burges; CC BY-SA 3.0",
    "FSDD": "Z. Jackson et al., Free Spoken Digit Dataset, https://github.com/Jakobovski/free-spoken-digit-dataset; "
    "CC BY-SA 4.0",
    "this data set": "derived from both: CC BY-SA 4.0, with the attributions above",
}


class Recording(NamedTuple):
    """One file `{digit}_{speaker}_{take}.wav` of FSDD."""

    path: Path
    digit: int
    split: Split


def prepare_avmnist(
    mnist: str | Path,
    fsdd: str | Path,
    output: str | Path,
    snr: float = -5.0,
    noise: str | Path | None = None,
    energy: float = 0.75,
    pairs: int | None = None,
    seed: int = 0,
    download: bool = False,
    command: str = "",
    progress: bool = False,
) -> Path:
    """Writes a folder that `AVMNISTDataModule` reads; it appears whole or not at all.

    Pictures are those of MNIST, the last twelfth of its training part for validation, each used once. Recordings are
    those of FSDD, takes 0 to 4 for test and 5 to 9 for validation; within a split every recording of a digit is used
    as often as any other, give or take one, each time with noise of its own. So no picture and no recording is in two
    splits, and with a folder of noise no noise file is either.

    Pictures lose their mean and the leading principal components that hold `energy` of the variance of the training
    pictures; what is left, r, is stored as 127.5 + r / 2. Recordings are cut or filled up to one second, brought to
    unit variance, and get noise at `snr`. The spectrogram is log-mel: the mean power in 112 mel filters (0 to 4 kHz,
    `mel_filters`) of 112 windows (Hann, 256 samples every 72), -60 to 40 dB as whole numbers from 0 to 255.

    Args:
        mnist: Folder of MNIST's idx files.
        fsdd: Folder of FSDD's recordings.
        output: The folder to be written; new or empty.
        snr: Signal-to-noise ratio in dB; infinity: no noise.
        noise: Folder of audio files to draw the noise from (such as ESC-50); None: white noise.
        energy: Share of the pictures' variance that is removed, in [0, 1).
        pairs: Number of pairs in all, 70 % of them for training, 10 % for validation, 20 % for test; None: one for
            every picture.
        seed: Seed of every draw.
        download: Whether to download MNIST into `mnist` with torchvision where it is not there.
        command: What the manifest gives as the command.
        progress: Whether to show progress bars.

    Returns:
        The folder.

    Raises:
        ConfigError: An argument is out of its range, or asks for more pictures than there are.
        DatasetNotFoundError: MNIST or FSDD is not there.
        DamagedFilesError: Names the files that cannot be read.
        RunDirectoryError: The output holds files already, or cannot be written.
    """
    if not 0 <= energy < 1 or np.isnan(snr) or snr == -np.inf or seed < 0:
        raise ConfigError(f"energy must be in [0, 1), snr a number and seed at least 0, got {energy}, {snr}, {seed}")
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RunDirectoryError(f"{output} exists and is not empty; choose another output, or remove it first")
    if download:
        _download(Path(mnist))
    train, test = read_mnist(Path(mnist), "train"), read_mnist(Path(mnist), "t10k")
    images = _split_images(train, test)
    recordings = find_recordings(Path(fsdd))
    counts = _counts({name: len(rows) for name, (_, rows) in images.items()}, pairs)
    drawn = {}
    for number, split in enumerate(SPLITS):
        part, rows = images[split]
        mine = np.array([i for i, recording in enumerate(recordings) if recording.split == split], dtype=np.int64)
        digits = np.array([recordings[i].digit for i in mine], dtype=np.int64)
        drawn[split] = draw_pairs(part.labels, rows, mine, digits, counts[split], np.random.default_rng([seed, number]))
    waveforms = _read_recordings(recordings, progress)
    noises = _read_noise(None if noise is None else Path(noise), seed, progress)
    degradation = fit_degradation(train.images[images["train"][1]], energy)
    with _new_folder(output) as folder:
        for file, splits in (("train", ("train", "val")), ("test", ("test",))):
            chosen = [(images[s][0], drawn[s], noises[s], SPLITS.index(s)) for s in SPLITS if s in splits]
            _write(folder, file, chosen, waveforms, snr, degradation, seed, progress)
        manifest = {
            "command": command,
            "seed": seed,
            "samples": counts,
            "val_size": counts["val"],
            "pictures": {"removed_energy": degradation.energy, "components": len(degradation.components)},
            "audio": {
                "snr_db": snr if np.isfinite(snr) else None,
                "noise": "white" if noise is None else Path(noise).name,
                "rate_hz": RATE,
                "mels": MELS,
                "window": WINDOW,
                "hop": HOP,
                "range_db": DECIBELS,
            },
            "sources": {path.name: _sha256(path) for part in (train, test) for path in part.files}
            | {"recordings": len(recordings)},
            "recordings": [recording.path.name for recording in recordings],
            "licences": _LICENCES,
            "versions": {name: version(name) for name in ("lightning-mmnas", "torch", "numpy")}
            | {"python": platform.python_version()},
        }
        write_json(folder / MANIFEST, manifest)
    return output


def find_recordings(folder: Path) -> list[Recording]:
    """Lists the recordings of FSDD, by name.

    Raises:
        DatasetNotFoundError: There are none.
        DataError: A file is not called `{digit}_{speaker}_{take}.wav`.
    """
    folder = folder / "recordings" if (folder / "recordings").is_dir() else folder
    paths = sorted(folder.glob("*.wav")) if folder.is_dir() else []
    if not paths:
        raise DatasetNotFoundError(
            f"the Free Spoken Digit Dataset is not in {folder}: no files {{digit}}_{{speaker}}_{{take}}.wav there. Get "
            "it with: git clone https://github.com/Jakobovski/free-spoken-digit-dataset (CC BY-SA 4.0), and give its "
            "folder recordings as --fsdd"
        )
    found = []
    for path in paths:
        match = re.fullmatch(r"([0-9])_([^_]+)_([0-9]+)\.wav", path.name)
        if match is None:
            raise DataError(f"{path}: the name is not {{digit}}_{{speaker}}_{{take}}.wav")
        take = int(match[3])
        split = next((name for name in ("test", "val") if take in _TAKES[name]), "train")
        found.append(Recording(path, int(match[1]), split))  # type: ignore[arg-type]
    return found


def draw_pairs(
    labels: np.ndarray[Any, np.dtype[np.uint8]],
    rows: Numbers,
    recordings: Numbers,
    digits: Numbers,
    count: int,
    random: np.random.Generator,
) -> Numbers:
    """Draws pictures without repetition, and for each a recording of its digit.

    Args:
        labels: Digit of every picture of the file, shape (n,).
        rows: Pictures of the split.
        recordings: Recordings of the split.
        digits: Digit of each of them.
        count: Number of pairs.
        random: Where numbers come from.

    Returns:
        Picture and recording of every pair, shape (count, 2), in random order.

    Raises:
        DataError: A digit has no recording.
    """
    chosen = random.permutation(rows)[:count]
    pairs = np.stack([chosen, np.zeros_like(chosen)], axis=1)
    for digit in np.unique(labels[chosen]).tolist():
        mine = np.flatnonzero(labels[chosen] == digit)
        available = recordings[digits == digit]
        if len(available) == 0:
            raise DataError(f"there is no recording of the digit {digit} for one of the splits; FSDD is not complete")
        rounds = -(-len(mine) // len(available))
        order = np.concatenate([random.permutation(available) for _ in range(rounds)])
        pairs[mine, 1] = order[: len(mine)]
    return pairs


def spectrograms(waveforms: Tensor) -> Tensor:
    """Log-mel spectrograms of waveforms (b, 8000), shape (b, 112, 112), uint8; see `prepare_avmnist`."""
    window = torch.hann_window(WINDOW)
    spectrum = torch.stft(
        waveforms, TRANSFORM, HOP, win_length=WINDOW, window=window, pad_mode="constant", return_complex=True
    )
    filters = mel_filters(MELS, TRANSFORM // 2 + 1, RATE)
    filters = filters / filters.sum(1, keepdim=True)
    power = filters @ (spectrum.abs().square() / window.square().sum())
    low, high = DECIBELS
    level = (10 * power.clamp(min=1e-12).log10() - low) / (high - low)
    return (255 * level).round().clamp(0, 255).to(torch.uint8)


def _split_images(train: Mnist, test: Mnist) -> dict[Split, tuple[Mnist, Numbers]]:
    """Part and rows of the pictures of each split: the last twelfth of the training part is for validation."""
    size = len(train.labels)
    val = max(size // 12, 1)
    return {
        "train": (train, np.arange(size - val)),
        "val": (train, np.arange(size - val, size)),
        "test": (test, np.arange(len(test.labels))),
    }


def _counts(available: dict[Split, int], pairs: int | None) -> dict[Split, int]:
    if pairs is None:
        return available
    counts = {split: int(share * pairs + 0.5) for split, share in zip(SPLITS, _SHARES, strict=True)}
    if min(counts.values()) < 1 or any(counts[split] > available[split] for split in SPLITS):
        raise ConfigError(f"--pairs {pairs} makes {counts}, but there are pictures for 1 up to {available}")
    return counts


def _read_recordings(recordings: Sequence[Recording], progress: bool) -> Tensor:
    """All recordings as waveforms of one second and unit variance, shape (n, 8000)."""
    column = FileColumn([recording.path for recording in recordings], _read_recording)
    usable_rows({"audio": column}, "raise", progress=progress)
    return torch.cat([column.read(i) for i in range(len(column))])


def _read_recording(path: Path) -> Tensor:
    waveform = read_audio(path, RATE)
    waveform = fit_length(waveform - waveform.mean(), RATE)
    deviation = waveform.std(correction=0)
    if deviation == 0:
        raise damaged(path, "it is silent")
    return waveform / deviation


def _read_noise(folder: Path | None, seed: int, progress: bool) -> dict[Split, list[Tensor] | None]:
    """Noise of each split: None for white noise, or waveforms (t,) of at least one second; files are not shared."""
    if folder is None:
        return dict.fromkeys(SPLITS)
    paths = sorted(p for suffix in ("wav", "flac", "ogg") for p in folder.rglob(f"*.{suffix}"))
    if len(paths) < len(SPLITS):
        raise DatasetNotFoundError(
            f"{folder} holds {len(paths)} files of noise (.wav, .flac, .ogg), at least {len(SPLITS)} are needed: one "
            "for each split"
        )
    clips = []
    for path in _track(paths, "reading noise", progress):
        clip = read_audio(path, RATE)[0]
        sound = clip.nonzero().flatten()
        if len(sound) == 0:
            raise damaged(path, "it is silent")
        clip = clip[int(sound[0]) : int(sound[-1]) + 1]
        clips.append(fit_length(clip.repeat(-(-RATE // len(clip))), max(RATE, len(clip))))
    order = np.random.default_rng([seed, 100]).permutation(len(clips)).tolist()
    val, test = (max(int(share * len(clips)), 1) for share in _SHARES[1:])
    dealt: dict[Split, list[int]] = {"val": order[:val], "test": order[val : val + test], "train": order[val + test :]}
    return {split: [clips[i] for i in dealt[split]] for split in SPLITS}


def _write(
    folder: Path,
    file: str,
    chosen: Sequence[tuple[Mnist, Numbers, list[Tensor] | None, int]],
    waveforms: Tensor,
    snr: float,
    degradation: Degradation,
    seed: int,
    progress: bool,
) -> None:
    """Writes the files of one part: pairs of one split after another."""
    size = sum(len(pairs) for _, pairs, _, _ in chosen)
    images, audio = (folder / name / f"{file}_data.npy" for name in ("images", "audio"))
    with _array(images, np.float32, (size, 784)) as add_images, _array(audio, np.uint8, (size, 112, 112)) as add_audio:
        for part, pairs, noise, number in chosen:
            generator = torch.Generator().manual_seed(seed * len(SPLITS) + number)
            for start in _track(range(0, len(pairs), _BATCH), f"writing {SPLITS[number]}", progress):
                batch = pairs[start : start + _BATCH]
                sound = waveforms[torch.from_numpy(batch[:, 1])]
                noisy = sound + 10 ** (-snr / 20) * _noise(len(sound), noise, generator)
                add_images(degradation(_pictures(part, batch)))
                add_audio(spectrograms(noisy).numpy())
    labels = [part.labels[pairs[:, 0]].astype(np.int64) for part, pairs, _, _ in chosen]
    np.save(folder / f"{file}_labels.npy", np.concatenate(labels))
    np.save(folder / f"{file}_pairs.npy", np.concatenate([pairs for _, pairs, _, _ in chosen]).astype(np.int32))


@contextmanager
def _array(path: Path, dtype: Any, shape: tuple[int, ...]) -> Iterator[Callable[[Any], Any]]:
    """Gives a function that writes some rows of an array, one call after another.

    (No memory map: where the disk is full, that ends the process without a word.)
    """
    path.parent.mkdir(exist_ok=True)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda rows: file.write(np.ascontiguousarray(rows, dtype).data)


def _pictures(part: Mnist, pairs: Numbers) -> Pictures:
    return part.images[pairs[:, 0]]


def _noise(size: int, clips: list[Tensor] | None, generator: torch.Generator) -> Tensor:
    """Noise of unit variance, shape (size, 8000): white, or stretches of random clips."""
    if clips is None:
        return torch.randn(size, RATE, generator=generator)
    stretches = []
    for number in torch.randint(len(clips), (size,), generator=generator).tolist():
        clip = clips[number]
        start = int(torch.randint(len(clip) - RATE + 1, (1,), generator=generator))
        stretches.append(clip[start : start + RATE])
    noise = torch.stack(stretches)
    noise = noise - noise.mean(1, keepdim=True)
    return noise / noise.std(1, correction=0, keepdim=True).clamp(min=1e-8)


def left_behind(output: Path) -> list[Path]:
    """Hidden folders beside one of AV-MNIST: of writings that were killed, or that are not yet finished."""
    return sorted(output.parent.glob(f".{glob.escape(output.name)}.*.part"))


@contextmanager
def _new_folder(output: Path) -> Iterator[Path]:
    """Gives a temporary folder beside `output`, which becomes it if the block succeeds."""
    temporary = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if output.is_dir():
            output.rmdir()  # empty, or this fails
        os.replace(temporary, output)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {output}: {error.strerror or error}; choose another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _download(folder: Path) -> None:
    from torchvision.datasets import MNIST

    try:
        for train in (True, False):
            MNIST(str(folder), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise DatasetNotFoundError(
            f"MNIST could not be downloaded into {folder}: {error}; download its four files by hand and give their "
            "folder as --mnist"
        ) from error


def _track(items: Sequence[T], text: str, progress: bool) -> Iterable[T]:
    if not progress:
        return items
    from rich.progress import track

    return track(items, text)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
