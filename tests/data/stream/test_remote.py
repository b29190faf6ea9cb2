"""Shards at s3://, from a server on this machine, and what is kept of them."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import torch

from lightning_mmnas import StreamDataModule
from lightning_mmnas.data.stream import source
from lightning_mmnas.errors import DataError, DatasetNotFoundError, MissingExtraError
from tests.data.stream.make_shards import data_of, make_numbers


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_numbers(tmp_path_factory.mktemp("numbers"), 60)


class Client:
    """Stands in for a client of LitData's: copies from a folder what is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def __call__(self, location: str, folder: str, chunks: list[Any], options: dict[str, Any]) -> "Client":
        return self

    def download_fileobj(self, remote: str, file: IO[bytes]) -> None:
        self.asked.append(remote)
        file.write((self.folder / remote.removeprefix("s3://bucket/some/")).read_bytes())

    def download_file(self, remote: str, local: str) -> None:
        self.asked.append(remote)
        shutil.copy(self.folder / remote.removeprefix("hf://datasets/me/some/"), local)


@pytest.fixture
def client(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Client:
    from litdata.streaming import downloader

    copy = Client(Path(shutil.copytree(shards, tmp_path / "copy")))
    monkeypatch.setattr(downloader, "get_downloader", copy)
    return copy


def everything(data: StreamDataModule) -> dict[str, torch.Tensor]:
    data.setup("fit")
    return data.tensors("train")


def test_files_are_downloaded_once_and_kept(shards: Path, client: Client, tmp_path: Path) -> None:
    kept = str(tmp_path / "kept")
    expected = everything(data_of(shards))
    found = everything(StreamDataModule("s3://bucket/some/", cache=kept, labels=False))
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    assert len(set(client.asked)) == len(client.asked)
    hub = everything(StreamDataModule("hf://datasets/me/some", cache=kept, labels=False))
    assert all(torch.equal(hub[name], value) for name, value in expected.items())
    client.asked.clear()
    everything(StreamDataModule("s3://bucket/some", cache=kept, labels=False))
    assert client.asked == ["s3://bucket/some/stream.json"]
    # others under the same name do not mix with those that are kept
    make_numbers(tmp_path / "others", 40)
    client.folder = tmp_path / "others" / "shards"
    assert len(everything(StreamDataModule("s3://bucket/some", cache=kept, labels=False))["north"]) == 40


def test_room_is_made_for_new_shards(shards: Path, client: Client, tmp_path: Path) -> None:
    data = StreamDataModule("s3://bucket/some", str(tmp_path / "kept"), cache_bytes=3100, labels=False)
    data.setup("fit")
    assert len(data.tensors("train")["north"]) == 60
    left = [path.stat().st_size for path in (tmp_path / "kept").rglob("*.bin")]
    assert 1 <= len(left) <= 3
    assert sum(left) <= 3100
    assert len(data.tensors("train")["north"]) == 60  # mapped shards are read though they are deleted


def test_a_damaged_download_is_not_kept(client: Client, tmp_path: Path) -> None:
    path = client.folder / "train" / "chunk-0-2.bin"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    data = StreamDataModule("s3://bucket/some", str(tmp_path / "kept"), labels=False)
    data.setup("fit")
    with pytest.raises(DataError, match=r"^s3://bucket/some/train/chunk-0-2\.bin is damaged: it has .* copy it again"):
        data.tensors("train")
    path.write_bytes(whole)
    assert len(data.tensors("train")["north"]) == 60


def test_damaged_means_are_not_kept(client: Client, tmp_path: Path) -> None:
    path = client.folder / "statistics.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DataError, match=r"^s3://bucket/some/statistics\.safetensors is damaged: its checksum"):
        everything(StreamDataModule("s3://bucket/some", str(tmp_path / "kept"), labels=False))
    path.write_bytes(whole)
    assert len(everything(StreamDataModule("s3://bucket/some", str(tmp_path / "kept"), labels=False))["north"]) == 60


def test_what_cannot_be_downloaded(client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (client.folder / "stream.json").unlink()
    with pytest.raises(
        DataError, match=r"^cannot read s3://bucket/some/stream\.json: FileNotFoundError: .*credentials"
    ):
        StreamDataModule("s3://bucket/some", str(tmp_path / "kept"))
    monkeypatch.setitem(__import__("sys").modules, "litdata.streaming.downloader", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'lightning-mmnas\[stream\]'"):
        StreamDataModule("s3://bucket/some", str(tmp_path / "kept"))
    with pytest.raises(DatasetNotFoundError, match=r"there is no stream\.json"):
        source.ShardSource(str(tmp_path))


@pytest.fixture
def bucket(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    moto = pytest.importorskip("moto.server", reason="an S3 server for tests: pip install 'moto[s3]' flask flask-cors")
    import boto3

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}"}
    try:
        client = boto3.client("s3", **options)
        client.create_bucket(Bucket="bucket")
        for path in shards.rglob("*"):
            if path.is_file():
                client.upload_file(str(path), "bucket", f"some/{path.relative_to(shards)}")
        yield options
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_s3(workers: int, bucket: dict[str, str], shards: Path, tmp_path: Path) -> None:
    def rows(location: str, **changes: Any) -> torch.Tensor:
        data = StreamDataModule(location, labels=False, batch_size=6, num_workers=workers, **changes)
        data.setup("fit")
        batches: Any = data.train_dataloader()
        return torch.cat([batch["north"] for batch in batches])

    kept = str(tmp_path / "kept")
    found = rows("s3://bucket/some", cache=kept, cache_bytes=4000, storage_options=bucket)
    assert torch.equal(found, rows(str(shards)))
    with pytest.raises(DataError, match=r"^cannot read s3://bucket/none/stream\.json: ClientError: .*Not Found"):
        StreamDataModule("s3://bucket/none", cache=kept, storage_options=bucket)
