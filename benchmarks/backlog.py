"""Measures a start with a journal full of unfinished jobs.

``python -m benchmarks.backlog [JOBS]`` does this alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks import journal_file
from benchmarks.servers import BenchmarkError, Server, serving
from benchmarks.variants import OURS_DURABLE

JOBS = 1_000_000
FEW = 10
"""One of how many jobs there are in the journal of few."""
WATCHED = 10.0
"""For how many seconds the jobs are watched being run."""


@dataclass(frozen=True, slots=True)
class Start:
    """One start.

    Attributes:
        jobs: How many unfinished jobs the journal had.
        seconds: From the start of the process to the first request that was answered.
        memory: The most memory that it had in use, in bytes.
        rate: Jobs run per second; 0 where there were none.
    """

    jobs: int
    seconds: float
    memory: int
    rate: float


@dataclass(frozen=True, slots=True)
class Backlog:
    """Starts with an empty journal, with one of few jobs, and with one of many."""

    empty: Start
    few: Start
    full: Start

    @property
    def memory(self) -> float:
        """How many more megabytes the many jobs take than none."""
        return (self.full.memory - self.empty.memory) / 1e6

    @property
    def speed(self) -> float:
        """How fast the many jobs are run, by how fast the few are."""
        return self.full.rate / self.few.rate


def measure(jobs: int = JOBS) -> Backlog:
    """Start a server with each journal.

    Raises:
        BenchmarkError: It did not start, or did not run the jobs.
    """
    with tempfile.TemporaryDirectory(dir=sys.prefix) as directory:
        return Backlog(*(_start(Path(directory), count) for count in (0, jobs // FEW, jobs)))


def _start(directory: Path, jobs: int) -> Start:
    file = str(directory / f"{jobs}.db")
    if jobs:
        journal_file.fill_waiting(file, jobs)
    begin = time.monotonic()
    with serving(OURS_DURABLE, min(os.sched_getaffinity(0)), [file]) as server:
        server.get("/")
        seconds = time.monotonic() - begin
        rate = _watch(server, jobs) if jobs else 0.0
        server.look_for_peak_memory()
        server.process.kill()  # it would first run more of them
    return Start(jobs, seconds, server.peak_memory, rate)


def _watch(server: Server, jobs: int) -> float:
    first, begin = server.tasks(), time.monotonic()
    while True:
        time.sleep(0.1)
        tasks, now = server.tasks(), time.monotonic()
        if tasks >= jobs or now - begin > WATCHED:
            break
    if tasks == first:
        raise BenchmarkError(f"of {jobs} jobs in the journal, none was run")
    return (tasks - first) / (now - begin)


def main() -> None:
    """Measure, and print."""
    backlog = measure(int(sys.argv[1]) if len(sys.argv) > 1 else JOBS)
    for start in (backlog.empty, backlog.few, backlog.full):
        print(
            f"{start.jobs:,} unfinished jobs: {start.seconds:.2f} s to the first 200, "
            f"{start.memory / 1e6:.1f} MB, {start.rate:,.0f} jobs/s"
        )


if __name__ == "__main__":
    main()
