"""Measures what it costs to have one job a request kept, with ours and with its peers.

All files are on the disk of the environment: a temporary directory may be in memory, where
nothing has to be flushed.
"""

from __future__ import annotations

import os
import sys
import tempfile

from benchmarks import http_load, redis_server
from benchmarks.variants import DURABLE_VARIANTS


def measure(rounds: int, seconds: int) -> list[http_load.Row]:
    """Load all variants in turns; Redis has the core that is not the servers'.

    Raises:
        BenchmarkError: A job was not kept, or not run where it should have been.
        RuntimeError: Redis did not start.
    """
    core = max(os.sched_getaffinity(0))
    with (
        redis_server.running(core) as url,
        tempfile.TemporaryDirectory(dir=sys.prefix) as directory,
    ):
        stores = {"redis": url, "file": directory}
        return http_load.measure(DURABLE_VARIANTS, rounds, seconds, stores)
