"""`mmnas tabulate`: blocks that are kept, shared and continued, and the table that is made of them."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from lightning_mmnas import FusionTable, TensorDataModule
from lightning_mmnas.commands import tabulate as job
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.errors import ConfigError, RunDirectoryError, Terminated
from lightning_mmnas.tabular import protocol
from tests.modules.tiny import KINDS, split_of


class TinyData(TensorDataModule):
    def __init__(self, **settings: Any) -> None:
        super().__init__(split_of(32, 0), split_of(16, 1), split_of(16, 2), kinds=KINDS, **settings)


@pytest.fixture
def configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    encoder = {"motion": {"class_path": "MotionEncoder", "init_args": {"channels": [4, 6]}}}
    models: dict[str, tuple[str, dict[str, Any]]] = {
        "encoders": ("EncoderPretraining", {}),
        "search": ("FusionSearch", {"cells": 1, "channels": 4, "length": 4, "primitives": ["sum", "concat_fc"]}),
        "pretrain": ("FusionPretraining", {"genotype": "${run_dir}/genotype.json"}),
        "finetune": ("FineTuning", {"genotype": "${run_dir}/genotype.json"}),
    }
    folder = tmp_path / "configs"
    folder.mkdir()
    for name, (model, init_args) in models.items():
        stage = "${run_dir}/" + name
        checkpoint = {"dirpath": f"{stage}/checkpoints", "save_last": True, "save_top_k": 0}
        if name != "encoders":
            init_args = {**init_args, "encoder_weights": "${run_dir}/encoders/checkpoints/last.ckpt"}
        data = {"labels": name == "finetune", "batch_size": 8}
        config = {
            "run_dir": "runs/tiny",
            "seed_everything": 0,
            "trainer": {
                "accelerator": "cpu",
                "max_epochs": 1,
                "logger": False,
                "default_root_dir": stage,
                "callbacks": [{"class_path": "ModelCheckpoint", "init_args": checkpoint}],
            },
            "model": {"class_path": model, "init_args": {"encoders": encoder, **init_args}},
            "data": {"class_path": "tests.commands.test_tabulate.TinyData", "init_args": data},
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    quick = {"screen_steps": 2, "pretrain_steps": 2, "batch_size": 8, "finetune_steps": {2: 2}, "supervised_steps": 2}
    small = protocol.Protocol(**quick, probe_steps=2, projection_hidden=8, projection_out=4)  # type: ignore[arg-type]
    changed = {**quick, "probe_steps": small.probe_steps}
    monkeypatch.setattr(
        "lightning_mmnas.tabular.features.protocol_of",
        lambda settings, **changes: protocol.Protocol(**{**settings, **changes, **changed}),
    )
    monkeypatch.setattr(job, "_BLOCK", 2)
    return folder


def tabulate(configs: Path, output: Path, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=200)
    job.tabulate(str(configs), output, console=console, **{"seeds": [0], "labels": [2], **options})
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.slow
def test_blocks_are_shared_and_kept(tmp_path: Path, configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, file = tmp_path / "table", tmp_path / "tiny.parquet"
    tabulate(configs, output, limit=0)
    assert not (output / "blocks").exists()
    tabulate(configs, output, limit=6, share=(1, 2))
    assert [path.name for path in (output / "blocks").iterdir()] == ["00001-0.json"]
    before = json.loads((output / "blocks" / "00001-0.json").read_text())
    arguments = [str(configs), "--output", str(output), "--seeds", "0", "--labels", "2", "--table", str(file)]
    assert main(["tabulate", *arguments]) == 0
    assert "12 architectures in" in capsys.readouterr().out
    assert json.loads((output / "blocks" / "00001-0.json").read_text()) == before
    table = FusionTable.load(file)
    assert len(table) == table.space.size() == 12
    assert set(table.columns) >= {"nt_xent", "probe_2", "finetune_2", "scratch_2", "supervised", "parameters", "flops"}
    assert table.card["command"].startswith("mmnas tabulate")
    assert "late_fusion" in table.baselines
    genotype, value = table.best("supervised")[0]
    assert table.rank(genotype, "supervised") == 1
    assert table.value(genotype, "supervised") == value

    # a block that was lost is made again, and comes out the same
    (output / "blocks" / "00001-0.json").unlink()
    tabulate(configs, output)
    again = json.loads((output / "blocks" / "00001-0.json").read_text())
    assert [{**row, "seconds": 0} for row in again] == [{**row, "seconds": 0} for row in before]

    # another table in the same folder is refused, and the one that is there stays
    card = json.loads((output / "card.json").read_text())
    (output / "card.json").write_text(json.dumps({**card, "protocol": {}}))
    with pytest.raises(RunDirectoryError, match="holds a table of other protocol"):
        tabulate(configs, output)
    shutil.rmtree(output)


@pytest.mark.parametrize("share", ["2/2", "1", "a/b", "-1/2"])
def test_shares(share: str) -> None:
    with pytest.raises(ConfigError, match="--share must be i/n"):
        job._share(share)
    assert job._share("1/2") == (1, 2)


@pytest.mark.parametrize(
    ("stop", "code", "word"), [(KeyboardInterrupt, 2, "interrupted"), (Terminated, 143, "terminated")]
)
def test_who_stops_it_is_told_how_it_goes_on(
    stop: type[KeyboardInterrupt],
    code: int,
    word: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stopped(*rest: Any, **options: Any) -> None:
        raise stop

    monkeypatch.setattr(job, "tabulate", stopped)
    arguments = ["tabulate", "watch", "--output", "table", "--share", "1/2"]
    assert main(arguments) == code
    way = f"mmnas: {word}; finished blocks are kept, the same command continues: mmnas {' '.join(arguments)}"
    assert capsys.readouterr().err.strip() == way


def test_a_regression_is_refused_before_its_encoders_are_trained(
    tmp_path: Path, configs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("lightning_mmnas.commands.run.train_encoders", train)
    with pytest.raises(ConfigError, match="one class per sample, and these are regression"):
        tabulate(configs, tmp_path / "table", overrides=["--finetune.data.init_args.task", "regression"])
    with pytest.raises(AssertionError):
        tabulate(configs, tmp_path / "table")


def test_a_card_that_says_nothing_is_told_before_training(tmp_path: Path, configs: Path) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "table" / "card.json").write_text("null")
    with pytest.raises(RunDirectoryError, match=r"card.json says nothing of a table; choose another --output"):
        tabulate(configs, tmp_path / "table", limit=0)
    assert [path.name for path in (tmp_path / "table").iterdir()] == ["card.json"]


@pytest.mark.slow
def test_what_cannot_become_a_table(tmp_path: Path, configs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "table"
    tabulate(configs, output, limit=0)
    command = ["tabulate", str(configs), "--output", str(output), "--seeds", "0"]

    def refused(*options: str) -> str:
        capsys.readouterr()
        assert main([*command, *options]) == 2
        return capsys.readouterr().err

    assert "limit must be at least 0, got -1" in refused("--limit", "-1")
    assert "labels must be at least 1" in refused("--labels", "0")
    assert "labels_per_class=17" in refused("--labels", "17")
    assert "seeds of at least 0, got [-1]" in refused("--seeds", "-1")
    # another configuration in the same folder, before anything is trained
    assert "holds a table of other configurations" in refused("--labels", "2", "--search.model.init_args.cells", "2")
    (output / "card.json").write_text("{")
    assert "card.json" in refused("--labels", "2")
    text = (configs / "finetune.yaml").read_text()
    (configs / "finetune.yaml").write_text(text.replace("labels: true", "labels: false"))
    fresh = ["tabulate", str(configs), "--output", str(tmp_path / "other"), "--seeds", "0", "--labels", "2"]
    assert main(fresh) == 2
    assert "labels of finetune.yaml to true" in capsys.readouterr().err


@pytest.mark.slow
def test_a_limit_ends_with_a_whole_block(tmp_path: Path, configs: Path) -> None:
    output = tmp_path / "table"
    tabulate(configs, output, limit=3)
    assert len(list((output / "blocks").iterdir())) == 2
    tabulate(configs, output)
    rows = [row for path in (output / "blocks").iterdir() for row in json.loads(path.read_text())]
    assert sorted(row["index"] for row in rows) == list(range(12))
