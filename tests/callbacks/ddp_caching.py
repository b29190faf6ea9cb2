"""A search of two gloo processes over features, run by test_caching.py under torchrun."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything

from lightning_mmnas import ArchitectureAlternation, FeatureCaching
from lightning_mmnas.data import cache


@contextmanager
def small_shards() -> Iterator[None]:
    """Shards of one batch."""
    before = cache._SHARD_BYTES
    cache._SHARD_BYTES = 1
    try:
        yield
    finally:
        cache._SHARD_BYTES = before


class Rows(Callback):
    """Which samples this rank trained on in the first epoch."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 0:
            self.seen += batch["weights"]["facts/1"][:, 0].sum(1).tolist()


def main(folder: Path) -> None:
    warnings.filterwarnings("ignore")
    from tests.callbacks.test_caching import data_of, search_of

    seed_everything(3, verbose=False)
    written = 0
    original = cache.FeatureCache.build

    def build(self: cache.FeatureCache, samples: Any, keys: Any, encode: Any, shards: list[int], *rest: Any) -> None:
        nonlocal written
        written += len(shards)
        original(self, samples, keys, encode, shards, *rest)

    looked_at: list[str] = []
    is_whole = cache.FeatureCache._is_whole

    def noted(self: cache.FeatureCache, number: int) -> bool:
        looked_at.append(str(self._path(number)))
        return is_whole(self, number)

    cache.FeatureCache._is_whole = noted  # type: ignore[method-assign]
    cache.FeatureCache.build = build  # type: ignore[method-assign, assignment]
    rows, module = Rows(), search_of(0.1)
    caching = FeatureCaching(str(folder / "two"), views=3, dtype="float32", batch_size=8)
    trainer = Trainer(
        accelerator="cpu",
        strategy="ddp",
        devices=2,
        max_epochs=2,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[caching, rows, ArchitectureAlternation(lr=0.1)],
    )
    with small_shards():
        trainer.fit(module, datamodule=data_of(batch_size=6))
    trained = {name: value.clone() for name, value in module.named_parameters()}
    torch.save(
        {"rows": rows.seen, "written": written, "looked at": looked_at, "state": trained},
        folder / f"rank{trainer.global_rank}.pt",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
