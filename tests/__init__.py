"""Tests of the package, by its folders.

On one thread each: the networks are small, and threads that wait for each other take several times as long.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported
