"""Run directories that cannot be written, or that another run is at work in: refused in a line before training."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.disk import one_line
from tests.faults.record import Record, recorded
from tests.faults.runs import Child, Whole, differences, start


def read_only_folders(whole: Whole) -> Record:
    """Folders without the right to write: the run directory, the one around it, and those of stages in it."""
    with recorded("read-only folders") as record, tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        os.chmod(root, 0o755)
        os.chmod(whole.configs.parent, 0o755)  # somebody else is to read them
        for name in (".", "search", "encoders/checkpoints", "features/train/views", "comparison", "model"):
            output = root / "run"
            shutil.copytree(whole.run, output)
            _unfinish(output, name)
            closed = output / name
            _own(output, 0o755)
            closed.chmod(0o555)
            _try(record, f"{name} is read-only", whole.configs, output, _as_nobody)
            closed.chmod(0o755)
            shutil.rmtree(output)
        _try(record, "the folder around is read-only", whole.configs, root / "run", _as_nobody)
        (root / "run").write_text("mine")
        _try(record, "a file", whole.configs, root / "run", lambda: None)
        _try(record, "below a file", whole.configs, root / "run" / "inside", lambda: None)
    return record


def two_at_once(whole: Whole) -> Record:
    """A second run in a directory while the first is at work, after it was killed, and after one on another machine."""
    with recorded("two runs in one directory") as record, tempfile.TemporaryDirectory() as temporary:
        output = Path(temporary) / "run"
        first = start(whole.configs, output)
        while not (output / ".lock.json").is_file() and first.wait(0.05) is None:
            pass
        os.kill(first.pid, signal.SIGSTOP)  # it has the lock, and keeps it
        _try(record, "while another is at work", whole.configs, output, lambda: None)
        os.kill(first.pid, signal.SIGKILL)
        os.kill(first.pid, signal.SIGCONT)
        first.wait()
        _recovers(record, whole, output, f"process {first.pid} on ")
        (output / "results.json").unlink()
        (output / ".lock").touch()
        (output / ".lock.json").write_text('{"process": 7, "host": "elsewhere", "since": "then"}')
        _recovers(record, whole, output, "process 7 on elsewhere (since then) was at work")
    return record


def _recovers(record: Record, whole: Whole, output: Path, line: str) -> None:
    child = start(whole.configs, output)
    wrong = [child.said[-1500:]] if child.wait() else differences(output, whole.run)
    if line not in " ".join(child.said.split()):
        wrong.append(f"nothing was said of {line}: {child.said[:1500]}")
    if wrong:
        record.fail("; ".join(wrong))
    else:
        record.work()


def _try(record: Record, what: str, configs: Path, output: Path, before: Callable[[], Any]) -> None:
    begun = time.monotonic()
    child: Child = start(configs, output, before=before)
    wrong = one_line(child.wait(), child.said)
    if wrong:
        record.fail(f"{what}: {'; '.join(wrong)}")
    else:
        record.refuse()
        record.moments.append(f"{what}, after {time.monotonic() - begun:.0f} s: {child.said.strip().splitlines()[-1]}")


def _unfinish(run: Path, name: str) -> None:
    """Has the stage that writes into a folder, and those after it, be done again."""
    stages = ["encoders", "search", "pretrain", "finetune", "comparison"]
    first = {"features": "search", "model": "finetune", ".": "encoders"}.get(name.split("/")[0], name.split("/")[0])
    for stage in stages[stages.index(first) :]:
        (run / stage / "done.json").unlink()
    if name == "features/train/views":
        next((run / name).glob("*.npy")).unlink()
    if name == "model":
        (run / "model" / "done.json").unlink()
    if name == "encoders/checkpoints":
        (run / name / "last.ckpt").unlink()


def _own(folder: Path, mode: int) -> None:
    """Gives a folder and all in it to somebody whom permissions bind, where this process is the administrator's."""
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        for path in (folder, *folder.rglob("*")):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
            if path.is_dir():
                path.chmod(mode)


def _as_nobody() -> None:
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
        os.environ["HOME"] = "/tmp"
