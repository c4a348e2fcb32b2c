"""Measures variants over HTTP: all servers are up at once and are loaded in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.servers import BenchmarkError, Counts, Run, Server, serving
from benchmarks.variants import Variant

CONNECTIONS = 64
DRAIN_TIMEOUT = 30.0
QUIET_TIMEOUT = 1.0
_LUA = Path(__file__).with_name("wrk_report.lua")


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one variant; the ratios are to the plain app of its own framework.

    Attributes:
        rate: Requests per second, by the time until their tasks were run and their jobs
            stored; the median round.
        answered: The same by the time of the load alone.
        best: The same of the best round.
        spread: By how much the best round exceeds the worst, as a share of the median.
        failed: How many requests of all rounds failed.
        share: The median of the rounds' ratios to the plain app's rate of the same round.
        p50, p99: Percentiles of latency in milliseconds, median over the rounds.
        p99_ratio, memory_ratio: How many times the plain app's.
        memory: Peak memory of the server process in bytes.
        runs: The rounds.
    """

    variant: Variant
    rate: float
    answered: float
    best: float
    spread: float
    failed: int
    share: float
    p50: float
    p99: float
    p99_ratio: float
    memory: int
    memory_ratio: float
    runs: Sequence[Run]


def measure(
    variants: Sequence[Variant], rounds: int, seconds: int, stores: Mapping[str, str] | None = None
) -> list[Row]:
    """Load every variant in turns; the first round warms up and is not counted.

    Args:
        variants: What to load.
        rounds: How often.
        seconds: How long each time.
        stores: By kind, a directory for the files and the addresses of the others.

    Raises:
        BenchmarkError: A server did not start, requests failed, or tasks were not run.
    """
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serving(variant, cores[0], _store(variant, stores or {})))
            for variant in variants
        ]
        for number in range(rounds + 1):
            name = f"round {number} of {rounds}" if number else "warm-up"
            print(f"\rHTTP: {name} ", end="", file=sys.stderr, flush=True)
            # Every other round the other way, so that what drifts favours none.
            for server in servers if number % 2 else reversed(servers):
                run = load(server, cores[-1], seconds, in_flight=CONNECTIONS * (number + 1))
                if number:
                    server.runs.append(run)
        print(file=sys.stderr)
        for server in servers:
            check(server, in_flight=CONNECTIONS * (rounds + 1))
            server.look_for_peak_memory()
    return summarise(servers)


def _store(variant: Variant, stores: Mapping[str, str]) -> list[str]:
    file = str(Path(stores.get("file", ""), f"{variant.key}.db"))
    if variant.store == "file":
        return [file]
    places = [stores[variant.store]] if variant.store else []
    return [*places, file] if variant.has_outbox else places


def load(server: Server, core: int, seconds: int, in_flight: int) -> Run:
    """Let wrk load a server for some seconds, and wait until its tasks have been run.

    Raises:
        BenchmarkError: A request failed.
    """
    result = wrk(server.port, str(core), seconds)
    if result["errors"] and not server.variant.may_fail:
        raise BenchmarkError(f"{result['errors']} requests to {server.variant.key!r} failed")
    server.requests += result["requests"]
    server.failed += result["errors"]
    # Where tasks are left to run, the round goes on. Behind an outbox every job is waited for:
    # none of them depends on what wrk has left behind.
    more = _await_tasks(server, 0 if server.variant.has_outbox else in_flight, DRAIN_TIMEOUT)
    _await_tasks(server, 0, QUIET_TIMEOUT)  # what is under way must not slow the next server
    answers, time_taken = result["requests"] - result["errors"], result["duration"] / 1e6
    return Run(
        rate=answers / (time_taken + more),
        answered=answers / time_taken,
        p50=result["p50"] / 1e3,
        p99=result["p99"] / 1e3,
    )


def wrk(port: int, cores: str, seconds: int) -> dict[str, int]:
    """Run wrk on a core (or several, with commas), and return what `wrk_report.lua` tells."""
    command = ["wrk", "--latency", "--threads", "1", "--connections", str(CONNECTIONS)]
    command += ["--duration", f"{seconds}s", "--timeout", "10s", "--script", str(_LUA)]
    output = subprocess.run(
        ["taskset", "--cpu-list", cores, *command, f"http://127.0.0.1:{port}/"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return dict(json.loads(output.rstrip().splitlines()[-1]))


def _await_tasks(server: Server, missing: int, timeout: float) -> float:
    """Wait until no more tasks are missing, and return the seconds from a first look on.

    What is missing for good is told by the check at the end.
    """
    start = time.monotonic()
    if max(_missing(server.variant, server.counts())) <= missing:
        return 0.0
    while time.monotonic() < start + timeout:
        time.sleep(0.02)
        if max(_missing(server.variant, server.counts())) <= missing:
            break
    return time.monotonic() - start


def _missing(variant: Variant, counts: Counts) -> tuple[int, int]:
    """Return how many tasks and stored jobs are missing, by the requests that were served."""
    return (
        (counts.served if variant.runs_task else 0) - counts.tasks,
        (counts.served if variant.store else 0) - counts.stored,
    )


def check(server: Server, in_flight: int) -> None:
    """Make sure that the server ran and stored what it is said to.

    Args:
        server: The server; it gets time to finish its tasks.
        in_flight: How many requests wrk may have left without counting their responses.

    Raises:
        BenchmarkError: It did not.
    """
    key = server.variant.key
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while True:
        counts = server.counts()
        missing = _missing(server.variant, counts)
        if max(missing) <= 0 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    if min(missing) < 0 or max(missing) > in_flight + server.failed:
        raise BenchmarkError(f"{key!r} was to run or store one job a request, and has: {counts}")
    if server.variant.runs_task and server.variant.store and counts.tasks != counts.stored:
        raise BenchmarkError(f"{key!r} has not stored the jobs that it ran: {counts}")
    if not server.requests <= counts.served <= server.requests + in_flight:
        raise BenchmarkError(
            f"wrk counted {server.requests} responses of {key!r}, "
            f"and the server {counts.served} requests"
        )


def summarise(servers: list[Server]) -> list[Row]:
    """Turn the rounds of all servers into one row for each."""
    by_key = {server.variant.key: server for server in servers}
    rows: list[Row] = []
    for server in servers:
        plain = by_key[server.variant.baseline]
        rates = [run.rate for run in server.runs]
        rate = statistics.median(rates)
        p99 = statistics.median(run.p99 for run in server.runs)
        pairs = zip(server.runs, plain.runs, strict=True)
        rows.append(
            Row(
                variant=server.variant,
                rate=rate,
                answered=statistics.median(run.answered for run in server.runs),
                best=max(rates),
                spread=(max(rates) - min(rates)) / rate,
                failed=server.failed,
                share=statistics.median(run.rate / base.rate for run, base in pairs),
                p50=statistics.median(run.p50 for run in server.runs),
                p99=p99,
                p99_ratio=p99 / statistics.median(run.p99 for run in plain.runs),
                memory=server.peak_memory,
                memory_ratio=server.peak_memory / plain.peak_memory,
                runs=server.runs,
            )
        )
    return rows
