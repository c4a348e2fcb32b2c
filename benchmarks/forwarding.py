"""Measures how fast a journal full of waiting jobs gets to an engine, and what memory it takes.

`engines` does it with all of them. A process with a runner sends the jobs, and another one the
same number by the engine's own call, one after another: ``python -m benchmarks.forwarding
VARIANT CORE URL [JOURNAL | JOBS]`` is either of them.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from asgi_bg import Runner, task
from benchmarks import journal_file
from benchmarks.durable_apps import work
from benchmarks.engine_apps import COUNTERS, ENGINES, procrastinate_app
from benchmarks.servers import BenchmarkError, stopping
from benchmarks.variants import ARQ, CELERY, PROCRASTINATE, TASKIQ, Pair, Variant

JOBS = 100_000
SENT = 10_000
"""How many are sent by the engine's own call, as that is slow."""
TIMEOUT = 300.0
LOOK = 0.01
"""How many seconds lie between two looks at the broker."""


@dataclass(slots=True)
class Forwarding:
    """What became of a journal full of jobs.

    Attributes:
        pair: The engine.
        jobs: How many jobs the journal had.
        ours: Jobs per second from the start of the runner until the broker had all of them, of
            each round.
        own: Those of the engine's own call, one after another.
        growth: By how many bytes the most memory in use exceeds that of a process whose
            journal has one job, of each round.
    """

    pair: Pair
    jobs: int
    ours: list[float] = field(default_factory=list[float])
    own: list[float] = field(default_factory=list[float])
    growth: list[int] = field(default_factory=list[int])

    @property
    def ratio(self) -> float:
        """How many times the engine's own rate, the median of the rounds."""
        return statistics.median(ours / own for ours, own in zip(self.ours, self.own, strict=True))


def measure(
    pair: Pair, url: str, clear: Callable[[], None], directory: Path, jobs: int, rounds: int
) -> Forwarding:
    """Send jobs in both ways, in turns.

    Args:
        pair: The engine.
        url: The broker's address.
        clear: Empties the broker.
        directory: Where journals are made.
        jobs: How many wait in the journal.
        rounds: How often.

    Raises:
        BenchmarkError: Not all of them arrived.
    """
    found = Forwarding(pair, jobs)
    full, single = (_journal(directory, count) for count in (jobs, 1))
    for number in range(rounds):
        print(
            f"\r{pair.name}: round {number + 1} of {rounds} ", end="", file=sys.stderr, flush=True
        )
        clear()
        found.own.append(_one_by_one(pair.own, url, min(SENT, jobs)))
        clear()
        _, least = _forward(pair.ours, url, _copy(single), 1)
        clear()
        rate, most = _forward(pair.ours, url, _copy(full), jobs)
        found.ours.append(rate)
        found.growth.append(most - least)
    clear()
    print(file=sys.stderr)
    return found


def _journal(directory: Path, jobs: int) -> Path:
    file = directory / f"waiting-{jobs}.db"
    if not file.exists():
        journal_file.fill_waiting(str(file), jobs)
    return file


def _copy(file: Path) -> Path:
    """Return a copy of a journal, with nothing left of the one before."""
    copy = file.with_suffix(".copy")
    for old in copy.parent.glob(f"{copy.name}*"):
        old.unlink()
    shutil.copyfile(file, copy)
    os.sync()  # what is written for the copy must not slow the first commits
    return copy


def _one_by_one(variant: Variant, url: str, jobs: int) -> float:
    process = _start(variant, url, str(jobs))
    with stopping(process):
        return jobs / float(_line(process))


def _forward(variant: Variant, url: str, journal: Path, jobs: int) -> tuple[float, int]:
    """Return the jobs per second, and the most memory in use, of a process that forwards them."""
    count = COUNTERS[variant.key](url)
    process = _start(variant, url, str(journal))
    with stopping(process):
        start = float(_line(process))
        while (arrived := count()) < jobs:
            if time.monotonic() > start + TIMEOUT or process.poll() is not None:
                raise BenchmarkError(f"{variant.key!r} sent {arrived} of {jobs} jobs")
            time.sleep(LOOK)
        seconds = time.monotonic() - start
        assert process.stdin is not None  # noqa: S101 - it is a pipe
        process.stdin.close()
        memory = json.loads(_line(process))
    if arrived != jobs or journal_file.unfinished(str(journal)):
        raise BenchmarkError(
            f"{variant.key!r} was to hand over {jobs} jobs, and {arrived} have arrived, of which "
            "the journal does not know everything"
        )
    return jobs / seconds, memory


def _start(variant: Variant, *arguments: str) -> subprocess.Popen[str]:
    python = Path(sys.prefix, variant.environment, "bin", "python")
    core = min(os.sched_getaffinity(0))
    return subprocess.Popen(
        (python, "-m", "benchmarks.forwarding", variant.key, str(core), *arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    line = process.stdout.readline()
    if not line:
        raise BenchmarkError("a process that was to send jobs has ended before")
    return line


# In the process that sends.


async def forward(key: str, url: str, journal: str) -> None:
    """Forward what is in a journal until standard input ends.

    Prints the instant of the start, and in the end the most memory in use.
    """
    task(work)
    engine = ENGINES[key](url)
    print(time.monotonic(), flush=True)
    async with Runner(journal=journal, engine=engine):
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    print(_peak_memory(), flush=True)


def _peak_memory() -> int:
    # What `resource` tells may be that of the process that has started this one.
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


async def send(key: str, url: str, jobs: int) -> None:
    """Send jobs by an engine's own call, and print the seconds."""
    async with SENDERS[key](url) as call:
        await call()  # it connects, and is not counted
        start = time.perf_counter()
        for _ in range(jobs):
            await call()
        print(time.perf_counter() - start, flush=True)


@asynccontextmanager
async def _arq(url: str) -> AsyncGenerator[Callable[[], Awaitable[Any]]]:
    from arq import create_pool
    from arq.connections import RedisSettings

    pool = await create_pool(RedisSettings.from_dsn(url))
    yield lambda: pool.enqueue_job("work", 1)
    await pool.aclose()


@asynccontextmanager
async def _taskiq(url: str) -> AsyncGenerator[Callable[[], Awaitable[Any]]]:
    from taskiq_redis import ListQueueBroker

    broker = ListQueueBroker(url)
    job = broker.task(work)
    await broker.startup()
    yield lambda: job.kiq(1)
    await broker.shutdown()


@asynccontextmanager
async def _celery(url: str) -> AsyncGenerator[Callable[[], Awaitable[Any]]]:
    from celery import Celery

    queue = Celery("benchmarks", broker=url)
    job = queue.task(name="work", ignore_result=True)(work)

    async def call() -> None:
        job.delay(1)  # it blocks, and there is nobody else here to wait for it

    yield call


@asynccontextmanager
async def _procrastinate(url: str) -> AsyncGenerator[Callable[[], Awaitable[Any]]]:
    queue = procrastinate_app(url)
    job = queue.task(name="work")(work)
    async with queue.open_async():
        yield lambda: job.defer_async(number=1)


SENDERS = {
    ARQ.key: _arq,
    TASKIQ.key: _taskiq,
    CELERY.key: _celery,
    PROCRASTINATE.key: _procrastinate,
}


def main() -> None:
    """Send as told."""
    key, core, url, what = sys.argv[1:]
    os.sched_setaffinity(0, {int(core)})
    uvloop.run(forward(key, url, what) if key in ENGINES else send(key, url, int(what)))


if __name__ == "__main__":
    main()
