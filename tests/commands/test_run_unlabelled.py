"""`mmnas run` of a table without labels: encoders, search, pretraining, a report, and a model that embeds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import lightning_mmnas
from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.report import make_report
from lightning_mmnas.commands.run import run
from lightning_mmnas.commands.stages import read_stages
from lightning_mmnas.errors import ConfigError, ModelError
from lightning_mmnas.modules.frozen import read_checkpoint
from tests.commands.test_regression import COLUMNS, SHORT, configured, make_table, quiet, told


@pytest.mark.slow
def test_stages_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, console = make_table(tmp_path, rows=40), quiet()
    folder = configured(table, tmp_path / "configs", console, without=["price"])
    assert sorted(path.stem for path in folder.iterdir()) == ["common", "encoders", "pretrain", "search"]
    assert f"next: mmnas run {folder} --output" in told(console)
    console, short = quiet(), SHORT[: SHORT.index("--finetune.trainer.max_epochs")]
    results = run(folder, tmp_path / "run", overrides=["--trainer.accelerator", "cpu", *short], console=console)
    assert "no finetune.yaml: nothing is fine-tuned or compared" in told(console)
    assert list(results["stages"]) == ["encoders", "search", "pretrain"]
    assert results["comparison"] == []
    assert results["genotype"] == json.loads((tmp_path / "run" / "genotype.json").read_text())
    page = make_report(tmp_path / "run", strict=True).read_text()
    assert "The run ended after pretraining, without labels" in page
    assert "The found network" in page
    assert "could not be made" not in page

    model = lightning_mmnas.load(tmp_path / "run")
    state = read_checkpoint(tmp_path / "run" / "pretrain" / "checkpoints" / "last.ckpt", "test")["state_dict"]
    for name, value in model.network.state_dict().items():
        torch.testing.assert_close(value, state[f"network.{name}"])
    assert main(["embed", str(tmp_path / "run"), str(table), "--output", str(tmp_path / "v.npy")]) == 0
    vectors = np.load(tmp_path / "v.npy")
    sample = {name: [0.5] * len(spec.columns) for name, spec in COLUMNS.items()}
    assert vectors.shape == (40, len(model.embed(sample)))
    with pytest.raises(ModelError, match="trained without labels: it embeds samples"):
        model.predict(sample)
    assert main(["predict", str(tmp_path / "run"), str(table), "--output", str(tmp_path / "p.csv")]) == 2
    assert "trained without labels" in capsys.readouterr().err
    again = run(folder, tmp_path / "run", overrides=["--trainer.accelerator", "cpu", *short], console=quiet())
    assert again["stages"] == results["stages"]


def test_a_comparison_needs_the_last_stage(tmp_path: Path) -> None:
    for name in ("search", "pretrain"):
        (tmp_path / f"{name}.yaml").write_text("{}\n")
    assert [stage.name for stage in read_stages(tmp_path, [])] == ["search", "pretrain"]
    with pytest.raises(ConfigError, match=r"there is no .*finetune\.yaml, so nothing can be fine-tuned or compared"):
        read_stages(tmp_path, ["--finetune.trainer.max_epochs", "3"])
    (tmp_path / "comparison.yaml").write_text("draws: 1\n")
    with pytest.raises(ConfigError, match=r"leave comparison\.yaml and the options of both away"):
        read_stages(tmp_path, [])
