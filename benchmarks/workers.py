"""Measures whether several worker processes on one journal accept more jobs than one does."""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import journal_file
from benchmarks.durable_apps import JOURNAL
from benchmarks.http_load import CONNECTIONS, DRAIN_TIMEOUT, wrk
from benchmarks.servers import READY_TIMEOUT, BenchmarkError, stopping

WORKERS = 4


@dataclass(slots=True)
class Served:
    """One server, and what wrk saw of it in each round: jobs per second and p99 in ms."""

    workers: int
    port: int
    journal: str
    requests: int = 0
    rates: list[float] = field(default_factory=list[float])
    latencies: list[float] = field(default_factory=list[float])

    @property
    def rate(self) -> float:
        """Jobs accepted per second, the median round."""
        return statistics.median(self.rates)

    @property
    def p99(self) -> float:
        """The latency that 99 of 100 requests stayed below, the median round."""
        return statistics.median(self.latencies)


@dataclass(frozen=True, slots=True)
class Workers:
    """One worker, and several."""

    one: Served
    several: Served

    @property
    def ratio(self) -> float:
        """How many times the jobs per second of one worker, the median of the rounds."""
        pairs = zip(self.several.rates, self.one.rates, strict=True)
        return statistics.median(several / one for several, one in pairs)


def measure(rounds: int, seconds: int) -> Workers:
    """Load one worker and several in turns; they and wrk share the cores.

    Raises:
        BenchmarkError: A server did not start, or not every job was run.
    """
    with (
        tempfile.TemporaryDirectory(dir=sys.prefix) as directory,
        _serving(1, directory) as one,
        _serving(WORKERS, directory) as several,
    ):
        for number in range(rounds + 1):
            for server in (one, several) if number % 2 else (several, one):
                _load(server, seconds, is_counted=number > 0)
        for server in (one, several):
            _check(server, in_flight=CONNECTIONS * (rounds + 1))
        return Workers(one, several)


@contextmanager
def _serving(workers: int, directory: str) -> Generator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    journal = str(Path(directory, f"{workers}.db"))
    process = subprocess.Popen(
        (
            *(sys.executable, "-m", "uvicorn", "--factory", "benchmarks.durable_apps:from_environ"),
            *("--workers", str(workers), "--port", str(port), "--loop", "uvloop"),
            *("--http", "httptools", "--no-access-log", "--log-level", "warning"),
        ),
        env=os.environ | {JOURNAL: journal},
        text=True,
    )
    with stopping(process):
        _await_ready(process, port)
        yield Served(workers, port, journal)


def _await_ready(process: subprocess.Popen[str], port: int) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError as exc:
            if time.monotonic() > deadline or process.poll() is not None:
                raise BenchmarkError(f"uvicorn with its workers did not start: {exc}") from exc
            time.sleep(0.05)
        else:
            return


def _load(server: Served, seconds: int, *, is_counted: bool) -> None:
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    result = wrk(server.port, cores, seconds)
    if result["errors"]:
        raise BenchmarkError(f"{result['errors']} requests to {server.workers} workers failed")
    server.requests += result["requests"]
    if is_counted:
        server.rates.append(result["requests"] / result["duration"] * 1e6)
        server.latencies.append(result["p99"] / 1e3)
    _unfinished(server)


def _unfinished(server: Served) -> int:
    """Wait until all jobs have ended, and return how many have not in time."""
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while (left := journal_file.unfinished(server.journal)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _check(server: Served, in_flight: int) -> None:
    left = _unfinished(server)
    succeeded = journal_file.succeeded(server.journal)
    if left or not server.requests <= succeeded <= server.requests + in_flight:
        raise BenchmarkError(
            f"{server.workers} workers answered {server.requests} requests, "
            f"and their journal has {succeeded} jobs that succeeded and {left} unfinished ones"
        )
