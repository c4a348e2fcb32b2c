"""Runs a million jobs through one runner, and looks whether it keeps memory.

``python -m benchmarks.million [JOBS]`` does this alone; it exits with 1 if memory has grown.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import uvloop

from asgi_bg import Runner
from benchmarks.tally import Tally

JOBS = 1_000_000
BATCH = 1_000
GROWTH_LIMIT = 10.0
"""How many megabytes memory may grow, or shrink."""

tasks_run = Tally()


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident memory in megabytes after a tenth of the jobs, and after all of them."""

    jobs: int
    early: float
    late: float

    @property
    def growth(self) -> float:
        """How much it has grown in between."""
        return self.late - self.early

    @property
    def is_steady(self) -> bool:
        """Whether it is where it was, give or take the limit."""
        return abs(self.growth) <= GROWTH_LIMIT


async def async_task(number: int) -> int:
    """Return at once."""
    tasks_run.add()
    return number


async def waiting_task(number: int) -> int:
    """Return after a turn of the event loop."""
    await asyncio.sleep(0)
    tasks_run.add()
    return number


def sync_task(number: int) -> int:
    """Return at once, in a worker thread."""
    tasks_run.add()
    return number


async def failing_async_task(number: int) -> None:
    """Fail."""
    tasks_run.add()
    raise ValueError(f"job {number} fails, as it should")


def failing_sync_task(number: int) -> None:
    """Fail in a worker thread."""
    tasks_run.add()
    raise ValueError(f"job {number} fails, as it should")


# One of ten fails.
_TASKS = (
    *(async_task, sync_task, waiting_task, sync_task),
    *(async_task, sync_task, async_task, sync_task, failing_async_task),
    *(async_task, sync_task, waiting_task, sync_task),
    *(async_task, sync_task, async_task, sync_task, failing_sync_task),
    *(async_task, sync_task),
)


def measure(jobs: int = JOBS) -> Memory:
    """Run that many jobs.

    Raises:
        RuntimeError: Not all of them were run.
    """
    log = logging.getLogger("asgi_bg")
    log.disabled = True  # each failure is logged, and a hundred thousand are expected
    try:
        return uvloop.run(_measure(jobs))
    finally:
        log.disabled = False


async def _measure(jobs: int) -> Memory:
    runner = Runner()
    numbers = itertools.count()
    async with runner:
        await _run(runner, jobs // 10, numbers)
        early = _resident_memory()
        await _run(runner, jobs - jobs // 10, numbers)
        late = _resident_memory()
    if (total := tasks_run.total()) != jobs:
        raise RuntimeError(f"{jobs} jobs were added, and {total} were run")
    return Memory(jobs, early, late)


async def _run(runner: Runner, jobs: int, numbers: itertools.count[int]) -> None:
    for start in range(0, jobs, BATCH):
        for _ in range(min(BATCH, jobs - start)):
            number = next(numbers)
            await runner.add_task(_TASKS[number % len(_TASKS)], number)
        await runner.drain()


def _resident_memory() -> float:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Run, print, and return 1 if memory has grown."""
    memory = measure(int(sys.argv[1]) if len(sys.argv) > 1 else JOBS)
    print(
        f"resident memory: {memory.early:.1f} MB after {memory.jobs // 10:,} jobs, "
        f"{memory.late:.1f} MB after {memory.jobs:,}: {memory.growth:+.1f} MB"
    )
    return 0 if memory.is_steady else 1


if __name__ == "__main__":
    sys.exit(main())
