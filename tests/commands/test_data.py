"""`mmnas data`: what it prints and writes, and how it ends."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from lightning_mmnas.commands.mmnas import main
from tests.data.file_toys import make_files


@pytest.fixture
def config(tmp_path: Path) -> Path:
    make_files(tmp_path / "files")
    path = tmp_path / "finetune.yaml"
    noise = {"class_path": "tests.commands.test_data.Noise", "init_args": {"std": 0.5}}
    content: dict[str, Any] = {
        "run_dir": str(tmp_path / "run"),
        "model": {
            "class_path": "FineTuning",  # never built: the checkpoint does not exist
            "init_args": {
                "encoders": {},
                "network_weights": "${run_dir}/missing.ckpt",
                "augmentations": {"features": noise},
            },
        },
        "data": {"class_path": "tests.data.file_toys.NumberFiles", "init_args": {"root": str(tmp_path / "files")}},
    }
    path.write_text(yaml.safe_dump(content))
    return path


class Noise(nn.Module):
    def __init__(self, std: float) -> None:
        super().__init__()
        self.std = std

    def forward(self, x: Tensor) -> Tensor:
        return x + self.std * torch.randn_like(x)


def test_tables_json_and_picture(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run-data"
    folder.mkdir()
    (folder / "a.txt").touch()
    assert main(["data", str(config)]) == 0
    printed = capsys.readouterr().out
    assert "train and val share 1 groups: 2" in printed
    assert printed.endswith("run-data: data.json, samples.png\n"), "what is written, not all that is there"
    (folder / "a.txt").unlink()
    assert sorted(path.name for path in folder.iterdir()) == ["data.json", "samples.png"]
    found = json.loads((folder / "data.json").read_text())
    assert found["splits"]["train"]["labels"] == {"even": 3, "odd": 4}
    assert found["command"] == f"mmnas data {config}"
    assert (folder / "samples.png").read_bytes().startswith(b"\x89PNG")


def test_damage_is_listed_and_ends_with_code_2(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "files" / "9.txt").write_text("")
    assert main(["data", str(config), "--output", str(tmp_path / "out")]) == 2
    captured = capsys.readouterr()
    assert "train" in captured.out
    assert "1 damaged or missing file(s)" in captured.err
    assert "9.txt" in captured.err
    assert (tmp_path / "out" / "data.json").is_file()
    skip = ["--data.init_args.on_error", "skip"]
    assert main(["data", str(config), "--output", str(tmp_path / "out"), *skip]) == 0
    assert (tmp_path / "out" / "samples.png").is_file()


def test_a_split_that_cannot_be_read_ends_with_code_2(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for i in range(12, 16):
        (tmp_path / "files" / f"{i}.txt").write_text("")
    skip = ["--data.init_args.on_error", "skip"]
    assert main(["data", str(config), "--output", str(tmp_path / "out"), *skip]) == 2
    captured = capsys.readouterr()
    assert "train and val share 1 groups" in captured.out
    assert "the test split is empty" in captured.err
    assert (tmp_path / "out" / "data.json").is_file()


def test_what_looks_wrong_and_what_was_inferred(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Depth in 12 bits is read as if it were 16; of the labels, one is taken for none."""
    draw, lines = np.random.default_rng(0), ["p,n,y"]
    for i in range(24):
        np.save(tmp_path / f"{i}.npy", draw.integers(0, 4096, (8, 8)).astype(np.uint16))
        lines.append(f"{i}.npy,{i * i},{'NA' if i == 5 else 'odd' if i % 2 else 'even'}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    picture = {"kind": "image", "columns": ["p"], "size": [8, 8], "channels": 1}
    columns = {"p": picture, "n": {"kind": "features", "columns": ["n"]}}
    content = {
        "run_dir": str(tmp_path / "run"),
        "model": {"class_path": "FineTuning", "init_args": {"encoders": {}, "network_weights": "missing.ckpt"}},
        "data": {
            "class_path": "lightning_mmnas.data.table.data_module.TableDataModule",
            "init_args": {"table": str(tmp_path / "t.csv"), "columns": columns, "label": "y", "batch_size": 2},
        },
    }
    (tmp_path / "finetune.yaml").write_text(yaml.safe_dump(content))
    assert main(["data", str(tmp_path / "finetune.yaml")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    look = "p: 24 of 24 samples lie within 16 of 256 grey levels; if their files hold more, set maximum"
    note = f"{tmp_path / 't.csv'}, column 'y': 'NA' (1 row) is read as no label; --empty says otherwise"
    assert f"look at {look}" in printed
    assert f"note: {note}" in printed
    found = json.loads((tmp_path / "run-data" / "data.json").read_text())
    assert found["looks"] == [look]
    assert found["notes"] == [note]
    assert main(["data", str(tmp_path / "finetune.yaml"), "--data.init_args.columns.p.maximum", "4095"]) == 0
    assert "look at" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--samples", "0"], "--samples must be at least 1"),
        (["--data.init_args.root", "nowhere"], "there is no folder nowhere; check data.init_args.root"),
        (["--data.class_path", "tests.commands.toys.ToyData"], "must be a MultimodalDataModule, not ToyData"),
    ],
)
def test_mistakes(config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["data", str(config), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_neither_a_folder_nor_a_shipped_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "nothing"]) == 2
    assert "there is no folder nothing" in capsys.readouterr().err


def test_scripts_that_the_font_lacks_are_no_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    rows = "\n".join(f"{i % 7},{i % 5},{'猫犬'[i % 2]}" for i in range(40))
    (tmp_path / "t.csv").write_text(f"a,b,label\n{rows}\n", encoding="utf-8")
    columns = {name: {"kind": "features", "columns": [name]} for name in ("a", "b")}
    arguments = {"table": str(tmp_path / "t.csv"), "columns": columns, "label": "label"}
    content = {"run_dir": str(tmp_path / "run"), "data": {"class_path": "TableDataModule", "init_args": arguments}}
    model = {"class_path": "FineTuning", "init_args": {"encoders": {}}}
    (tmp_path / "finetune.yaml").write_text(yaml.safe_dump({**content, "model": model}))
    assert main(["data", str(tmp_path / "finetune.yaml")]) == 0
    assert (tmp_path / "run-data" / "samples.png").is_file()
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []


@pytest.mark.parametrize("command", ["data", "run", "tabulate"])
def test_a_table_is_no_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    table = tmp_path / "birds.csv"
    table.write_text("a,b,label\n1,2,x\n")
    assert main([command, str(table), "--output", str(tmp_path / "new")]) == 2
    assert f"is a table; mmnas init {table} --output my_configs" in capsys.readouterr().err
