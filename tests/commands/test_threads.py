"""Small stages are trained on one thread, others on as many as there are."""

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from typing_extensions import override

from lightning_mmnas.commands.mmnas import main
from lightning_mmnas.commands.stages import find_configs

seen: list[int] = []


class SeeThreads(Callback):
    """Notes the threads at the start of training."""

    @override
    def on_train_start(self, trainer: object, pl_module: object) -> None:
        seen.append(torch.get_num_threads())


@pytest.mark.parametrize(("large", "threads"), [(False, 1), (True, 2)])
def test_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, large: bool, threads: int) -> None:
    pytest.importorskip("seglearn", reason="holds the watch recordings: pip install '.[demo]'")
    if large:
        monkeypatch.setattr("lightning_mmnas.commands.threads._NUMBERS", 100)  # in a sample of the watch
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen.clear()
    watch = find_configs("watch")
    files = ["--config", str(watch / "common.yaml"), "--config", str(watch / "encoders.yaml")]
    words = ["--run_dir", str(tmp_path), "--trainer.callbacks+", f"{__name__}.SeeThreads"]
    try:
        assert main(["fit", *files, *words, "--trainer.fast_dev_run", "1"]) == 0
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [threads]
