"""`mmnas prepare avmnist`: splits that share nothing, the levels of noise, whole folders or none."""

import json
import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_mmnas import AVMNISTDataModule
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.data.avmnist import prepare as module
from lightning_mmnas.data.avmnist.mnist import fit_degradation, read_mnist
from lightning_mmnas.data.avmnist.prepare import draw_pairs, find_recordings, prepare_avmnist, spectrograms
from lightning_mmnas.data.mel import mel_filters
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, DatasetNotFoundError, RunDirectoryError
from tests.data.avmnist.make_avmnist import make_fsdd, make_mnist
from tests.data.columns.test_audio import write_wav


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("sources")
    return make_mnist(root / "mnist"), make_fsdd(root / "fsdd")


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.npy"))}


def test_no_picture_and_no_recording_is_in_two_splits(sources: tuple[Path, Path], tmp_path: Path) -> None:
    prepare_avmnist(*sources, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["samples"] == {"train": 110, "val": 10, "test": 30}
    pairs, labels = (np.load(tmp_path / "out" / f"train_{name}.npy") for name in ("pairs", "labels"))
    test = np.load(tmp_path / "out" / "test_pairs.npy")
    assert sorted(pairs[:, 0].tolist()) == list(range(120))  # every picture once
    assert set(pairs[:110, 0].tolist()) == set(range(110))  # the last twelfth is for validation
    names = [Path(name).stem.split("_") for name in manifest["recordings"]]
    takes = [{int(names[i][2]) for i in part[:, 1]} for part in (pairs[:110], pairs[110:], test)]
    assert takes == [{10, 11, 49}, {5, 9}, {0, 3}]
    assert labels.tolist() == [int(names[i][0]) for i in pairs[:, 1]]  # the same digit in both
    uses = np.unique(pairs[:110, 1], return_counts=True)[1]
    assert uses.max() - uses.min() <= 1
    assert uses.sum() == 110


def test_the_data_module_reads_it(sources: tuple[Path, Path], tmp_path: Path) -> None:
    prepare_avmnist(*sources, tmp_path / "out", snr=math.inf)
    data = AVMNISTDataModule(str(tmp_path / "out"))
    data.setup("fit")
    train = data.tensors("train")
    assert data._parts["val"].groups is not None
    assert data.label_counts("val") == dict.fromkeys(map(str, range(10)), 1)
    mnist = read_mnist(sources[0], "train")
    degraded = fit_degradation(mnist.images[:110], 0.75)(mnist.images)
    rows = np.load(tmp_path / "out" / "train_pairs.npy")[:110, 0]
    assert torch.allclose(train["image"].flatten(1) * 255, torch.from_numpy(degraded[rows]), atol=1e-3)
    for digit in range(10):  # the tone of every digit is where it belongs
        spectrogram = train["audio"][train["label"] == digit][0, 0]
        wanted = mel_filters(112, 513, 8000)[:, round((300 + 200 * digit) / 8000 * 1024)].argmax()
        assert abs(int(spectrogram[:, 20].argmax()) - int(wanted)) <= 2
        assert spectrogram[:, 80].max() == 0  # the recording is over


def test_equal_seeds_give_equal_files(sources: tuple[Path, Path], tmp_path: Path) -> None:
    before = torch.random.get_rng_state()
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        prepare_avmnist(*sources, tmp_path / name, pairs=40, seed=seed)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    assert content(tmp_path / "a").keys() == content(tmp_path / "c").keys()
    assert content(tmp_path / "a")["train_pairs.npy"] != content(tmp_path / "c")["train_pairs.npy"]
    assert torch.equal(torch.random.get_rng_state(), before)
    assert len(np.load(tmp_path / "a" / "train_labels.npy")) == 28 + 4
    assert len(np.load(tmp_path / "a" / "test_labels.npy")) == 8


def test_the_level_of_white_noise() -> None:
    """The mean power in a mel band is the variance of white noise: 0 dB for unit variance."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(64, 8000, generator=generator)
    low, high = module.DECIBELS
    for snr in (0.0, -10.0):
        levels = spectrograms(10 ** (-snr / 20) * noise).double()
        power = 10 ** ((levels / 255 * (high - low) + low) / 10)
        assert 10 * math.log10(power[:, :, 10:-10].mean()) == pytest.approx(-snr, abs=0.2)
    assert spectrograms(torch.zeros(1, 8000)).max() == 0


def test_recordings_have_unit_variance_before_the_noise(sources: tuple[Path, Path]) -> None:
    waveforms = module._read_recordings(find_recordings(sources[1]), progress=False)
    assert waveforms.shape == (70, 8000)
    assert torch.allclose(waveforms.var(1, correction=0), torch.ones(70), atol=1e-4)
    assert torch.allclose(waveforms[:, :4000].mean(1), torch.zeros(70), atol=1e-5)
    assert not waveforms[:, 4000:].any()


def test_noise_from_files(sources: tuple[Path, Path], tmp_path: Path) -> None:
    folder = tmp_path / "noise"
    folder.mkdir()
    for i in range(10):
        hum = 0.2 * torch.sin(2 * math.pi * (1000 + 200 * i) * torch.arange(2000) / 8000)
        write_wav(folder / f"{i}.wav", hum.unsqueeze(0))
    noises = module._read_noise(folder, seed=0, progress=False)
    sizes = {split: len(clips or ()) for split, clips in noises.items()}
    assert sizes == {"train": 7, "val": 1, "test": 2}
    drawn = module._noise(5, noises["train"], torch.Generator().manual_seed(0))
    assert torch.allclose(drawn.var(1, correction=0), torch.ones(5), atol=1e-3)
    prepare_avmnist(*sources, tmp_path / "out", pairs=20, noise=folder)
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["audio"]["noise"] == "noise"
    with pytest.raises(DatasetNotFoundError, match="holds 0 files of noise"):
        prepare_avmnist(*sources, tmp_path / "other", pairs=20, noise=sources[0])


def test_recordings_are_used_evenly() -> None:
    labels = np.array([0, 0, 0, 0, 0, 1, 1], np.uint8)
    pairs = draw_pairs(labels, np.arange(7), np.array([10, 11, 20]), np.array([0, 0, 1]), 7, np.random.default_rng(0))
    assert sorted(pairs[:, 0].tolist()) == list(range(7))
    uses = {i: int((pairs[:, 1] == i).sum()) for i in (10, 11, 20)}
    assert uses[20] == 2
    assert sorted((uses[10], uses[11])) == [2, 3]
    with pytest.raises(DataError, match="no recording of the digit 1"):
        draw_pairs(labels, np.arange(7), np.array([10]), np.array([0]), 7, np.random.default_rng(0))


def test_a_failure_leaves_what_was_there(
    sources: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = prepare_avmnist(*sources, tmp_path / "out", pairs=20)
    before = content(output)
    with pytest.raises(RunDirectoryError, match="exists and is not empty"):
        prepare_avmnist(*sources, output, pairs=20, seed=1)
    assert content(output) == before

    def fail(waveforms: Any) -> Any:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "spectrograms", fail)
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunDirectoryError, match="No space left"):
        prepare_avmnist(*sources, tmp_path / "empty", pairs=20)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["empty", "out"]
    assert not any((tmp_path / "empty").iterdir())


def test_refusals(sources: tuple[Path, Path], tmp_path: Path) -> None:
    mnist, fsdd = sources
    with pytest.raises(ConfigError, match=r"--pairs 1000 makes \{'train': 700"):
        prepare_avmnist(mnist, fsdd, tmp_path / "out", pairs=1000)
    with pytest.raises(ConfigError, match=r"energy must be in \[0, 1\)"):
        prepare_avmnist(mnist, fsdd, tmp_path / "out", energy=1.0)
    with pytest.raises(DatasetNotFoundError, match=r"git clone https://github\.com/Jakobovski"):
        prepare_avmnist(mnist, tmp_path, tmp_path / "out")
    broken = make_fsdd(tmp_path / "fsdd")
    (broken / "3_jackson_5.wav").write_bytes(b"")
    with wave.open(str(broken / "4_jackson_5.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", "not compressed"))
    write_wav(broken / "5_jackson_5.wav", torch.zeros(1, 80))
    with pytest.raises(DamagedFilesError, match="3 damaged") as caught:
        prepare_avmnist(mnist, broken, tmp_path / "out")
    assert "3_jackson_5.wav: it is empty" in str(caught.value)
    assert "5_jackson_5.wav: it is silent" in str(caught.value)
    (broken / "ten.wav").write_bytes(b"")
    with pytest.raises(DataError, match=r"ten\.wav: the name is not"):
        prepare_avmnist(mnist, broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_download_asks_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    def download(root: str, train: bool, download: bool) -> None:
        assert download
        make_mnist(Path(root) / "MNIST" / "raw", packed=True)

    monkeypatch.setattr(torchvision.datasets, "MNIST", download)
    output = prepare_avmnist(
        tmp_path / "mnist", make_fsdd(tmp_path / "fsdd"), tmp_path / "out", pairs=20, download=True
    )
    assert (output / "manifest.json").is_file()

    def offline(root: str, train: bool, download: bool) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(torchvision.datasets, "MNIST", offline)
    with pytest.raises(DatasetNotFoundError, match=r"could not be downloaded .* by hand"):
        prepare_avmnist(tmp_path / "mnist", tmp_path / "fsdd", tmp_path / "other", pairs=20, download=True)


def test_no_file_is_larger_than_what_was_written(
    sources: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory map has its whole size at once; where the disk does not, writing into it ends the process."""
    sizes: list[int] = []
    made = module.spectrograms

    def noted(waveforms: Any) -> Any:
        sizes.append(max(path.stat().st_size for path in tmp_path.rglob("audio/*.npy")))
        return made(waveforms)

    monkeypatch.setattr(module, "spectrograms", noted)
    prepare_avmnist(*sources, tmp_path / "out", pairs=20)
    assert sizes[0] <= 128 < (tmp_path / "out" / "audio" / "train_data.npy").stat().st_size


def test_the_command(sources: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mnist, fsdd = map(str, sources)
    arguments = ["prepare", "avmnist", "--mnist", mnist, "--fsdd", fsdd, "--output", str(tmp_path / "out")]
    (tmp_path / ".out.7.part").mkdir()
    assert main([*arguments, "--pairs", "20", "--snr", "-5"]) == 0
    said = capsys.readouterr().out
    assert "14 train, 2 val, 4 test" in said
    assert f"note: {tmp_path / '.out.7.part'} is of a writing of {tmp_path / 'out'} that was killed" in said
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["command"].startswith("mmnas prepare avmnist")
    assert main(arguments) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert main(["prepare", "mnist"]) == 2
    assert "invalid choice: 'mnist'" in capsys.readouterr().err
    assert main([*arguments, "--snr", "loud"]) == 2
    assert "--snr" in capsys.readouterr().err
