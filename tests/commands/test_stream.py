"""`mmnas stream`: what it says, writes and refuses."""

import json
from pathlib import Path

import pytest
import yaml

from lightning_mmnas import StreamDataModule
from lightning_mmnas.commands.mmnas import main
from tests.data.table.make_table import make_table


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_table(tmp_path_factory.mktemp("table"), 30)


def test_a_table_becomes_shards(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "shards"
    assert main(["stream", str(table), "--output", str(folder), "--group", "site", "--files", "decoded"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "pixels (h x w), 3 colours; --modality photo=image:photo,size=64x64,channels=3",
        "label: column 'label', by its name; --label COLUMN takes another, --no-label none",
        "photo: tensors, 12,288 bytes per sample",
        "train 21 samples in 1 shards of",
        f"next: data: {{class_path: StreamDataModule, init_args: {{shards: {folder}}}}}",
    ):
        assert line in printed
    index = json.loads((folder / "stream.json").read_text())
    assert index["made_by"]["command"].startswith(f"mmnas stream {table} --output {folder} --group site")
    assert set(index["made_by"]["versions"]) >= {"torch", "litdata", "lightning_mmnas"}
    data = StreamDataModule(str(folder))
    assert data.class_names == ["blackbird", "cuckoo", "heron"]
    assert list(data.modalities) == ["photo", "song", "numbers"]
    # and the data of a configuration
    config = tmp_path / "finetune.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "run_dir": str(tmp_path / "run"),
                "model": {"class_path": "FineTuning", "init_args": {"encoders": {}, "network_weights": "none.ckpt"}},
                "data": {"class_path": "StreamDataModule", "init_args": {"shards": str(folder)}},
            }
        )
    )
    again = ["--data.init_args.modalities", "[numbers]", "--shard-bytes", "2000"]
    assert main(["stream", str(config), "--output", str(tmp_path / "again"), *again]) == 0
    assert list(StreamDataModule(str(tmp_path / "again")).modalities) == ["numbers"]
    message(capsys, "is for tables", str(config), "--output", str(tmp_path / "none"), "--label", "label")


def message(capsys: pytest.CaptureFixture[str], expected: str, *args: str) -> None:
    assert main(["stream", *args]) == 2
    error = capsys.readouterr().err.strip()
    assert expected in error
    assert error.count("\n") == 0


def test_mistakes_are_one_line(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    new = str(tmp_path / "new")
    message(capsys, "there is no table none.csv", "none.csv", "--output", new)
    message(capsys, "the following arguments are required: --output", str(table))
    message(capsys, "exists; nothing was changed", str(table), "--output", str(tmp_path))
    message(capsys, "has no column 'kind'", str(table), "--output", new, "--label", "kind")
    message(capsys, "did you mean --group?", str(table), "--output", new, "--grup", "site")
    message(capsys, "got --shard-bytes 5", str(table), "--output", new, "--shard-bytes", "5")
    message(capsys, "--output s3://bucket/new is a URL", str(table), "--output", "s3://bucket/new")
    monkeypatch.setitem(__import__("sys").modules, "litdata.streaming", None)
    message(capsys, "pip install 'lightning-mmnas[stream]'", str(table), "--output", new)
    assert not list(tmp_path.iterdir())


def test_what_a_killed_writing_left_is_told(table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = tmp_path / ".new.ab_12xyz"  # a process that is killed cannot remove it
    killed.mkdir()
    (tmp_path / ".newer.ab_12xyz").mkdir()
    (tmp_path / ".new.txt").touch()
    # Told before hours of writing: here they end at once, as the shards are too small.
    assert main(["stream", str(table), "--output", str(tmp_path / "new"), "--shard-bytes", "5"]) == 2
    notes = [line for line in capsys.readouterr().out.splitlines() if "was killed" in line]
    assert notes == [
        f"note: {killed} is of a writing of {tmp_path / 'new'} that was killed, or still runs; if none runs, delete it"
    ]


def test_amounts_are_no_labels_of_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, new = tmp_path / "table.csv", str(tmp_path / "new")
    rows = [f"{i}.5,{i % 4},{i * i % 7},word{i} and others" for i in range(40)]
    table.write_text("\n".join(["price,a1,a2,text", *rows]) + "\n")
    options = ["--output", new, "--modality", "a=features:a*", "--label", "price"]
    message(capsys, "column 'price' holds amounts: leave it out (--no-label)", str(table), *options)
    assert main(["stream", str(table), *options[:-2], "--no-label", "--without", "price"]) == 0
    assert StreamDataModule(new).task is None
