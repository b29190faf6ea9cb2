"""What ``compile: true`` is worth: a search's alternation with and without it, on one device.

    python -m benchmarks.compiled                 # a CPU
    python -m benchmarks.compiled --device cuda

Prints the seconds that compiling takes, and the median time of an alternation (one architecture step and one weight
step of the supernet, MM-IMDB's published setting) of both, interleaved.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch

from benchmarks.our_alternation import Alternation
from benchmarks.speed_cases import PAIRINGS, SETTINGS, PlainLoss
from lightning_mmnas.fusion.compiling import compile_fusion


def seconds(step: Callable[[], object], device: torch.device) -> float:
    """How long a call takes, with all that it started on the device."""
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--batch", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device, setting = options.device, SETTINGS["MM-IMDB"]
    print(f"{device}, torch {torch.__version__}\n")
    print("| pairing | batch | compiling, s | plain, ms | compiled, ms | ratio |\n|-|-|-|-|-|-|")
    for pairing in PAIRINGS:
        for batch in options.batch:
            torch.compiler.reset()
            steps = []
            for compile in (False, True):
                torch.manual_seed(0)
                supernet = setting.supernet(pairing).to(device)
                if compile:
                    compile_fusion(supernet, device)
                features = {n: f.to(device) for n, f in setting.features(setting.states(batch)).items()}
                logits = supernet.architecture_parameters()
                alternation = Alternation(list(supernet.parameters()), logits, PlainLoss(supernet))
                steps.append(lambda a=alternation, f=features: a(f, f))
            first = [sum(seconds(step, device) for _ in range(3)) for step in steps]
            times = [[seconds(step, device) for step in steps] for _ in range(options.rounds)]
            plain, compiled = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
            print(
                f"| {pairing} | {batch} | {first[1] - first[0]:.0f} | {plain:.1f} | {compiled:.1f} | "
                f"{plain / compiled:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
