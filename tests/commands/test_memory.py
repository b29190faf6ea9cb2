"""Freed memory is kept for the next step, unless the environment says otherwise."""

import subprocess
import sys

import pytest

from lightning_mmnas.commands.memory import keep_freed_memory

# Allocates and frees 64 MB ten times, and prints how many pages the kernel had to give.
PROGRAM = """
import ctypes, resource
from lightning_mmnas.commands.memory import keep_freed_memory
if {kept}:
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    block = libc.malloc(ctypes.c_size_t(2**26))
    ctypes.memset(block, 1, 2**26)
    libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_pages_are_given_once() -> None:
    if not keep_freed_memory():
        pytest.skip("no glibc here, or the environment has settings of its own")
    given, kept = (
        int(subprocess.run([sys.executable, "-c", PROGRAM.format(kept=kept)], capture_output=True, check=True).stdout)
        for kept in (False, True)
    )
    assert kept < given / 5


def test_the_environment_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert not keep_freed_memory()
