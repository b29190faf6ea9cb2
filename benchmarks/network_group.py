"""How much faster is training networks as a group than one by one, at equal mathematics?

    OMP_NUM_THREADS=1 python benchmarks/network_group.py

NT-Xent steps (128 pairs, AdamW) of random architectures of the AV-MNIST configuration, as `NetworkGroup` and one by
one, in turn in one process; milliseconds of processor time per network and step, median over rounds, one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_mmnas import FusionNetwork, FusionSpace
from lightning_mmnas.commands.memory import keep_freed_memory
from lightning_mmnas.fusion.compact import compact_shapes
from lightning_mmnas.fusion.readout import ReadoutName
from lightning_mmnas.objectives.fusion_objective import FusionObjective, projection_head
from lightning_mmnas.objectives.groups import ContrastiveGroup
from lightning_mmnas.objectives.losses import local_objective, nt_xent
from lightning_mmnas.objectives.training import build_optimizer

SHAPES = {
    f"{modality}/{level}": shape
    for modality in ("image", "audio")
    for level, shape in enumerate([(16, 14, 14), (32, 7, 7), (64, 4, 4)])
}


def stepper(module: nn.Module, first: dict[str, Tensor], second: dict[str, Tensor]) -> Callable[[], None]:
    """One training step of a module."""
    optimizer, schedule = build_optimizer([{"params": list(module.parameters()), "lr": 3e-3}], 1e-4, "constant", 1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(module(first, second))
        optimizer.step()
        schedule.step()

    return step


def main() -> None:
    """Prints one line per readout and size of the group."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--length", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()  # as `mmnas` does
    space = FusionSpace(inputs=tuple(SHAPES), channels=32, length=options.length)
    generator = torch.Generator().manual_seed(0)
    shapes = compact_shapes(SHAPES, options.length, "auto")
    first, second = ({name: torch.randn(128, *shape) for name, shape in shapes.items()} for _ in range(2))
    readouts: tuple[ReadoutName, ...] = ("pool", "branch")
    for readout in readouts:
        for size in (4, 16):
            members = []
            for _ in range(size):
                network = FusionNetwork(space.sample(generator), SHAPES, readout)
                head = projection_head(network.out_features, 128, 64)
                members.append(FusionObjective(network, head, local_objective(nt_xent(0.2))))
            together = stepper(ContrastiveGroup.of(members), first, second)
            alone = [stepper(member, first, second) for member in members]
            times: dict[str, list[float]] = {"group": [], "one by one": []}
            for _ in range(options.rounds + 2):
                for name, steps in (("group", [together]), ("one by one", alone)):
                    start = time.process_time()
                    for step in steps:
                        step()
                    times[name].append(1e3 * (time.process_time() - start) / size)
            found = {name: statistics.median(values[2:]) for name, values in times.items()}
            ratio = found["one by one"] / found["group"]
            print(
                f"{readout}, {size} networks: {found['one by one']:.2f} -> {found['group']:.2f} ms, {ratio:.2f}x",
                flush=True,
            )


if __name__ == "__main__":
    main()
