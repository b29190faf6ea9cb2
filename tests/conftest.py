"""A test leaves no file, thread, process, process group or environment variable behind."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import torch.distributed

T = TypeVar("T")

# Set by seed_everything and by launchers for workers of the same run; put back, not complained of.
_LIGHTNING = ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")
# Set once, on import or on first use, for the rest of the process.
_LIBRARIES = ("CUDA_MODULE_LOADING", "KMP_", "PYTEST_", "TORCHINDUCTOR_", "TRITON_", "JPY_")
# Threads and processes that libraries start once and end with the interpreter.
_LASTING_THREADS = (
    "TMonitor",
    "pytest_timeout",
    "GarbageCollectorThread",
    "IPythonHistorySavingThread",
)
_LASTING_PROCESSES = ("resource_tracker", "forkserver", "torch/_inductor")
_PATIENCE = 2.0  # seconds for what is just about to end


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    folder = Path.cwd()
    files, threads, children = _files(folder), set(threading.enumerate()), _children()
    environment = dict(os.environ)
    yield
    lightning = {name: os.environ.get(name) for name in _LIGHTNING}
    for name in lightning:
        os.environ.pop(name, None)
        if name in environment:
            os.environ[name] = environment[name]
    changed = {
        name
        for name in environment.keys() | os.environ.keys()
        if environment.get(name) != os.environ.get(name) and not name.startswith(_LIBRARIES)
    }
    os.chdir(folder)
    assert not changed, f"environment variables left changed: {sorted(changed)}"
    assert not torch.distributed.is_initialized(), "a process group is left"
    left = _wait(lambda: sorted(_files(folder) - files))  # tests in another process may have some for a moment
    assert not left, f"files left in {folder}: {left}"
    remaining = _wait(lambda: [t for t in _threads() if t not in threads])
    assert not remaining, f"threads left: {remaining}"
    processes = _wait(lambda: sorted(_children() - children))
    assert not processes, f"child processes left: {processes}"


def _files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if p.name[0] != "." and p.name != "__pycache__"}


def _threads() -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if not any(name in f"{type(thread).__name__} {thread.name}" for name in _LASTING_THREADS)
    ]


def _children() -> set[int]:
    """Process numbers of our children, where the system lists them (Linux)."""
    found = set()
    for path in Path("/proc/self/task").glob("*/children"):
        try:
            numbers = path.read_text().split()
        except OSError:  # the thread has just ended
            continue
        for number in numbers:
            try:
                command = Path("/proc", number, "cmdline").read_text()
            except OSError:
                continue
            if not any(name in command for name in _LASTING_PROCESSES):
                found.add(int(number))
    return found


def _wait(remaining: Callable[[], list[T]]) -> list[T]:
    deadline = time.monotonic() + _PATIENCE
    while (left := remaining()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


@pytest.fixture(autouse=True)
def _no_report(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs of tests make no page, which takes seconds to draw, but where it is asked for by the mark `report`."""
    with pytest.MonkeyPatch.context() as patch:  # of its own: the fixture of that name would outlive the checks above
        if request.node.get_closest_marker("report") is None:
            patch.setattr("lightning_mmnas.commands.report.report_after_run", lambda run_dir: None)
        yield
