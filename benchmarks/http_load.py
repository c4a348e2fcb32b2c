"""Measures the variants over HTTP: all servers are up at once and are loaded in turns."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.variants import PLAIN, VARIANTS, Variant

CONNECTIONS = 64
READY_TIMEOUT = 20.0
DRAIN_TIMEOUT = 30.0
STOP_TIMEOUT = 10.0
_LUA = Path(__file__).with_name("wrk_report.lua")


class BenchmarkError(Exception):
    """What was measured is not what it is said to be, so there is no figure."""


@dataclass(frozen=True, slots=True)
class Run:
    """What wrk saw of one server in one round.

    Attributes:
        rate: Requests per second.
        p99: The latency that 99 of 100 requests stayed below, in milliseconds.
    """

    rate: float
    p99: float


@dataclass(slots=True)
class Server:
    """A running server and what is known of it."""

    variant: Variant
    process: subprocess.Popen[str]
    port: int
    requests: int = 0
    runs: list[Run] = field(default_factory=list[Run])
    peak_memory: int = 0

    def get(self, path: str) -> Any:
        """Fetch a page and return it decoded."""
        # The address is loopback and the scheme is written here.
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return answer.read().decode()


@dataclass(frozen=True, slots=True)
class Row:
    """The figures of one variant; the ratios are to the plain app.

    Attributes:
        rate: Requests per second, the median round.
        best: The same of the best round.
        spread: By how much the best round exceeds the worst, as a share of the median.
        share: The median of the rounds' ratios to the plain app's rate of the same round.
        p99: The 99th percentile of latency in milliseconds, median over the rounds.
        p99_ratio, memory_ratio: How many times the plain app's.
        memory: Peak memory of the server process in bytes.
    """

    variant: Variant
    rate: float
    best: float
    spread: float
    share: float
    p99: float
    p99_ratio: float
    memory: int
    memory_ratio: float


def measure(rounds: int, seconds: int) -> list[Row]:
    """Load every variant in turns; the first round warms up and is not counted.

    Raises:
        BenchmarkError: A server did not start, requests failed, or tasks were not run.
    """
    cores = sorted(os.sched_getaffinity(0))
    with ExitStack() as stack:
        servers = [stack.enter_context(serving(variant, cores[0])) for variant in VARIANTS]
        for number in range(rounds + 1):
            name = f"round {number} of {rounds}" if number else "warm-up"
            print(f"\rHTTP: {name} ", end="", file=sys.stderr, flush=True)
            # Every other round the other way, so that what drifts favours none.
            for server in servers if number % 2 else reversed(servers):
                run = load(server, cores[-1], seconds)
                if number:
                    server.runs.append(run)
        print(file=sys.stderr)
        for server in servers:
            check_tasks(server, in_flight=CONNECTIONS * (rounds + 1))
            server.peak_memory = _peak_memory(server.process.pid)
    return summarise(servers)


@contextmanager
def serving(variant: Variant, core: int) -> Generator[Server]:
    """Run the server of a variant."""
    process = subprocess.Popen(
        (sys.executable, "-m", "benchmarks.serve", variant.key, str(core)),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        port = process.stdout.readline().strip()
        if not port:
            raise BenchmarkError(f"the server of {variant.key!r} did not start")
        server = Server(variant, process, int(port))
        _await_ready(server)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_ready(server: Server) -> None:
    deadline = time.monotonic() + READY_TIMEOUT
    while True:
        try:
            server.get("/counts")
        except urllib.error.URLError as exc:
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise BenchmarkError(f"no answer from {server.variant.key!r}: {exc}") from exc
            time.sleep(0.05)
        else:
            return


def load(server: Server, core: int, seconds: int) -> Run:
    """Let wrk load a server for some seconds.

    Raises:
        BenchmarkError: A request failed.
    """
    command = ["wrk", "--latency", "--threads", "1", "--connections", str(CONNECTIONS)]
    command += ["--duration", f"{seconds}s", "--script", str(_LUA)]
    output = subprocess.run(
        ["taskset", "--cpu-list", str(core), *command, f"http://127.0.0.1:{server.port}/"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    result = json.loads(output.rstrip().splitlines()[-1])
    if result["errors"]:
        raise BenchmarkError(f"{result['errors']} requests to {server.variant.key!r} failed")
    server.requests += result["requests"]
    return Run(result["requests"] / result["duration"] * 1e6, result["p99"] / 1e3)


def check_tasks(server: Server, in_flight: int) -> None:
    """Make sure that the server ran what it is said to run.

    Args:
        server: The server; it gets time to finish its tasks.
        in_flight: How many requests wrk may have left without counting their responses.

    Raises:
        BenchmarkError: It did not.
    """
    deadline = time.monotonic() + DRAIN_TIMEOUT
    while True:
        counts = json.loads(server.get("/counts"))
        expected = counts["served"] if server.variant.runs_task else 0
        missing = expected - counts["tasks"]
        if missing <= 0 or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    if missing < 0 or missing > in_flight:
        raise BenchmarkError(
            f"{server.variant.key!r} was to run {expected} tasks and ran {counts['tasks']}"
        )
    if not server.requests <= counts["served"] <= server.requests + in_flight:
        raise BenchmarkError(
            f"wrk counted {server.requests} responses of {server.variant.key!r}, "
            f"and the server {counts['served']} requests"
        )


def _peak_memory(pid: int) -> int:
    """Return the most memory that a process has had in use, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise BenchmarkError(f"process {pid} tells no peak memory")


def summarise(servers: list[Server]) -> list[Row]:
    """Turn the rounds of all servers into one row for each."""
    plain = next(server for server in servers if server.variant is PLAIN)
    plain_p99 = statistics.median(run.p99 for run in plain.runs)
    rows: list[Row] = []
    for server in servers:
        rates = [run.rate for run in server.runs]
        rate = statistics.median(rates)
        p99 = statistics.median(run.p99 for run in server.runs)
        pairs = zip(server.runs, plain.runs, strict=True)
        rows.append(
            Row(
                variant=server.variant,
                rate=rate,
                best=max(rates),
                spread=(max(rates) - min(rates)) / rate,
                share=statistics.median(run.rate / base.rate for run, base in pairs),
                p99=p99,
                p99_ratio=p99 / plain_p99,
                memory=server.peak_memory,
                memory_ratio=server.peak_memory / plain.peak_memory,
            )
        )
    return rows
