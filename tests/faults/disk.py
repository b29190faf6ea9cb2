"""A disk that is full from some moment of `mmnas run` on: one line, nothing broken, and the same command goes on."""

from __future__ import annotations

import json
import random
import resource
import shutil
import tempfile
import time
from pathlib import Path

import torch

from tests.faults.record import Record, recorded
from tests.faults.runs import Whole, differences, start

SIZES = (1, 600, 4_000, 25_000, 300_000)
"""Bytes beyond which a file is not written: nothing at all, records, features, pictures, checkpoints."""


def full_disk(count: int, seed: int, whole: Whole) -> Record:
    """Runs in which, from a random moment on, files of more than some bytes cannot be written."""
    draw = random.Random(seed)
    with recorded("disk full in mmnas run") as record, tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "run"
        while record.cases < count:
            moment, size = draw.uniform(0.02, 0.9) * whole.seconds, draw.choice(SIZES)
            child = start(whole.configs, output)
            while child.wait(0) is None and child.used() < moment:
                time.sleep(0.002)
            if child.code is None:
                resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
            what = f"no file over {size} bytes from {moment:.1f} s of {whole.seconds:.1f} on"
            code = child.wait()
            if code:
                wrong = [*one_line(code, child.said), *damaged(output)]
                again = start(whole.configs, output)
                wrong += [again.said[-1500:]] if again.wait() else differences(output, whole.run)
                if wrong:
                    record.fail(f"{what}: {'; '.join(wrong)}")
                else:
                    record.refuse()
                    record.moments.append(f"{what}: {child.said.strip().splitlines()[-1]}")
            shutil.rmtree(output, ignore_errors=True)
    return record


def one_line(code: int | None, said: str) -> list[str]:
    """What is wrong with how a command was refused: exit code 2, and its last line is the message."""
    last = (said.strip().splitlines() or [""])[-1]
    wrong = [] if code == 2 else [f"exit code {code}"]
    return wrong if "Traceback" not in said and last.startswith("mmnas: ") else [*wrong, f"said {said[-1500:]}"]


def damaged(run: Path) -> list[str]:
    """The files of a run that are neither as they were nor as they should be."""
    wrong = []
    for path in [path for path in run.rglob("*") if path.is_file()]:
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".ckpt":
                torch.load(path, weights_only=True)
        except Exception as error:
            wrong.append(f"{path.relative_to(run)} is broken: {error}")
        if path.name.startswith("."):
            wrong.append(f"{path.relative_to(run)} is left")
    return wrong
