"""Time and memory of `mmnas predict`, `embed` and `evaluate` on tables of many rows: do they stay bounded?

    OMP_NUM_THREADS=1 python benchmarks/apply_rows.py --rows 10000 100000 1000000

A small model of a text and six numbers is trained on 600 rows; then each command is run in a process of its own, and
its seconds and its peak of memory are printed.
"""

import argparse
import csv
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from lightning.pytorch import Trainer

import lightning_mmnas
from lightning_mmnas import ColumnSpec, FeatureEncoder, FineTuning, FusionSpace, TableDataModule, TextEncoder
from lightning_mmnas.modules.frozen import FrozenEncoders, build_encoders

WORDS = {"low": ["calm", "slow", "grey", "still"], "high": ["quick", "loud", "bright", "wild"]}
NUMBERS = [f"n{i}" for i in range(6)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    options = parser.parse_args()
    print(f"torch {torch.__version__}, {os.environ.get('OMP_NUM_THREADS', 'all')} threads")
    print("| rows | command | s | rows/s | peak MB | output MB |\n|-|-|-|-|-|-|")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_table(work / "train.csv", 600)
        deliver(work / "train.csv", work / "run")
        for rows in options.rows:
            write_table(table := work / "table.csv", rows)
            for words, output in (
                (["predict", "--output"], "predictions.csv"),
                (["embed", "--output"], "vectors.npy"),
                (["evaluate", "--output"], "scores.json"),
            ):
                path = work / output
                seconds, peak = measured([words[0], str(work / "run"), str(table), words[1], str(path)])
                size = path.stat().st_size / 2**20
                path.unlink()
                print(f"| {rows:,} | {words[0]} | {seconds:.0f} | {rows / seconds:,.0f} | {peak:,.0f} | {size:,.0f} |")


def write_table(path: Path, rows: int) -> None:
    """A table whose numbers and words tell its label, with noise."""
    generator = random.Random(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "note", *NUMBERS, "label"])
        for i in range(rows):
            label = generator.choice(list(WORDS))
            words = generator.choices(WORDS[label] + WORDS[generator.choice(list(WORDS))], k=6)
            numbers = [f"{generator.gauss(label == 'high', 2):.4f}" for _ in NUMBERS]
            writer.writerow([i, " ".join(words), *numbers, label])


def deliver(table: Path, run: Path) -> None:
    """Trains the model and writes it as `mmnas run` does."""
    columns = {
        "text": ColumnSpec("text", ["note"], length=8, vocabulary=64),
        "numbers": ColumnSpec("features", NUMBERS),
    }
    torch.manual_seed(0)
    data = TableDataModule(str(table), columns, label="label", id="id", batch_size=64)
    encoders = {"text": TextEncoder, "numbers": FeatureEncoder}
    shapes = FrozenEncoders(build_encoders(data.modalities, encoders)).feature_shapes
    space = FusionSpace(inputs=tuple(shapes), cells=2, steps=1, channels=16, length=4)
    genotype = space.sample(torch.Generator().manual_seed(0))
    stage = FineTuning(data.modalities, encoders, data.num_classes, data.task, genotype=genotype)
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    Trainer(max_epochs=3, logger=False, enable_checkpointing=False, **quiet).fit(stage, data)
    lightning_mmnas.save(stage, data, run / "model")


def measured(arguments: list[str]) -> tuple[float, float]:
    """Seconds of a command, and its peak of memory in MB."""
    start = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "lightning_mmnas", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    complaint = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(complaint)
    return time.monotonic() - start, usage.ru_maxrss / (1024 if sys.platform != "darwin" else 2**20)


if __name__ == "__main__":
    main()
