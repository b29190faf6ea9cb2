"""What a search on several processes costs: the model of docs/many.md, checked at one and two processes.

    python -m benchmarks.many            # one process, two at once, two ranks with gloo; prints JSON
    python -m benchmarks.many --model    # the model alone, worked out for 10^5, 10^7 and 10^9 samples

A process measures its alternations, its collectives one by one, and counts what each step sends. Predicted for two
processes: the alternation of one process on a rank's batch, while another one does the same without knowing of it (two
processes share a machine's memory and caches), and the collectives.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from lightning_mmnas import ArchitectureAlternation, FusionSearch, MotionEncoder, TensorDataModule

SENSORS = ("accelerometer", "gyroscope")
BATCH, STEPS, D = 64, 40, 64


class Times(Callback):
    """Seconds of every alternation, the first ones left out."""

    def __init__(self) -> None:
        self.began = 0.0
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        self.seconds.append(time.perf_counter() - self.began)


def data_of(samples: int) -> TensorDataModule:
    """Two sensors, as in configs/watch."""
    split = {name: torch.randn(samples, 3, 128) for name in SENSORS}
    kinds: Any = dict.fromkeys(SENSORS, "motion")
    return TensorDataModule(split, split, kinds=kinds, labels=False, architecture_fraction=0.5, batch_size=BATCH)


def measure() -> dict[str, Any]:
    """One process's part."""
    torch.set_num_threads(1)
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    seed_everything(0, verbose=False)
    data, times = data_of(2 * BATCH * STEPS * ranks), Times()
    encoders: Any = {"motion": lambda spec: MotionEncoder(spec)}
    module = FusionSearch(data.modalities, encoders, channels=32, length=8, projection_out=D)
    trainer = Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy="ddp" if ranks > 1 else "auto",
        max_epochs=1,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[ArchitectureAlternation(lr=0.1), times],
    )
    trainer.fit(module, datamodule=data)
    weights = sum(p.numel() for p in module.parameters() if p.requires_grad)
    buffers = sum(b.numel() * b.element_size() for b in module.buffers())
    logits = sum(p.numel() for p in module.architecture_parameters())
    found: dict[str, Any] = {
        "ranks": ranks,
        "batch": BATCH,
        "step_seconds": median(times.seconds[5:]),
        "bytes": {
            "gradient of the weights, all-reduce": 4 * weights,
            "buffers, broadcast": buffers,
            "gradient of the logits, all-reduce": 4 * logits,
            "projections of a step's two losses, all-gather": 2 * 2 * BATCH * D * 4,
        },
        "collectives": {},
    }
    if ranks > 1:
        sizes = found["bytes"]
        found["collectives"] = {name: timed(name, size // 4) for name, size in sizes.items()}
        found["collectives"]["small, such as sizes and signals"] = timed("all-reduce", 2)
        dist.destroy_process_group()
    return found


def timed(name: str, numbers: int, repeats: int = 30) -> float:
    """Median seconds of a collective."""
    tensor = torch.ones(max(numbers, 1))
    found = [torch.empty_like(tensor) for _ in range(dist.get_world_size())]
    calls: dict[str, Callable[[], Any]] = {
        "broadcast": partial(dist.broadcast, tensor, 0),
        "gather": partial(dist.all_gather, found, tensor),
    }
    call = next((call for kind, call in calls.items() if kind in name), partial(dist.all_reduce, tensor))
    seconds = []
    for _ in range(repeats):
        dist.barrier()
        began = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - began)
    return median(seconds)


def worked_out(
    samples: float,
    ranks: int,
    batch: int = 1024,
    step_seconds: float = 0.1,
    weights: float = 1e6,
    bandwidth: float = 10e9,
    latency: float = 50e-6,
    epochs: int = 30,
    features: int = 4 * 64 * 8,
    views: int = 8,
) -> dict[str, float]:
    """The model of docs/many.md.

    Args:
        samples: Training samples, of which a search reads one half per part.
        ranks: Number of processes, >= 1.
        batch: Samples per rank and part.
        step_seconds: Seconds of an alternation of one rank.
        weights: Numbers that DDP reduces.
        bandwidth: Bytes per second between ranks.
        latency: Seconds that a collective takes at least, per step of a ring's logarithm.
        epochs: Passes through the weights' part.
        features: Numbers that are stored of a view.
        views: Stored views of a sample, K.
    """
    steps = epochs * samples / 2 / (batch * ranks)
    ring = 2 * (ranks - 1) / ranks * 4 * weights
    gathered = 3 * (ranks - 1) * 2 * 2 * batch * D * 4  # forward, and the sum over ranks of its gradient
    rounds = 8 * max(ranks - 1, 0).bit_length() * latency
    communication = (ring + gathered) / bandwidth + rounds
    return {
        "steps": steps,
        "hours": steps * (step_seconds + communication) / 3600,
        "share of communication": communication / (step_seconds + communication),
        "cache, GB": samples * (views + 1) * features * 2 / 1e9,
    }


def launched(ranks: int, copies: int = 1) -> list[dict[str, Any]]:
    """What the first of so many processes has measured, of every copy that runs at the same time."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"] if ranks > 1 else []
    command = [sys.executable, *launch, "-m", "benchmarks.many", "--measure"]
    folder = Path(__file__).parents[1]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) for _ in range(copies)]
    outputs = [process.communicate()[0] for process in running]
    return [json.loads(next(line for line in out.splitlines() if line.startswith("{"))) for out in outputs]


def main() -> None:
    """Prints the measurements and the prediction, or the model's numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="as one of the processes")
    parser.add_argument("--model", action="store_true", help="the model alone")
    options = parser.parse_args()
    if options.measure:
        found = measure()
        if int(os.environ.get("RANK", "0")) == 0:
            print(json.dumps(found))
        return
    cases = [(1e5, 1), (1e5, 8), (1e7, 8), (1e7, 64), (1e9, 64), (1e9, 512)]
    model = [{"samples": samples, "ranks": ranks, **worked_out(samples, ranks)} for samples, ranks in cases]
    if options.model:
        print(json.dumps(model, indent=2))
        return
    (one,), beside, (two,) = launched(1), launched(1, copies=2), launched(2)
    alone = max(found["step_seconds"] for found in beside)
    times = two["collectives"]
    gather = next(value for name, value in times.items() if "gather" in name)
    small = times["small, such as sizes and signals"]
    predicted = alone + sum(times.values()) + gather + 3 * small
    seconds = {"one": one["step_seconds"], "two at once": alone, "two ranks, predicted": predicted}
    seconds["two ranks, measured"] = two["step_seconds"]
    print(json.dumps({"seconds": seconds, "two": two, "model": model}, indent=2))


if __name__ == "__main__":
    main()
