"""Runs servers, and asks them what they have done."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.variants import Variant

READY_TIMEOUT = 20.0
STOP_TIMEOUT = 10.0


class BenchmarkError(Exception):
    """What was measured is not what it is said to be, so there is no figure."""


@dataclass(frozen=True, slots=True)
class Run:
    """What wrk saw of one server in one round.

    Attributes:
        rate: Requests per second, by the time until their tasks were run and their jobs stored.
        answered: The same by the time of the load alone.
        p50, p99: The latency that 50 and 99 of 100 requests stayed below, in milliseconds.
    """

    rate: float
    answered: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Counts:
    """What a server has done: requests served, tasks run, jobs left in its store."""

    served: int
    tasks: int
    stored: int


@dataclass(slots=True)
class Server:
    """A running server and what is known of it."""

    variant: Variant
    process: subprocess.Popen[str]
    port: int
    requests: int = 0
    failed: int = 0
    runs: list[Run] = field(default_factory=list[Run])
    peak_memory: int = 0

    def get(self, path: str) -> str:
        """Fetch a page."""
        # The address is loopback and the scheme is written here.
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return str(answer.read(), "utf-8")

    def counts(self) -> Counts:
        """Ask what it has done."""
        stored = json.loads(self.get("/stored")) if self.variant.store else 0
        return Counts(stored=stored, **json.loads(self.get("/counts")))

    def tasks(self) -> int:
        """Ask how many tasks it has run, and nothing that takes longer."""
        return int(json.loads(self.get("/counts"))["tasks"])

    def look_for_peak_memory(self) -> None:
        """Note the most memory that its process has had in use, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
        self.peak_memory = int(line.split()[1]) * 1024


@contextmanager
def serving(variant: Variant, core: int, store: Sequence[str] = ()) -> Generator[Server]:
    """Run the server of a variant.

    Args:
        variant: The variant.
        core: The core that it runs on.
        store: Where it keeps its jobs, if it keeps any.

    Raises:
        BenchmarkError: It did not start.
    """
    python = Path(sys.prefix, variant.environment, "bin", "python")
    process = subprocess.Popen(
        (python, "-m", "benchmarks.serve", variant.key, str(core), *store),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if variant.may_fail else None,
        text=True,
    )
    with stopping(process):
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        port = process.stdout.readline().strip()
        if not port:
            raise BenchmarkError(f"the server of {variant.key!r} did not start")
        server = Server(variant, process, int(port))
        _await_ready(server)
        yield server


@contextmanager
def stopping(process: subprocess.Popen[str]) -> Generator[None]:
    """End a process at last, in whatever way it takes."""
    try:
        yield
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
        except OSError as exc:
            if time.monotonic() > deadline or server.process.poll() is not None:
                raise BenchmarkError(f"no answer from {server.variant.key!r}: {exc}") from exc
            time.sleep(0.02)
        else:
            return
