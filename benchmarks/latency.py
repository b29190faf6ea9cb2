"""Latency added up from the parts of random architectures against that of the whole networks.

    OMP_NUM_THREADS=1 python benchmarks/latency.py --architectures 16 --batch_sizes 1 16 --rounds 4 --processor_time

Two spaces: that of `configs/watch` (c = 32, l = 8), and one of MM-IMDB's size (c = 192, l = 16, features of VGG-19's
shapes beside two vectors). Every network is measured in each of several rounds, in another order each time; what
counts is the least of the rounds, since other work on the machine only adds. Spearman's rank correlation is between
sum and measurement; "in order" is the share of those pairs of architectures in order whose measurements differ by more
than a tenth.
"""

import argparse
import itertools
import random
import time
from functools import partial
from statistics import median
from typing import Any

import torch
from scipy.stats import spearmanr
from torch import nn
from torch.utils.benchmark import Timer

from lightning_mmnas import CostTable, FusionNetwork, FusionSpace
from lightning_mmnas.costs.measuring import measure_latency

Shapes = dict[str, tuple[int, ...]]
WATCH: Shapes = {
    f"{sensor}/{level}": (c, length)
    for sensor in ("accelerometer", "gyroscope")
    for level, (c, length) in enumerate(((32, 64), (64, 32), (64, 16)))
}
FILMS: Shapes = {
    **{f"image/{i}": shape for i, shape in enumerate([(512, 32, 20), (512, 16, 10), (512, 16, 10), (512, 8, 5)])},
    "text/0": (128,),
    "text/1": (64,),
}
SPACES = {
    "watch": (FusionSpace(inputs=tuple(WATCH), channels=32, length=8), WATCH),
    "films": (FusionSpace(inputs=tuple(FILMS), channels=192, length=16), FILMS),
}


def processor_time(module: nn.Module, arguments: tuple[Any, ...]) -> float:
    """Processor seconds of one call: the median of nine repeats of about 10 ms."""
    timer = Timer("module(*arguments)", globals={"module": module, "arguments": arguments}, timer=time.process_time)
    with torch.inference_mode():
        calls = max(1, int(0.01 / timer.timeit(5).mean))
        return median(timer.timeit(calls).mean for _ in range(9))


def main() -> None:
    """Prints one row per space and batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architectures", type=int, default=16)
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--processor_time", action="store_true", help="of this process, on a busy machine; CPU only")
    options = parser.parse_args()
    threads = torch.get_num_threads()
    clock = processor_time if options.processor_time else partial(measure_latency, threads=threads)
    print(f"torch {torch.__version__}, {options.device}, {threads} thread(s), {options.architectures} architectures")
    print("| space | batch | measured, ms | measured / sum, median (range) | Spearman | in order |\n|-|-|-|-|-|-|")
    for (name, (space, shapes)), b in itertools.product(SPACES.items(), options.batch_sizes):
        generator = torch.Generator().manual_seed(0)
        genotypes = list({space.sample(generator): None for _ in range(options.architectures)})
        features = {n: torch.rand(b, *shape, device=options.device) for n, shape in shapes.items()}
        networks = [FusionNetwork(genotype, shapes).eval().to(options.device) for genotype in genotypes]
        sums: list[list[float]] = [[] for _ in genotypes]
        whole: list[list[float]] = [[] for _ in genotypes]
        for number in range(options.rounds):
            table = CostTable.measure(space, shapes, "latency", device=options.device, batch_size=b, measure=clock)
            for i in random.Random(number).sample(range(len(genotypes)), len(genotypes)):
                sums[i].append(table.of(genotypes[i]))
                whole[i].append(clock(networks[i], (features,)))
        estimate, measured = [min(row) for row in sums], [min(row) for row in whole]
        ratios = sorted(m / e for m, e in zip(measured, estimate, strict=True))
        rank = float(spearmanr(estimate, measured).statistic)
        apart = [
            (i, j)
            for i, j in itertools.combinations(range(len(genotypes)), 2)
            if max(measured[i], measured[j]) > 1.1 * min(measured[i], measured[j])
        ]
        right = sum((estimate[i] - estimate[j]) * (measured[i] - measured[j]) > 0 for i, j in apart)
        low, high = 1e3 * min(measured), 1e3 * max(measured)
        print(
            f"| {name} | {b} | {low:.2f} to {high:.2f} | {median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
            f" | {rank:.2f} | {right} of {len(apart)} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
