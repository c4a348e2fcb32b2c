"""Measures what it costs to hand jobs over to distributed queues, with ours and by their own calls.

All files are on the disk of the environment, for the reason that `durable` gives.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
from redis import Redis

from benchmarks import forwarding, http_load, postgres_server, redis_server
from benchmarks.engine_apps import procrastinate_app
from benchmarks.forwarding import Forwarding
from benchmarks.http_load import Row
from benchmarks.servers import Run
from benchmarks.variants import PAIRS, PLAIN, Pair, Variant

ROUNDS = 5
"""How often a journal is sent."""


@dataclass(frozen=True, slots=True)
class Engines:
    """All engines.

    Attributes:
        rows: Over HTTP: the plain app, and for each engine its own call and ours.
        forwardings: For each engine, a journal full of jobs.
    """

    rows: list[Row]
    forwardings: list[Forwarding]

    def row(self, variant: Variant) -> Row:
        """Return the row of a variant."""
        return next(row for row in self.rows if row.variant is variant)

    def answered(self, pair: Pair) -> float:
        """How many times the responses per second of the engine's own call; the median round."""
        return statistics.median(ours.answered / own.answered for ours, own in self._rounds(pair))

    def arrived(self, pair: Pair) -> float:
        """The same by the jobs per second that have arrived at the broker."""
        return statistics.median(ours.rate / own.rate for ours, own in self._rounds(pair))

    def _rounds(self, pair: Pair) -> Iterator[tuple[Run, Run]]:
        return zip(self.row(pair.ours).runs, self.row(pair.own).runs, strict=True)


def measure(rounds: int, seconds: int, jobs: int, forwards: int) -> Engines:
    """Load all variants in turns, and then send a journal to each engine.

    Args:
        rounds: How often each variant is loaded.
        seconds: How long each time.
        jobs: How many jobs wait in the journal.
        forwards: How often it is sent.

    Raises:
        BenchmarkError: A job did not arrive.
        RuntimeError: A broker did not start.
    """
    core = max(os.sched_getaffinity(0))
    with (
        redis_server.running(core) as redis,
        postgres_server.running(core) as postgres,
        tempfile.TemporaryDirectory(dir=sys.prefix) as directory,
    ):
        stores = {"redis": redis, "postgres": postgres, "file": directory}
        asyncio.run(_make_tables(postgres))
        variants = [PLAIN, *(variant for pair in PAIRS for variant in (pair.own, pair.ours))]
        rows = http_load.measure(variants, rounds, seconds, stores)
        found: list[Forwarding] = []
        for pair in PAIRS:
            url = stores[pair.ours.store]
            clear = _clearing(pair.ours.store, url)
            found.append(forwarding.measure(pair, url, clear, Path(directory), jobs, forwards))
        return Engines(rows, found)


async def _make_tables(url: str) -> None:
    queue = procrastinate_app(url)
    async with queue.open_async():
        await queue.schema_manager.apply_schema_async()


def _clearing(store: str, url: str) -> Callable[[], None]:
    """Return a function that empties a broker."""
    if store == "redis":
        redis = Redis.from_url(url)

        def flush() -> None:
            redis.flushall()

        return flush

    def truncate() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("TRUNCATE procrastinate_jobs CASCADE")
            connection.execute("CHECKPOINT")

    return truncate
