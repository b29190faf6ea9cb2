"""Damage inside the HDF5 file of MM-IMDB: every error names the file."""

import random
from pathlib import Path

import pytest
import torch

from lightning_mmnas.data.mmimdb.data_module import MMIMDBDataModule
from lightning_mmnas.errors import DataError
from tests.data.mmimdb.make_mmimdb import make_both

pytest.importorskip("h5py")


def damaged(content: bytes, generator: random.Random) -> bytes:
    if generator.random() < 0.3:
        return content[: generator.randrange(len(content))]
    changed = bytearray(content)
    head = min(len(content), generator.choice([20_000, len(content)]))  # names and sizes stand in front
    for _ in range(generator.choice([1, 5, 50, 500])):
        changed[generator.randrange(head)] ^= 1 << generator.randrange(8)
    return bytes(changed)


@pytest.mark.slow
def test_two_hundred_damaged_hdf5_files(tmp_path: Path) -> None:
    make_both(tmp_path)
    path = tmp_path / "multimodal_imdb.hdf5"
    content, generator = path.read_bytes(), random.Random(0)
    refused: list[str] = []
    for _ in range(200):
        path.write_bytes(damaged(content, generator))
        data = MMIMDBDataModule(str(tmp_path), "hdf5", (16, 10), text="vectors", check="content")
        try:
            batch = data._samples("train").batch(torch.arange(1))
        except DataError as error:
            refused.append(str(error))
        else:
            assert batch["image"].shape == (1, 3, 16, 10)
            assert batch["text"].isfinite().all()
    assert len(refused) > 50
    assert all(path.name in message for message in refused)
