"""Every shipped configuration runs, and what a run leaves behind is where it is promised."""

import io
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console

from lightning_mmnas import Genotype
from lightning_mmnas.pipeline import STAGES, find_configs, run


@pytest.mark.slow
@pytest.mark.parametrize("name", ["watch"])
def test_stages(name: str, tmp_path: Path) -> None:
    configs, output = tmp_path / "configs", tmp_path / "run"
    ignored = shutil.ignore_patterns("comparison.yaml")  # has a test of its own
    shutil.copytree(find_configs(name), configs, ignore=ignored)
    console = Console(file=io.StringIO())
    results = run(configs, output, overrides=["--trainer.limit_train_batches=2"], console=console)
    for stage in STAGES:
        assert (output / stage / "config.yaml").is_file()
        last = output / stage / "checkpoints" / "last.ckpt"
        assert "state_dict" in torch.load(last, weights_only=True)
    genotype = Genotype.load(output / "genotype.json")
    assert results["space_size"] == genotype.space.size()
    assert set(results["parameters"]) == {"supernet", "network"}
    assert (output / "genotype.png").read_bytes().startswith(b"\x89PNG")


def test_configs_hold_no_absolute_path_and_write_below_run_dir() -> None:
    for path in sorted(find_configs("watch").parent.glob("*/*.yaml")):
        content = yaml.safe_load(path.read_text())
        if path.stem not in STAGES:
            continue
        assert content["run_dir"] == f"runs/{path.parent.name}"
        assert content["trainer"]["default_root_dir"] == f"${{run_dir}}/{path.stem}"
        assert " /" not in path.read_text(), f"absolute path in {path}"
