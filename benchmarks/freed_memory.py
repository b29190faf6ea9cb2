"""Time of a training step of a video encoder, where freed memory is kept and where it is given back.

    OMP_NUM_THREADS=1 python benchmarks/freed_memory.py --rounds 3

Each measurement is a process of its own; the two kinds take turns. User and system seconds of four steps, page faults
and peak of memory, medians over rounds.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys

MEASURE = "--measure"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=32, help="clips of 16 frames of 64 x 64, one channel")
    parser.add_argument(MEASURE, choices=["kept", "given back"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure == "kept", options.batch_size)))
        return
    found: dict[str, list[list[float]]] = {"given back": [], "kept": []}
    for _ in range(options.rounds):
        for kind, values in found.items():
            command = [sys.executable, __file__, MEASURE, kind, "--batch_size", str(options.batch_size)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            values.append(json.loads(done.stdout.splitlines()[-1]))
    print("| freed memory | user s | system s | page faults | peak MB |\n|-|-|-|-|-|")
    for kind, values in found.items():
        user, system, faults, peak = (statistics.median(column) for column in zip(*values, strict=True))
        print(f"| {kind} | {user:.2f} | {system:.2f} | {faults:,.0f} | {peak:,.0f} |")


def measure(kept: bool, batch_size: int) -> list[float]:
    """User and system seconds, page faults of four steps, and the peak of memory in MB."""
    from lightning_mmnas.commands.memory import keep_freed_memory

    if kept and not keep_freed_memory():
        raise SystemExit("this system keeps no freed memory")
    import torch

    from lightning_mmnas import VideoEncoder
    from lightning_mmnas.data.spec import ModalitySpec

    torch.manual_seed(0)
    encoder = VideoEncoder(ModalitySpec("video", (1, 16, 64, 64)))
    clips = torch.rand(batch_size, 1, 16, 64, 64)
    optimizer = torch.optim.Adam(encoder.parameters())

    def step() -> None:
        loss = encoder(clips)[-1].square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    step()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(4):
        step()
    after = resource.getrusage(resource.RUSAGE_SELF)
    faults = after.ru_minflt - before.ru_minflt
    return [after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, faults, after.ru_maxrss / 1024]


if __name__ == "__main__":
    main()
