"""Tests of several processes: a module of the tests, run under torchrun by two processes with gloo."""

import os
import subprocess
import sys
from pathlib import Path


def run_on_two_ranks(module: str, *args: Path | str) -> None:
    """Runs a module by two processes on one machine, and fails with what they said if they fail."""
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
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
