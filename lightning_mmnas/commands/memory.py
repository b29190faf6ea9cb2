"""Freed memory is kept for the next step, where the C library would give it back to the system after each."""

import ctypes
import os
import sys

_TRIM, _MMAP = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD of glibc's malloc.h
_KEPT, _MAPPED = 2**29, 2**30
"""Bytes: so much may lie free at the end of the heap, and only single blocks beyond this are mapped and unmapped."""


def keep_freed_memory() -> bool:
    """Tells glibc to keep freed memory, up to half a gigabyte; returns whether it did.

    The large temporaries of a training step on a processor are otherwise mapped anew in each step, and every page of
    them is cleared by the kernel: up to half of the time with video encoders (`benchmarks/freed_memory.py`).

    Nothing is done where there is no glibc, or where the environment has settings of its own (``MALLOC_…``,
    ``GLIBC_TUNABLES``, another allocator in ``LD_PRELOAD``).
    """
    told = any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ)
    if told or not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP, _MAPPED)) and bool(mallopt(_TRIM, _KEPT))
