"""A search with a budget by `mmnas fit`, and `mmnas cost` on what it found."""

import json
import re
from pathlib import Path

import lightning.pytorch  # noqa: F401  # its first import sets an environment variable: not within a test
import pytest

from lightning_mmnas import FusionNetwork, Genotype
from lightning_mmnas.commands.mmnas import main

CONFIG = """
trainer: {accelerator: cpu, logger: false, enable_checkpointing: false, max_epochs: 1, limit_train_batches: 1,
  limit_val_batches: 0, enable_progress_bar: false, enable_model_summary: false,
  callbacks: [{class_path: ArchitectureAlternation},
    {class_path: GenotypeSelection, init_args: {output: "${run_dir}/genotype.json", num_candidates: 2, steps: 1,
      max_cost: 200}}]}
model:
  class_path: FusionSearch
  init_args: {encoders: {motion: {class_path: MotionEncoder, init_args: {channels: [4, 4]}}}, channels: 4, length: 2,
    encoder_weights: null, cost: parameters, cost_weight: 0.1, cost_readout: pool}
data:
  class_path: WatchDataModule
  init_args: {stride: 512, batch_size: 8, labels: false, architecture_fraction: 0.5}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "search.yaml"
    path.write_text(CONFIG)
    return path


@pytest.mark.slow
def test_costs_of_what_a_search_found(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--config", str(config), "--run_dir", str(tmp_path)]
    assert main(["fit", *arguments]) == 0
    found = tmp_path / "genotype.json"
    record = json.loads((tmp_path / "genotype.selection.json").read_text())
    assert record["cost"]["chosen"] <= record["cost"]["max_cost"] == 200
    capsys.readouterr()
    missing = ["--model.init_args.encoder_weights", str(tmp_path / "not_yet.ckpt")]
    assert main(["cost", str(found), *arguments, *missing]) == 0
    said = capsys.readouterr().out
    genotype = Genotype.load(found)
    shapes = dict.fromkeys(genotype.space.inputs, (4, 2))  # parameters depend on the channels only
    count = sum(p.numel() for p in FusionNetwork(genotype, shapes, "pool").parameters())
    numbers = {
        line.split("│")[1].strip(): [
            float(n.replace(",", "")) for n in re.findall(r"[\d,]+\.?\d*", line.split("│", 2)[2])
        ]
        for line in said.splitlines()
        if line.startswith("│")
    }
    assert numbers["sum"][0] == count == record["cost"]["chosen"]
    parts = [row for name, row in numbers.items() if name not in ("sum", "measured as a whole")]
    assert sum(row[0] for row in parts) == numbers["sum"][0]
    assert sum(row[1] for row in parts) == numbers["sum"][1] > 0
    assert sum(row[2] for row in parts) == pytest.approx(numbers["sum"][2], abs=1)
    assert numbers["measured as a whole"][0] > 0

    assert main(["cost", str(found), *arguments, "--model.init_args.channels", "8"]) == 2
    assert "channels differ: 4 in the genotype, 8 expected" in capsys.readouterr().err
    assert main(["fit", *arguments, "--model.init_args.cost", "watts"]) == 2
    assert "watts" in capsys.readouterr().err


def test_other_models_and_missing_arguments_are_refused(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cost"]) == 2
    assert "genotype.json --config common.yaml --config search.yaml" in capsys.readouterr().err
    assert main(["cost", str(tmp_path / "none.json"), "--config", str(config)]) == 2
    assert "there is no file or run" in capsys.readouterr().err
    common = tmp_path / "common.yaml"
    common.write_text("run_dir: runs/mine\n")
    assert main(["cost", str(config), "--config", str(common)]) == 2
    assert "needs that of a search: --config search.yaml" in capsys.readouterr().err
    assert main(["cost", str(tmp_path), "--config", str(config)]) == 2
    assert "holds no genotype.json" in capsys.readouterr().err
    assert main(["cost", "--help"]) == 0
    assert "usage: mmnas cost GENOTYPE" in capsys.readouterr().out
