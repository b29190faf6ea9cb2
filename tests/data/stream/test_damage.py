"""What is wrong with shards ends in one line, and nothing of them is run."""

import json
import os
import pickle
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save, save_file

from lightning_mmnas import ColumnSpec, StreamDataModule
from lightning_mmnas.data.stream.samples import decode_file
from lightning_mmnas.data.table.columns import read_cell
from lightning_mmnas.errors import ConfigError, DamagedFilesError, DataError, DatasetNotFoundError, MMNASError
from tests.data.stream.make_shards import data_of, make_rows, shards_of


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("table")
    shards_of(make_rows(root, 24), root / "shards")
    return root / "shards"


@pytest.fixture
def shards(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "shards"))


def read_all(folder: Path) -> None:
    data = data_of(folder)
    data.setup("fit")
    data.tensors("train")
    data.modality_means()


def message(folder: Path, kind: type[MMNASError] = DataError) -> str:
    with pytest.raises(kind) as error:
        read_all(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def edit(path: Path, change: Any) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def test_a_shard_that_was_cut_short_or_changed(shards: Path) -> None:
    path = shards / "train" / "chunk-0-1.bin"
    content = path.read_bytes()
    path.write_bytes(content[:-100])
    assert f"{path} is damaged: it has {len(content) - 100} bytes instead of {len(content)}" in message(shards)
    path.write_bytes(b"")
    assert f"{path} is damaged" in message(shards)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 4
    path.write_bytes(flipped)
    assert f"{path} is damaged: its checksum is another" in message(shards)
    path.unlink()
    assert f"there is no file {path}" in message(shards, DatasetNotFoundError)


def with_checksum(shards: Path, content: bytes) -> None:
    """Puts another first shard in place, for which the indices vouch."""
    path = shards / "train" / "chunk-0-0.bin"
    more = len(content) - path.stat().st_size
    path.write_bytes(content)
    edit(shards / "train" / "index.json", lambda c: c["chunks"][0].update(chunk_bytes=len(content)))

    def vouch(index: Any) -> None:
        index["splits"]["train"]["bytes"] += more
        index["splits"]["train"]["checksums"][0] = zlib.crc32(content)

    edit(shards / "stream.json", vouch)


def as_shard(*records: bytes) -> bytes:
    leaves = [np.uint32(len(record)).tobytes() + record for record in records]
    places = np.cumsum([4 + 4 * (len(leaves) + 1), *map(len, leaves)]).astype("<u4")
    return bytes(np.uint32(len(leaves)).tobytes() + places.tobytes() + b"".join(leaves))


def test_a_hostile_shard(shards: Path) -> None:
    path = shards / "train" / "chunk-0-0.bin"
    content = path.read_bytes()
    records = int(np.frombuffer(content[:4], "<u4")[0])
    wrong = bytearray(content)
    wrong[4:8] = np.uint32(2**32 - 5).tobytes()
    with_checksum(shards, bytes(wrong))
    assert f"{path} is damaged: its record 0 lies nowhere in it" in message(shards)
    with_checksum(shards, as_shard(*[b"no tensors"] * records))
    assert f"{path}, record 0 holds no tensors" in message(shards)
    with_checksum(shards, as_shard(*[save({"photo": torch.zeros(2)})] * records))
    assert "'photo' is torch.float32 of shape (2,) instead of torch.uint8" in message(shards)
    photo = torch.zeros(3, 8, 8, dtype=torch.uint8)
    with_checksum(shards, as_shard(*[save({"photo": photo, "song": photo[0, 0].clone()})] * records))
    assert f"{path}, record 0: 'song'" in message(shards)
    with_checksum(shards, as_shard(*[save({"photo": photo})] * records))
    assert "lacks the modality 'song'" in message(shards)


class Payload:
    """Leaves a folder behind where it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (self.path,)


def test_pickles_are_refused_and_not_run(shards: Path, tmp_path: Path) -> None:
    from litdata.streaming import Cache

    run = tmp_path / "was run"
    payload = Payload(str(run))
    cache = Cache(str(tmp_path / "pickled"), chunk_bytes=100_000)
    for place in range(3):
        cache[place] = payload
    cache.done()
    cache.merge()
    shutil.rmtree(shards / "train")
    (tmp_path / "pickled").rename(shards / "train")
    assert "samples are stored as ['pickle'], compression None; only plain ['bytes'] are read" in message(shards)
    # as the content of a record that the indices call plain bytes, and in place of every small file
    for name in ("stream.json", "statistics.safetensors", "train/samples.safetensors", "train/index.json"):
        (shards / name).write_bytes(pickle.dumps(payload))
        message(shards)
    assert not run.exists()


def test_arrays_in_memory_are_those_of_files(tmp_path: Path) -> None:
    spec = ColumnSpec("motion", ["motion"], channels=3, length=8)
    path, run = tmp_path / "a.npy", tmp_path / "was run"
    np.save(path, np.random.default_rng(0).normal(size=(11, 3)))
    assert torch.equal(decode_file(".npy", path.read_bytes(), spec), read_cell(path, spec))
    for wrong in (np.array([Payload(str(run))], dtype=object), np.array(["text"]), np.array([1j])):
        np.save(path, wrong, allow_pickle=True)
        with pytest.raises(DamagedFilesError):
            decode_file(".npy", path.read_bytes(), spec)
    assert not run.exists()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c.update(version=2), "stream.json is no index of shards: version: Input should be 1"),
        (lambda c: c.update(extra=1), "extra: Extra inputs are not permitted"),
        (lambda c: c["modalities"]["body"].update(shape=[10**10]), "more than 4294967296 bytes"),
        (lambda c: c["modalities"]["body"].update(kind="text"), "a modality of kind 'text' needs a vocabulary"),
        (lambda c: c["modalities"].update({"a.b": c["modalities"]["body"]}), "'a.b' cannot be the name"),
        (lambda c: c["modalities"]["song"]["files"].update(rate=0), "sizes and lengths must be positive"),
        (lambda c: c["modalities"]["song"]["files"].update(rate=9), "files of 'song' become"),
        (lambda c: c.update(task=None), "task None with classes"),
        (lambda c: c["splits"]["train"].update(samples=10**9), "promises"),
    ],
)
def test_a_wrong_index(change: Any, expected: str, shards: Path) -> None:
    edit(shards / "stream.json", change)
    assert expected in message(shards)


def test_names_that_lead_out_of_the_folder(shards: Path) -> None:
    edit(shards / "train" / "index.json", lambda c: c["chunks"][0].update(filename="../../../etc/passwd"))
    assert "'../../../etc/passwd' is no name of a shard" in message(shards)
    (shards / "train" / "index.json").write_text("[" * 100_000)
    assert "is no index of LitData's" in message(shards)


@pytest.mark.parametrize("name", ["statistics.safetensors", "train/samples.safetensors"])
def test_a_changed_bit_of_labels_or_means(name: str, shards: Path) -> None:
    content = bytearray((shards / name).read_bytes())
    content[-4] ^= 1
    (shards / name).write_bytes(content)
    assert (
        message(shards)
        == f"{shards / name} is damaged: its checksum is another; copy it again, or write the shards again"
    )


def test_wrong_labels(shards: Path) -> None:
    edit(shards / "stream.json", lambda c: c.pop("tensors"))  # as in shards of early days: no checksums of labels
    path = shards / "train" / "samples.safetensors"
    found = load_file(path)
    save_file({**found, "label": found["label"] + 2}, path)
    assert "labels that are not from -1 to 2" in message(shards)
    save_file({"groups": found["groups"]}, path)
    assert f"{path} lacks label of shape" in message(shards)


def test_places_without_shards(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match=r"no stream\.json in"):
        StreamDataModule(str(tmp_path))
    with pytest.raises(ConfigError, match="ftp://host/x: shards lie in a folder or at s3://"):
        StreamDataModule("ftp://host/x")
