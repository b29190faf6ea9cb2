"""`mmnas cache` builds what the stage then finds."""

from pathlib import Path

import pytest

from lightning_mmnas.commands.mmnas import main

CONFIG = """
trainer: {accelerator: cpu, logger: false, enable_checkpointing: false, max_epochs: 1, limit_train_batches: 1,
  limit_val_batches: 0, enable_progress_bar: false, enable_model_summary: false,
  callbacks: [{class_path: FeatureCaching, init_args: {folder: "${run_dir}/stored", views: 2, on_change: refuse}},
    {class_path: ArchitectureAlternation}]}
model:
  class_path: FusionSearch
  init_args: {encoders: {motion: {class_path: MotionEncoder, init_args: {channels: [4, 4]}}}, channels: 4, length: 2}
data:
  class_path: WatchDataModule
  init_args: {stride: 512, batch_size: 8, labels: false, architecture_fraction: 0.5}
"""


@pytest.mark.slow
def test_cache_is_built_alone_and_then_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "search.yaml"
    config.write_text(CONFIG)
    arguments = ["--config", str(config), "--run_dir", str(tmp_path / "run")]
    assert main(["cache", *arguments]) == 0
    said = capsys.readouterr()
    assert "MB to be written" in said.err
    assert f"features of train in {tmp_path / 'run' / 'stored'}" in said.out
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "stored").rglob("*.npy")}
    assert len(times) == 3
    assert main(["fit", *arguments]) == 0
    assert "to be written" not in capsys.readouterr().err
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "stored").rglob("*.npy")}
    assert main(["cache", *arguments, "--model.init_args.length", "4"]) == 2
    assert "pooling" in capsys.readouterr().err
    assert main(["cache"]) == 2
    assert "--config search.yaml" in capsys.readouterr().err
