"""Tests of several processes: a module of the tests, run under torchrun with gloo."""

import os
import subprocess
import sys
from pathlib import Path


def run_on_two_ranks(module: str, *args: Path | str) -> None:
    """Runs a module by two processes; see `run_on_ranks`."""
    run_on_ranks(2, module, *args)


def run_on_ranks(count: int, module: str, *args: Path | str) -> None:
    """Runs a module by several processes on one machine, and fails with what they said if they fail."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}", "-m"]
    done = subprocess.run(
        [sys.executable, *launch, module, *map(str, args)],
        cwd=Path(__file__).parents[1],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
