"""Measures how long the disk takes to keep something: what a commit costs at least."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time

PAGE = 4096


def measure(writes: int = 1_000) -> float:
    """Return the microseconds that it takes to flush one page, the median."""
    with tempfile.TemporaryFile(dir=sys.prefix, buffering=0) as file:
        return statistics.median(_flush(file.fileno()) for _ in range(writes)) * 1e6


def _flush(descriptor: int) -> float:
    os.write(descriptor, bytes(PAGE))
    start = time.perf_counter()
    os.fdatasync(descriptor)
    return time.perf_counter() - start
