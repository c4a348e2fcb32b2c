"""Measures whether a job costs more in a journal that has millions of finished ones.

``python -m benchmarks.history [ROWS]`` does this alone.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from asgi_bg import BackgroundTaskMiddleware, add_task, task
from benchmarks import journal_file
from benchmarks.http_load import CONNECTIONS
from benchmarks.in_process import BODY, START, Receive, Scope, Send, ignore, lifespan, no_body
from benchmarks.servers import BenchmarkError
from benchmarks.tally import Tally

ROWS = 10_000_000
ROUNDS = 7
JOBS = 10_000

tasks_run = Tally()


@dataclass(slots=True)
class Side:
    """One journal: what each round took, for a job, in microseconds."""

    wall: list[float] = field(default_factory=list[float])
    cpu: list[float] = field(default_factory=list[float])

    @property
    def cost(self) -> float:
        """The processor's time that a job takes, in microseconds; the median round."""
        return statistics.median(self.cpu)

    @property
    def rate(self) -> float:
        """Jobs per second, the median round."""
        return 1e6 / statistics.median(self.wall)


@dataclass(frozen=True, slots=True)
class History:
    """An empty journal at first, and one with that many finished jobs."""

    rows: int
    empty: Side
    full: Side

    @property
    def ratio(self) -> float:
        """How many times the empty journal's time and processor's time; the larger of the two."""
        return max(
            statistics.median(full / empty for full, empty in zip(*pair, strict=True))
            for pair in ((self.full.wall, self.empty.wall), (self.full.cpu, self.empty.cpu))
        )


@task
async def work(number: int) -> None:
    """Do next to nothing."""
    tasks_run.add()


async def adding(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, with one durable job."""
    if scope["type"] == "http":
        add_task(work, 1)
        await send(START)
        await send(BODY)


def measure(rows: int = ROWS, rounds: int = ROUNDS, jobs: int = JOBS) -> History:
    """Add and run jobs in both journals in turns, in this process.

    Raises:
        BenchmarkError: Not every job was run.
    """
    with tempfile.TemporaryDirectory(dir=sys.prefix) as directory:
        empty, full = (str(Path(directory, f"{name}.db")) for name in ("empty", "full"))
        journal_file.fill_finished(full, rows)
        return uvloop.run(_measure(empty, full, rows, rounds, jobs))


async def _measure(empty: str, full: str, rows: int, rounds: int, jobs: int) -> History:
    history = History(rows, Side(), Side())
    before = tasks_run.total()
    first, second = (BackgroundTaskMiddleware(adding, journal=file) for file in (empty, full))
    async with lifespan(first), lifespan(second):
        for number in range(rounds + 1):
            sides = [(first, history.empty), (second, history.full)]
            for app, side in sides if number % 2 else reversed(sides):
                wall, cpu = await _round(app, jobs)
                if number:  # the first one warms up
                    side.wall.append(wall / jobs * 1e6)
                    side.cpu.append(cpu / jobs * 1e6)
    expected = jobs * (rounds + 1)
    counts = [journal_file.succeeded(empty), journal_file.succeeded(full) - rows]
    if tasks_run.total() - before != 2 * expected or counts != [expected, expected]:
        raise BenchmarkError(
            f"each journal was to have {expected} more jobs, and they have {counts}"
        )
    return history


async def _round(app: BackgroundTaskMiddleware, jobs: int) -> tuple[float, float]:
    """Return the seconds, and those of the processor, in which jobs are added and run."""
    wall, cpu = time.perf_counter(), time.process_time()

    left = iter(range(jobs))

    async def client() -> None:
        for _ in left:  # what another client has taken is gone
            await app({"type": "http", "path": "/", "headers": []}, no_body, ignore)

    await asyncio.gather(*(client() for _ in range(CONNECTIONS)))
    await app.runner.drain()
    return time.perf_counter() - wall, time.process_time() - cpu


def main() -> None:
    """Measure, and print."""
    history = measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
    for name, side in (("an empty journal", history.empty), ("a full one", history.full)):
        print(f"{name}: {side.cost:.1f} µs CPU a job, {side.rate:,.0f} jobs/s")
    print(f"{history.ratio:.2f} times with {history.rows:,} finished jobs")


if __name__ == "__main__":
    main()
