"""Apps on one journal, the broker they hand their jobs over to, and what becomes of the jobs."""

from __future__ import annotations

import collections
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from asgi_bg.journal import SQLiteJournal
from tests.outage.brokers import KINDS, Broker
from tests.outage.load import Load
from tests.outage.proxy import Proxy
from tests.services.service import free_port

DEADLINE = 60.0
"""How long anything may take that is waited for; far more than it needs on an idle machine."""

POLL_INTERVAL = 0.1

TIMEOUT = 1.2
"""The engines' time limit, in seconds: shorter than the outages."""

ROOT = Path(__file__).parent.parent.parent


class Server:
    """A uvicorn of one process that serves `tests.outage.app`."""

    def __init__(self, process: subprocess.Popen[bytes], port: int) -> None:
        self.process = process
        self.port = port

    def is_up(self) -> bool:
        return self.process.poll() is None

    def is_serving(self) -> bool:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return True
        return False

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def terminate(self) -> None:
        """End it as one does."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.is_up():
            self.process.send_signal(number)
        self.process.wait(DEADLINE)


class Site:
    """A journal, apps that share it, and the network between them and a broker that runs.

    Args:
        kind: One of `KINDS`.
        broker: The broker, which has been started; it is left running.
        directory: Where all files are.
        proxy: The network, if it is to be disturbed.
    """

    def __init__(
        self, kind: str, broker: Broker, directory: Path, proxy: Proxy | None = None
    ) -> None:
        self.broker = broker
        self.journal: Path | None = directory / "jobs.db"
        self.timeout = TIMEOUT
        self._kind = kind
        self._directory = directory
        self._network = proxy
        self._servers: list[Server] = []
        self._loads: list[Load] = []

    def close(self) -> None:
        """End all apps."""
        for server in self._servers:
            server.kill()

    @property
    def proxy(self) -> Proxy:
        """The network between the apps and the broker."""
        assert self._network is not None, "the apps of this site reach the broker without a proxy"
        return self._network

    # Apps and clients.

    def start(self, count: int = 1) -> list[Server]:
        """Start apps on the journal; return when they serve."""
        for _ in range(3):  # somebody else may take a port that was free just now
            servers = [self._launch() for _ in range(count)]
            self._servers += servers
            self.until(
                lambda: all(server.is_serving() or not server.is_up() for server in servers),  # noqa: B023
                "app that comes up",
            )
            if all(server.is_up() for server in servers):
                return servers
            for server in servers:
                server.kill()
        raise AssertionError(self.log())

    def _launch(self) -> Server:
        service = self.broker.service
        port = service.port if self._network is None else self._network.port
        settings = {
            "OUTAGE_ENGINE": KINDS[self._kind].engine,
            "OUTAGE_BROKER": service.url.replace(f":{service.port}", f":{port}"),
            "OUTAGE_TIMEOUT": str(self.timeout),
        }
        if self.journal is not None:
            settings["OUTAGE_JOURNAL"] = str(self.journal)
        port = free_port()
        with open(self._directory / "log", "ab") as log:
            process = subprocess.Popen(
                (
                    *(sys.executable, "-m", "uvicorn", "tests.outage.app:app"),
                    *("--host", "127.0.0.1", "--port", str(port)),
                    *("--no-access-log", "--timeout-keep-alive", "120"),
                ),
                cwd=ROOT,
                env={**os.environ, **settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return Server(process, port)

    def ports(self) -> list[int]:
        """Where apps listen now."""
        return [server.port for server in self._servers if server.is_up()]

    def load(self, rate: float, **arguments: Any) -> Load:
        """Return clients of all apps, which work within a ``with``."""
        first = sum(len(load.answers) for load in self._loads)
        load = Load(self.ports, rate, first=first, **arguments)
        self._loads.append(load)
        return load

    # What is waited for, and what must hold.

    @property
    def accepted(self) -> set[str]:
        """The ids of all jobs that were promised."""
        return {job for load in self._loads for job in load.accepted}

    def until(self, condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> None:
        """Wait until something is so, or fail and show what is known."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"no {what} in {seconds:g} seconds\n{self.log()}"
            time.sleep(POLL_INTERVAL)

    def until_delivered(self, seconds: float = DEADLINE) -> None:
        """Wait until the broker has all jobs that were promised; with no load going on."""
        accepted = self.accepted
        # Counting is cheap, but does not say enough where some were delivered again.
        self.until(
            lambda: self.broker.count() >= len(accepted) and not self.missing(),
            f"delivery of {len(accepted)} jobs",
            seconds,
        )
        self.until(lambda: self.counts()["queued"] == 0, "end of what waits in the journal")
        assert self.counts()["failed"] == 0, self.log()

    def missing(self) -> set[str]:
        """The ids of jobs that were promised, and are not at the broker."""
        return self.accepted - set(self.broker.deliveries())

    def counts(self) -> dict[str, int]:
        """How many jobs the journal has of each status, without those handed over."""
        if self.journal is None:
            return {"queued": 0, "failed": 0}
        journal = SQLiteJournal(self.journal)
        try:
            return journal.counts()
        finally:
            journal.close()

    def again(self) -> int:
        """How many deliveries there were beyond the first of each job."""
        counts = collections.Counter(self.broker.deliveries())
        return sum(counts[job] - 1 for job in self.accepted if job in counts)

    def log(self) -> str:
        """The end of what the apps have written."""
        path = self._directory / "log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""

    def tracebacks(self) -> int:
        """How often an app has shown one."""
        return (self._directory / "log").read_text(errors="replace").count("Traceback (")


@contextlib.contextmanager
def running_broker(kind: str, directory: Path) -> Generator[Broker, None, None]:
    """Start a broker of that kind, and kill it in the end."""
    made = KINDS[kind]
    with made.server(directory) as service:
        broker = made.broker(service)
        broker.prepare()
        yield broker
