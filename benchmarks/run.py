"""How fast is the search, against a plain reference of BM-NAS at equal mathematics?

    python -m benchmarks.run

Prints the tables of docs/performance.md and writes their numbers to benchmarks/results/speed.json. What is compared
runs in turn in one process on one thread; times are CPU times in milliseconds, medians over rounds. A few minutes on
one idle core.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightly
import lightning
import torch
from lightly.loss import NTXentLoss
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed_cases import (
    KINDS,
    PAIRINGS,
    SETTINGS,
    Step,
    alternation,
    discrete_step,
    dropout_step,
    nt_xent_step,
    pooling_step,
)
from benchmarks.trainer_overhead import bare_milliseconds, trainer_milliseconds
from lightning_mmnas.fusion.dropout import Dropout
from lightning_mmnas.fusion.fused import readable
from lightning_mmnas.fusion.input_nodes import adaptive_pool
from lightning_mmnas.objectives.losses import nt_xent

RESULTS = Path(__file__).parent / "results" / "speed.json"
CASES = (("MM-IMDB", 8), ("MM-IMDB", 32), ("MM-IMDB", 128), ("NTU", 96))
PAIRS = (("MM-IMDB", 32), ("MM-IMDB", 128), ("NTU", 96))
OBJECTIVES: dict[str, nn.Module] = {"lightly": NTXentLoss(temperature=0.2), "ours": nt_xent(0.2)}
READABLE = "-readable"
Row = dict[str, Any]


def milliseconds(steps: Mapping[str, Step], rounds: int) -> dict[str, float]:
    """Median CPU time of each step, measured in turn."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(rounds + 1):  # the first round warms up
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(1e3 * (time.process_time() - start))
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def alternations(cases: Iterable[tuple[str, int]], rounds: int, simclr: bool) -> list[Row]:
    rows = []
    for name, batch in cases:
        steps = {kind: alternation(SETTINGS[name], kind, batch, simclr) for kind in KINDS}
        rows.append({"setting": name, "b": batch, **milliseconds(steps, rounds)})
    return rows


def forms(cases: Iterable[tuple[str, int]], rounds: int) -> list[Row]:
    """Our alternation with its fused functions and with the readable forms that stand beside them."""
    rows = []
    for name, batch in cases:
        for pairing in PAIRINGS:
            readable_step, fused_step = (alternation(SETTINGS[name], pairing, batch) for _ in range(2))
            steps = {"readable": in_readable_form(readable_step), "fused": fused_step}
            rows.append({"setting": name, "b": batch, "pairing": pairing, **milliseconds(steps, rounds)})
    return rows


def in_readable_form(step: Step) -> Step:
    def run() -> object:
        with readable():
            return step()

    return run


def discrete_networks(rounds: int) -> list[Row]:
    rows = []
    for name, batch in CASES:
        steps = {kind: discrete_step(SETTINGS[name], kind, batch) for kind in ("reference", "ours")}
        rows.append({"setting": name, "b": batch, **milliseconds(steps, rounds)})
    return rows


def contrastive_losses(rounds: int) -> list[Row]:
    rows = []
    for batch in (64, 256, 1024, 4096):
        steps = {name: nt_xent_step(objective, batch) for name, objective in OBJECTIVES.items()}
        rows.append({"b": batch, **milliseconds(steps, rounds if batch < 1024 else 3)})
    return rows


def dropouts(rounds: int) -> list[Row]:
    rows = []
    for p in (0.1, 0.5):
        steps = {"torch": dropout_step(nn.Dropout(p)), "ours": dropout_step(Dropout(p))}
        rows.append({"p": p, **milliseconds(steps, 10 * rounds)})
    return rows


def poolings(rounds: int) -> list[Row]:
    """Frozen encoders' features of 128 recordings or pictures, to the four positions of an input node."""
    rows = []
    for shape, size in (((128, 32, 64, 1), (4, 1)), ((128, 64, 16, 16), (2, 2))):
        for memory in ("channels first", "channels last"):
            last = memory == "channels last"
            steps = {
                "torch": pooling_step(partial(F.adaptive_max_pool2d, output_size=size), shape, last),
                "ours": pooling_step(partial(adaptive_pool, size=size, pool="max"), shape, last),
            }
            rows.append({"features": str(shape), "memory": memory, **milliseconds(steps, 10 * rounds)})
    return rows


def overhead(rounds: int) -> list[Row]:
    rows = []
    for pairing in PAIRINGS:
        loops: dict[str, Callable[..., float]] = {"bare loop": bare_milliseconds, "Trainer": trainer_milliseconds}
        times: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(max(rounds // 3, 1)):
            for name, loop in loops.items():
                times[name].append(loop(SETTINGS["MM-IMDB"], pairing, 32, 33))
        medians = {name: statistics.median(values) for name, values in times.items()}
        rows.append({"pairing": pairing, **medians, "added %": 100 * (medians["Trainer"] / medians["bare loop"] - 1)})
    return rows


def growth(rounds: int) -> list[Row]:
    rows = []
    for inputs in (4, 8, 16, 32, 64):
        setting = replace(SETTINGS["MM-IMDB"], inputs=inputs)
        steps = {kind: alternation(setting, kind, 32) for kind in KINDS}
        rows.append({"input nodes": inputs, **milliseconds(steps, max(rounds // 3, 1))})
    return rows


def peak_megabytes(kind: str) -> float:
    """Peak memory of a process of its own over what importing takes."""
    command = [sys.executable, "-m", "benchmarks.run", "--memory-of", kind]
    answer = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    return float(answer.stdout)


def print_memory(kind: str) -> None:
    """Three alternations of MM-IMDB at b = 128, or losses of 4,096 pairs, in this process."""
    before = _peak()
    pairing = kind.removesuffix(READABLE)
    step = (
        nt_xent_step(OBJECTIVES[kind], 4096) if kind in OBJECTIVES else alternation(SETTINGS["MM-IMDB"], pairing, 128)
    )
    if kind.endswith(READABLE):
        step = in_readable_form(step)
    for _ in range(3):
        step()
    print((_peak() - before) / 1024)


def _peak() -> int:
    """Peak resident memory of this process in KB; Linux's ``ru_maxrss`` would begin with that of the parent."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1)


class _Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts calls of operators that compute, not those that only view or allocate."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.count += not (
            func.is_view or name.startswith(("empty", "new_empty", "detach", "_reshape_alias", "_unsafe_view"))
        )
        return func(*args, **(kwargs or {}))


def operator_calls(name: str, kind: str) -> int:
    step = alternation(SETTINGS[name], kind, 8, foreach=True)
    step()
    with _Calls() as calls:
        step()
    return int(calls.count)


def markdown(rows: list[Row]) -> str:
    """Rows as a table; beside a reference, how many times as fast or small the others are."""
    columns = list(rows[0])
    against = next((name for name in ("reference", "lightly", "torch", "readable") if name in columns), None)

    def cell(row: Row, name: str) -> str:
        value = row[name]
        text = (
            f"{value:.4g}"
            if isinstance(value, float) and value < 1000
            else f"{value:.0f}"
            if isinstance(value, float)
            else str(value)
        )
        if against is None or columns.index(name) <= columns.index(against):
            return text
        return f"{text} ({row[against] / value:.2f}x)"

    lines = ["| " + " | ".join(columns) + " |", "|" + "-|" * len(columns)]
    return "\n".join([*lines, *("| " + " | ".join(cell(row, name) for name in columns) + " |" for row in rows)])


def measure(rounds: int, only: list[str] | None) -> dict[str, list[Row]]:
    """All tables by their titles."""
    few = max(rounds // 2, 1)
    parts: dict[str, tuple[str, Callable[[], list[Row]]]] = {
        "alternation": ("One alternation, ms", partial(alternations, CASES, rounds, False)),
        "simclr": ("One SimCLR alternation, b pairs of views, ms", partial(alternations, PAIRS, few, True)),
        "forms": ("One alternation in readable and in fused form, ms", partial(forms, CASES[1:], rounds)),
        "discrete": ("A training step of a found network, ms", partial(discrete_networks, rounds)),
        "nt_xent": ("NT-Xent and its gradient, b pairs of projections, ms", partial(contrastive_losses, rounds)),
        "dropout": ("Dropout of (128, 16, 192) values, ms", partial(dropouts, rounds)),
        "pooling": ("Maximum of features at four positions, ms", partial(poolings, rounds)),
        "trainer": ("Trainer, callback and logging, MM-IMDB, b = 32, ms per alternation", partial(overhead, rounds)),
        "memory": (
            "Peak memory, MM-IMDB, b = 128, MB",
            lambda: [{"setting": "MM-IMDB", **{kind: peak_megabytes(kind) for kind in KINDS}}],
        ),
        "forms_memory": (
            "Peak memory in readable and in fused form, MM-IMDB, b = 128, MB",
            lambda: [
                {"pairing": p, "readable": peak_megabytes(p + READABLE), "fused": peak_megabytes(p)} for p in PAIRINGS
            ],
        ),
        "nt_xent_memory": (
            "Peak memory of NT-Xent and its gradient, MB",
            lambda: [{"b": 4096, **{name: peak_megabytes(name) for name in OBJECTIVES}}],
        ),
        "calls": (
            "Operator calls of an alternation",
            lambda: [{"setting": name, **{kind: operator_calls(name, kind) for kind in KINDS}} for name in SETTINGS],
        ),
        "growth": ("Growth with the input nodes, MM-IMDB, b = 32, ms", partial(growth, rounds)),
    }
    found = {}
    for key, (title, part) in parts.items():
        if only and key not in only:
            continue
        found[key] = part()
        print(f"\n**{title}**\n\n{markdown(found[key])}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", help="tables to make; the JSON file is then left as it is")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument(
        "--memory-of", choices=[*KINDS, *OBJECTIVES, *(p + READABLE for p in PAIRINGS)], help=argparse.SUPPRESS
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory_of:
        print_memory(options.memory_of)
        return
    machine = {
        "command": "python -m benchmarks.run" + (f" --rounds {options.rounds}" if options.rounds != 15 else ""),
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "lightly": lightly.__version__,
    }
    print(", ".join(f"{name} {value}" for name, value in machine.items()))
    tables = measure(options.rounds, options.only)
    if not options.only:
        options.output.write_text(json.dumps({**machine, "tables": tables}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
