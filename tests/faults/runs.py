"""`mmnas run` on a table as small as can be, in processes that may be killed and whose means may be taken away.

Each is a fork of this one, which has all libraries loaded: of the time that a run takes, nearly all is training, and a
signal at a random moment strikes there. The process that forks must not have computed anything with torch before.
"""

from __future__ import annotations

import csv
import fcntl
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightning_mmnas.commands import compare, deliver, lightning_cli, report
from lightning_mmnas.commands.init.command import init
from lightning_mmnas.commands.mmnas import main

SETTINGS = {
    "max_epochs: 40": "max_epochs: 2",
    "warmup_epochs: 13": "warmup_epochs: 1",
    "num_candidates: 16, steps: 60": "num_candidates: 2, steps: 3",
    "TextEncoder}": "TextEncoder, init_args: {width: 8}}",
    "channels: 32": "channels: 8",
    "length: 8\n    pairing": "length: 2\n    pairing",
    "views: 8": "views: 2",
    "accelerator: auto": "accelerator: cpu",
    "labels_per_class: [5,": "labels_per_class: [3,",
    "draws: 3": "draws: 1",
    "architectures: 3": "architectures: 1",
    "steps: 100": "steps: 2",
    "steps_all: 200": "steps_all: 2",
}
"""What is made small in the configurations that `mmnas init` writes."""


def load_libraries() -> None:
    """Imports what runs need, for forks to have it already."""
    assert compare
    assert deliver
    lightning_cli._import_components()


def write_table(folder: Path, rows: int = 48) -> Path:
    """A table of two numbers and a text, in which both tell something of the class."""
    draw = random.Random(0)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["a", "b", "note", "label"])
        for row in range(rows):
            kind = row % 2
            words = ["warm", "dry", "red"] if kind else ["cold", "wet", "blue"]
            note = " ".join(draw.choice(words) for _ in range(4))
            writer.writerow([round(draw.gauss(kind, 1), 3), round(draw.gauss(-kind, 1), 3), note, "yn"[kind]])
    return folder / "table.csv"


def write_configs(folder: Path) -> Path:
    """The configurations of `write_table`'s table."""
    table = write_table(folder)
    child = Child(lambda: init(str(table), str(folder / "configs")))
    assert child.wait() == 0, child.said
    found = {path: path.read_text() for path in (folder / "configs").glob("*.yaml")}
    for before, after in SETTINGS.items():
        assert any(before in text for text in found.values()), before
        found = {path: text.replace(before, after) for path, text in found.items()}
    for path, text in found.items():
        path.write_text(text)
    return folder / "configs"


class Child:
    """A fork that calls a function and ends with what it returns; it must not say more than a pipe holds.

    Args:
        call: What to do; an exception is exit code 1.

    Attributes:
        said: What it has written, once it has ended.
        code: Its exit code, negative for a signal, once it has ended.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self._pipe, end = os.pipe()
        fcntl.fcntl(end, fcntl.F_SETPIPE_SZ, 2**20)
        self.pid = os.fork()
        self.code: int | None = None
        self.said = ""
        if self.pid:
            os.close(end)
            return
        code = 1
        try:
            os.dup2(end, 1)
            os.dup2(end, 2)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            code = call() or 0
            code = code if isinstance(code, int) else 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, negative for a signal; None where it goes on for longer than this."""
        end = None if seconds is None else time.monotonic() + seconds
        while self.code is None:
            pid, status = os.waitpid(self.pid, 0 if end is None else os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
                with open(self._pipe, "rb") as file:
                    self.said = file.read().decode(errors="replace")
            elif end is not None and time.monotonic() > end:
                return None
            else:
                time.sleep(0.002)
        return self.code

    def kill_after(self, seconds: float) -> int:
        """Its exit code, after SIGKILL once it has used so much time of a processor, if it still runs then."""
        while self.wait(0) is None and self.used() < seconds:
            time.sleep(0.002)
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
        code = self.wait()
        assert code is not None
        return code

    def used(self) -> float:
        """Seconds of a processor that it has used, while it runs."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(
    configs: Path, output: Path, before: Callable[[], Any] = lambda: None, options: tuple[str, ...] = ()
) -> Child:
    """Starts `mmnas run` in a process of its own, without the page of its results, which takes seconds to draw.

    Args:
        configs: Configurations.
        output: Run directory.
        before: Called in the new process before anything else, such as to take its rights away.
        options: Further options.
    """

    def call() -> int:
        before()
        report.report_after_run = lambda run_dir: None
        torch.set_num_threads(1)
        return main(["run", str(configs), "--output", str(output), *options])

    return Child(call)


@dataclass(frozen=True)
class Whole:
    """A run that was left alone.

    Attributes:
        configs: Its configurations.
        run: Its directory.
        seconds: Time of a processor that it took.
    """

    configs: Path
    run: Path
    seconds: float


def run_whole(folder: Path) -> Whole:
    """Makes configurations and a run in a folder."""
    load_libraries()
    configs, before = write_configs(folder), os.times()
    child = start(configs, folder / "whole")
    assert child.wait() == 0, child.said
    after = os.times()
    return Whole(configs, folder / "whole", after[2] + after[3] - before[2] - before[3])


def differences(run: Path, whole: Path) -> list[str]:
    """What of a run is not, bit by bit, that of another one."""
    found = []
    for name in ("genotype.json", "genotype.weights.json", "model/model.safetensors"):
        if (run / name).read_bytes() != (whole / name).read_bytes():
            found.append(name)
    for path in sorted(whole.glob("features/**/*.npy")):
        name = str(path.relative_to(whole))
        if not (run / name).is_file() or (run / name).read_bytes() != path.read_bytes():
            found.append(name)
    for path in sorted(whole.glob("*/checkpoints/*.ckpt")):
        name = str(path.relative_to(whole))
        a, b = (torch.load(root / name, weights_only=True)["state_dict"] for root in (run, whole))
        if a.keys() != b.keys() or not all(torch.equal(a[key], b[key]) for key in a):
            found.append(name)
    results = [json.loads((root / "results.json").read_text()) for root in (run, whole)]
    for key in ("comparison", "genotype", "parameters", "search"):
        if results[0].get(key) != results[1].get(key):
            found.append(f"results.json: {key}")
    left = [str(path.relative_to(run)) for path in run.rglob(".*") if path.is_file()]
    return [*found, *(f"{name} is left" for name in left)]
