"""Time of a search epoch with frozen backbones in the loop against one over cached features.

    python benchmarks/feature_cache.py --posters mmimdb_mini/dataset --samples 512

VGG-19 (random weights: its time does not depend on them) on 160x256 posters beside a small encoder of vectors made of
the plots' words (hashed counts). The posters are the `.jpeg` files of a folder, each with a `.json` of the same name
that has a `plot`; without `--posters`, random pictures. An epoch is timed end to end, reading the files included:
the first epoch of either is left out. Amortised is the time per epoch of a search of so many epochs, building included.
"""

import argparse
import hashlib
import json
import re
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from lightning_mmnas import ArchitectureAlternation, FeatureCaching, FusionSearch
from lightning_mmnas.data.base import ModalitySpec, MultimodalDataModule, Split
from lightning_mmnas.data.columns.column import Column, ColumnSamples, TensorColumn
from lightning_mmnas.data.columns.images import image_column
from lightning_mmnas.encoders.features import FeatureEncoder
from lightning_mmnas.encoders.image import TorchvisionEncoder

SIZE = (3, 256, 160)
WORDS = 256


class Posters(MultimodalDataModule):
    """Posters and hashed counts of the plots' words, without labels."""

    def __init__(self, folder: Path | None, samples: int, batch_size: int) -> None:
        self.files = sorted(folder.glob("*.jpeg"))[:samples] if folder else []
        self.samples = len(self.files) if folder else samples
        super().__init__(batch_size=batch_size, labels=False, architecture_fraction=0.5)

    @property
    def available_modalities(self) -> dict[str, ModalitySpec]:
        return {"image": ModalitySpec("image", SIZE, torch.uint8), "text": ModalitySpec("features", (WORDS,))}

    @property
    def class_names(self) -> list[str]:
        return []

    @property
    def task(self) -> None:
        return None

    def _samples(self, split: Split) -> ColumnSamples:
        generator = torch.Generator().manual_seed(0)
        if self.files:
            images: Column = image_column(self.files, SIZE[1:])
            words = torch.stack([counts(path.with_suffix(".json")) for path in self.files])
        else:
            pixels = torch.randint(256, (self.samples, *SIZE), generator=generator, dtype=torch.uint8)
            images, words = TensorColumn(pixels, "random"), torch.rand(self.samples, WORDS, generator=generator)
        return ColumnSamples({"image": images, "text": TensorColumn(words, "words")})


def counts(path: Path) -> Tensor:
    plot = json.loads(path.read_text(encoding="utf-8")).get("plot", "")
    found = torch.zeros(WORDS)
    for word in re.findall(r"\w+", " ".join(plot) if isinstance(plot, list) else plot):
        found[hashlib.md5(word.lower().encode()).digest()[0]] += 1
    return found.log1p()


class Epochs(Callback):
    """Seconds of every epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.start = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(time.perf_counter() - self.start)


def search(options: argparse.Namespace, epochs: int, folder: Path | None) -> dict[str, float]:
    """Median seconds per epoch but the first, and seconds of everything else."""
    seed_everything(0, verbose=False)
    data = Posters(options.posters, options.samples, options.batch_size)
    encoders: dict[str, Any] = {
        "image": lambda spec: TorchvisionEncoder(spec, "vgg19"),
        "features": FeatureEncoder,
    }
    module = FusionSearch(data.modalities, encoders, channels=64, length=16)
    timer = Epochs()
    callbacks: list[Callback] = [timer, ArchitectureAlternation()]
    if folder is not None:
        callbacks.append(FeatureCaching(str(folder), views=options.views))
    trainer = Trainer(
        accelerator=options.accelerator,
        devices=1,
        max_epochs=epochs,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=callbacks,
    )
    start = time.perf_counter()
    trainer.fit(module, datamodule=data)
    whole = time.perf_counter() - start
    per_epoch = statistics.median(timer.seconds[1:] or timer.seconds)
    return {"per_epoch": per_epoch, "build": whole - sum(timer.seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--posters", type=Path, help="folder of .jpeg and .json files")
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--views", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=5, help="of the cached search; the other has two")
    parser.add_argument("--accelerator", default="auto")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cached = search(options, options.epochs, Path(folder))
        memory = {"peak_mb_cached_with_build": peak()}
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.npy"))
        raw = search(options, 2, None)
    saved = raw["per_epoch"] - cached["per_epoch"]
    print(
        json.dumps(
            {
                "samples": options.samples,
                "views": options.views,
                "threads": torch.get_num_threads(),
                "torch": torch.__version__,
                "seconds_per_epoch_raw": raw["per_epoch"],
                "seconds_per_epoch_cached": cached["per_epoch"],
                "speed_up": raw["per_epoch"] / cached["per_epoch"],
                "seconds_to_build": cached["build"],
                "break_even_epoch": cached["build"] / saved if saved > 0 else None,
                "amortised_seconds_per_epoch": {n: cached["per_epoch"] + cached["build"] / n for n in (10, 30, 100)},
                "cache_mb": size / 1e6,
                **memory,
                "peak_mb_both": peak(),
            },
            indent=2,
        )
    )


def peak() -> float:
    """Greatest memory of this process so far, and of the GPU's allocator, in MB."""
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + device / 1e6


if __name__ == "__main__":
    main()
