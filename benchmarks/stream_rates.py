"""How many bytes a sample takes in shards, how fast shards are written and read, beside the table itself.

    OMP_NUM_THREADS=1 python benchmarks/stream_rates.py --samples 3000 --rounds 3

A sample is a picture (a JPEG of 160 x 160, read as 64 x 64), motion (6 channels of 128 steps, a .npy file) and two
numbers. One process without workers reads all training samples in batches of 64; medians over rounds.
"""

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from lightning_mmnas import ColumnSpec, StreamDataModule, TableDataModule
from lightning_mmnas.data.base import MultimodalDataModule
from lightning_mmnas.data.stream.writing import write_shards

COLUMNS = {
    "picture": ColumnSpec("image", ["picture"], size=(64, 64)),
    "motion": ColumnSpec("motion", ["motion"], channels=6, length=128),
    "numbers": ColumnSpec("features", ["a", "b"]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        table = make_table(work, options.samples)
        print("| | bytes per sample | written, samples/s | read, samples/s |\n|-|-|-|-|")
        for files in ("decoded", "encoded"):
            start = time.process_time()
            write_shards(data_of(table), work / files, files=files)
            written = options.samples / (time.process_time() - start)
            shards = sum(path.stat().st_size for path in (work / files).rglob("*.bin"))
            read = rate(StreamDataModule(str(work / files), batch_size=64, labels=False), options.rounds)
            print(f"| {files} | {shards / options.samples:,.0f} | {written:,.0f} | {read:,.0f} |")
        print(f"| the table itself | | | {rate(data_of(table), options.rounds):,.0f} |")


def data_of(table: Path) -> TableDataModule:
    return TableDataModule(str(table), COLUMNS, split="split", labels=False, batch_size=64)


def make_table(folder: Path, samples: int) -> Path:
    """A table and its files; all samples but two are for training."""
    random = np.random.default_rng(0)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "motion", "a", "b", "split"])
        for i in range(samples):
            coarse = Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8))
            coarse.resize((160, 160), Image.Resampling.BICUBIC).save(folder / f"{i}.jpg", quality=85)
            np.save(folder / f"{i}.npy", random.standard_normal((128, 6)).astype(np.float32))
            split = "val" if i == 0 else "test" if i == 1 else "train"
            writer.writerow([f"{i}.jpg", f"{i}.npy", *random.standard_normal(2).round(4), split])
    return folder / "table.csv"


def rate(data: MultimodalDataModule, rounds: int) -> float:
    """Training samples read per CPU second."""
    data.setup("fit")
    rates = []
    for _ in range(rounds):
        start, count = time.process_time(), 0
        for batch in data.train_dataloader():
            count += len(batch["numbers"])
        rates.append(count / (time.process_time() - start))
    return statistics.median(rates)


if __name__ == "__main__":
    main()
