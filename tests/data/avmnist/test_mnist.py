"""idx files as they are distributed, and the loss of principal components."""

import random
from pathlib import Path

import numpy as np
import pytest

from lightning_mmnas.data.avmnist.mnist import fit_degradation, read_mnist
from lightning_mmnas.errors import DamagedFilesError, DatasetNotFoundError
from tests.data.avmnist.make_avmnist import make_mnist, write_idx


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("below", [".", "MNIST/raw"])
def test_idx_files(packed: bool, below: str, tmp_path: Path) -> None:
    make_mnist(tmp_path / below, packed=packed)
    images = np.random.default_rng(0).integers(0, 256, (12, 28, 28), dtype=np.uint8)
    write_idx(tmp_path / below / "t10k-images-idx3-ubyte", images, packed)
    write_idx(tmp_path / below / "t10k-labels-idx1-ubyte", np.arange(12, dtype=np.uint8) % 10, packed)
    found = read_mnist(tmp_path, "t10k")
    assert np.array_equal(found.images, images)
    assert found.labels.tolist() == [*range(10), 0, 1]
    assert len(read_mnist(tmp_path, "train").labels) == 120


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"no train-images-idx3-ubyte or .*CC BY-SA 3\.0.*--download"):
        read_mnist(tmp_path, "train")
    make_mnist(tmp_path)
    labels = tmp_path / "train-labels-idx1-ubyte.gz"
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.full(120, 10, np.uint8), packed=True)
    with pytest.raises(DamagedFilesError, match=rf"{labels}: its labels are not the digits"):
        read_mnist(tmp_path, "train")
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(119, np.uint8), packed=True)
    with pytest.raises(DamagedFilesError, match=rf"{labels}: 119 labels for the 120 pictures"):
        read_mnist(tmp_path, "train")
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((4, 14, 14), np.uint8), packed=True)
    with pytest.raises(DamagedFilesError, match=r"pictures of shape \(14, 14\)"):
        read_mnist(tmp_path, "train")


def test_random_damage_is_reported_or_harmless(tmp_path: Path) -> None:
    draw, reported, harmless = random.Random(0), 0, 0
    for packed in (True, False):
        make_mnist(tmp_path / str(packed), train=10, test=10, packed=packed)
        for path in sorted((tmp_path / str(packed)).glob("train*")):
            content = path.read_bytes()
            for _ in range(40):
                damaged = bytearray(content)
                if draw.random() < 0.5:
                    del damaged[draw.randrange(len(damaged)) :]
                else:
                    damaged[draw.randrange(min(len(damaged), draw.choice([16, 10**6])))] = draw.randrange(256)
                path.write_bytes(damaged)
                try:
                    found = read_mnist(tmp_path / str(packed), "train")
                except DamagedFilesError as error:
                    reported += "train-" in str(error)
                else:
                    harmless += 1
                    assert found.images.shape == (10, 28, 28)
            path.write_bytes(content)
    assert reported + harmless == 160
    assert reported > 60


def test_the_fewest_components_that_hold_the_energy_are_lost() -> None:
    random_ = np.random.default_rng(0)
    images = random_.integers(0, 256, (300, 28, 28), dtype=np.uint8)
    images[:, :, :14] = images[:, :1, :14]  # whole columns vary together: a few strong components
    degradation = fit_degradation(images, 0.75)
    flat = images.reshape(300, 784).astype(np.float64)
    _, singular, rows = np.linalg.svd(flat - flat.mean(0), full_matrices=False)
    shares = np.cumsum(singular**2) / (singular**2).sum()
    count = len(degradation.components)
    assert shares[count - 1] >= 0.75 > shares[count - 2]
    assert degradation.energy == pytest.approx(shares[count - 1])
    rest = flat - flat.mean(0)
    rest = rest - rest @ rows[:count].T @ rows[:count]
    assert np.allclose(degradation(images), 127.5 + rest / 2, atol=1e-2)
    kept = ((degradation(images) - 127.5) * 2).astype(np.float64)
    assert (kept**2).sum() / ((flat - flat.mean(0)) ** 2).sum() == pytest.approx(1 - degradation.energy, abs=1e-4)


def test_without_loss_only_the_mean_is_gone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
    degradation = fit_degradation(images, 0.0)
    flat = images.reshape(20, 784)
    assert np.allclose(degradation(images), 127.5 + (flat - flat.mean(0)) / 2, atol=1e-3)
