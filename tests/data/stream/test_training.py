"""Searches over shards: of one process, of two, killed and resumed, and with a feature cache."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Callback, Trainer

from lightning_mmnas import ArchitectureAlternation, FeatureCaching, FeatureEncoder, FusionSearch, StreamDataModule
from lightning_mmnas.data.stream.shards import Shards
from lightning_mmnas.errors import CacheError
from tests.data.stream.make_shards import data_of, make_numbers
from tests.modules.tiny import same, state_of, trainer_of
from tests.ranks import context, run_on_two_ranks


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_numbers(tmp_path_factory.mktemp("numbers"))


def search_of(data: StreamDataModule) -> FusionSearch:
    torch.manual_seed(0)
    small = {"channels": 4, "length": 2, "projection_hidden": 8, "projection_out": 4}
    return FusionSearch(data.modalities, {"features": FeatureEncoder}, **small)  # type: ignore[arg-type]


class Killing(Callback):
    """Writes a checkpoint after some batch, and kills this process."""

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.step = step

    def on_train_batch_end(self, trainer: Trainer, *args: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            os.kill(os.getpid(), signal.SIGKILL)


def fit(shards: Path, folder: Path, seed: int, workers: int, kill: int = 0) -> dict[str, torch.Tensor]:
    """A search of 20 steps, from its checkpoint if there is one; an epoch reads the architecture part 2.5 times."""
    checkpoint = folder / "killed.ckpt"
    data = data_of(shards, architecture_fraction=0.3, batch_size=8, num_workers=workers)
    module = search_of(data)
    killing = [Killing(checkpoint, kill)] if kill else []
    trainer = trainer_of(folder, max_epochs=2, callbacks=[*killing, ArchitectureAlternation(lr=0.1)])
    torch.manual_seed(seed)
    trainer.fit(module, data, ckpt_path=checkpoint if checkpoint.is_file() else None)
    return state_of(module)


@pytest.mark.slow
def test_a_killed_search_that_is_resumed_ends_as_an_unbroken_one(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = fit(shards, tmp_path, 0, workers=0)
    process = context().Process(target=fit, args=(shards, tmp_path, 0, 0, 15))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert (tmp_path / "killed.ckpt").is_file()
    read: list[int] = []
    record = Shards.record

    def counted(self: Shards, index: int) -> bytes:
        read.append(index)
        return record(self, index)

    monkeypatch.setattr(Shards, "record", counted)
    assert same(fit(shards, tmp_path, 99, 0), expected)
    # One sample of validation and 5 steps of two parts of 8 are read: what the epoch had seen before is not.
    assert len(read) < 8 + 8 + 5 * 2 * 8 + 1
    assert same(fit(shards, tmp_path, 99, 1), expected), "with a worker"


@pytest.mark.slow
def test_two_ranks_read_disjoint_samples_and_agree(shards: Path) -> None:
    root = shards.parent
    run_on_two_ranks("tests.data.stream.ddp_stream", root)
    first, second = (torch.load(root / f"{rank}.pt") for rank in (0, 1))
    assert same(first["state"], second["state"])
    parts = {name: set(values.mul(1000).round().int().tolist()) for name, values in first["parts"].items()}
    assert not parts["weights"] & parts["architecture"]
    assert len(parts["weights"] | parts["architecture"]) == 120
    for epoch in (0, 1):
        for part, there in parts.items():
            one, two = set(first["seen"][epoch, part]), set(second["seen"][epoch, part])
            assert one | two <= there
            # At most one sample is there to fill up, and incomplete batches are left out in contrastive training.
            assert len(one & two) <= 1
            assert len(one | two) > len(there) - 2 * 7
    assert first["seen"][0, "weights"] != first["seen"][1, "weights"]


def test_features_are_cached_or_computed_as_they_are_streamed(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "features"
    data = data_of(shards, architecture_fraction=0.5)
    module = search_of(data)
    caching = FeatureCaching(str(folder), views=2)
    trainer_of(tmp_path, callbacks=[caching, ArchitectureAlternation()], limit_train_batches=2).fit(module, data)
    assert (folder / "train" / "views" / "shard-00000.npy").is_file()
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10})())
    data = data_of(shards, architecture_fraction=0.5)
    caching = FeatureCaching(str(tmp_path / "more"), views=2)
    with pytest.raises(CacheError, match=r"0\.0 MB left; .*enabled=false") as error:
        trainer_of(tmp_path, callbacks=[caching, ArchitectureAlternation()]).fit(search_of(data), data)
    assert "\n" not in str(error.value)
    data = data_of(shards, architecture_fraction=0.5)
    caching = FeatureCaching(str(tmp_path / "more"), views=2, enabled=False)
    trainer = trainer_of(tmp_path, callbacks=[caching, ArchitectureAlternation()], limit_train_batches=2)
    trainer.fit(search_of(data), data)
    assert trainer.global_step == 2
    assert not list((tmp_path / "more").rglob("*.npy"))
