"""SIGTERM: the command ends where it can be continued, and says so by its exit code."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lightning_mmnas.errors import Terminated

EXIT_CODE = 128 + signal.SIGTERM

_stopping: list[Callable[[], bool]] = []
"""Each says whether what runs at the moment stops by itself."""


@contextmanager
def raised() -> Iterator[None]:
    """Within it SIGTERM raises `Terminated`, unless something `stops_itself`."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != own:  # a forked child: it ends as if this had never been set
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
        elif not any(stops() for stops in _stopping):
            raise Terminated("terminated")

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def stops_itself(stops: Callable[[], bool]) -> Iterator[None]:
    """Within it nothing is raised as long as the function says that SIGTERM is being heeded.

    Args:
        stops: Called when SIGTERM has come.
    """
    _stopping.append(stops)
    try:
        yield
    finally:
        _stopping.remove(stops)
