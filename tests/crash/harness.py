"""Servers on one journal, the load on them, and their violent ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from asgi_bg.exceptions import JournalError
from asgi_bg.journal import SQLiteJournal
from tests.crash.audit import Evidence, Figures, Row, audit
from tests.services.service import free_port

DEADLINE = 40.0
"""How long anything may take that is waited for; far more than it needs on an idle machine."""

POLL_INTERVAL = 0.005

ROOT = Path(__file__).parent.parent.parent

_RESPONSE = re.compile(rb"HTTP/1.1 (\d+) .*?\r\ncontent-length: (\d+)\r\n", re.S | re.I)


class Failure(AssertionError):
    """Something did not happen in time, or happened that must not.

    Attributes:
        figures: What an audit found, if it was one that failed.
    """

    figures: Figures | None = None


class Server:
    """A uvicorn of one or more processes that serves `tests.crash.app`."""

    def __init__(self, site: Site, process: subprocess.Popen[bytes], port: int) -> None:
        self._site = site
        self.process = process
        self.port = port
        self._is_over = False

    def is_up(self) -> bool:
        """Whether it runs; its processes may have died nevertheless, with many workers."""
        return self.process.poll() is None

    def is_accepting(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def processes(self) -> list[str]:
        """Those that have loaded the application and were not killed."""
        return self._site.processes_of(self.process.pid)

    def kill(self) -> None:
        """Kill the whole group at once."""
        if self._is_over:
            return
        for process in self.processes():
            self._site.tell("kill", process)
        self._site.tell("kill-group", self.process.pid)  # with who is born just now
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._is_gone()

    def kill_one(self, process: str) -> None:
        """Kill one of its processes."""
        self._site.tell("kill", process)
        pid = int(process.partition("-")[0])
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        if pid == self.process.pid:
            self.process.wait()
        self._site.until(lambda: not _is_alive(pid), f"death of {process}")
        self._site.tell("dead", process)

    def terminate(self) -> int:
        """End it as one does, and return how it ended."""
        self._site.tell("end-group", self.process.pid)
        self.process.terminate()
        self._site.until(lambda: not self.is_up(), "end after SIGTERM")
        self._is_gone()
        code: int = self.process.returncode
        return code

    def stop(self) -> None:
        """Stop its process, which lives on and does nothing, until `go_on`.

        Not in the middle of a commit: that would lock the file for all (J2).
        """
        while True:
            os.kill(self.process.pid, signal.SIGSTOP)
            if not self._site.is_locked():
                return
            self.go_on()

    def go_on(self) -> None:
        """Let it go on after `stop`."""
        os.kill(self.process.pid, signal.SIGCONT)

    def await_death(self) -> None:
        """Wait until it has killed itself."""
        self._site.until(lambda: not self.is_up(), "death by its own hand")
        self._is_gone()

    def _is_gone(self) -> None:
        self.process.wait()
        # Workers are not our children; they are dead when none of the group is left.
        self._site.until(lambda: not _group_lives(self.process.pid), "death of the group")
        self._is_over = True
        for process in self._site.born_in(self.process.pid):
            if not self._site.has("dead", process):
                self._site.tell("dead", process)

    def get(self, target: str) -> bytes:
        """Make one request, and return the body of its response."""
        status, body = asyncio.run(_get(self.port, target))
        if status != 200:
            raise Failure(f"{target} was answered with {status}\n{self._site.report()}")
        return body


class Load:
    """Clients that send one request after another, each on a connection of its own.

    Attributes:
        accepted, refused, unanswered: As in `Evidence`.
        begun: Called when they have begun.
    """

    def __init__(
        self,
        numbers: Iterator[int],
        ports: Callable[[], list[int]],
        target: Callable[[int], str],
        connections: int,
        limit: float,
    ) -> None:
        self.accepted: dict[int, str] = {}
        self.refused: set[int] = set()
        self.unanswered: set[int] = set()
        self._numbers = numbers
        self.begun: Callable[[], None] = lambda: None
        self._ports = ports
        self._target = target
        self._connections = connections
        self._limit = limit
        self._is_ending = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="load")

    def __enter__(self) -> Load:
        self._thread.start()
        try:
            self.begun()
        except BaseException:
            self.end()
            raise
        return self

    def end(self) -> None:
        """Send no more requests."""
        self._is_ending = True

    def __exit__(self, *exc_info: object) -> None:
        self.end()
        self._thread.join()
        if self._error is not None:
            raise Failure("the load has failed") from self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._run_all())
        except BaseException as exc:
            self._error = exc

    async def _run_all(self) -> None:
        await asyncio.gather(*(self._connection() for _ in range(self._connections)))

    async def _connection(self) -> None:
        while not self._is_ending:
            ports = self._ports()
            try:
                if not ports:
                    raise ConnectionRefusedError("there is no server")
                reader, writer = await asyncio.open_connection("127.0.0.1", random.choice(ports))
            except OSError:
                await asyncio.sleep(POLL_INTERVAL)
                continue
            try:
                while not self._is_ending:
                    await self._request(reader, writer)
            except (OSError, EOFError, asyncio.TimeoutError):
                await asyncio.sleep(POLL_INTERVAL)
            finally:
                writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._numbers)
        self.unanswered.add(number)
        self._limit -= 1
        if self._limit <= 0:
            self.end()
        exchange = _exchange(reader, writer, self._target(number))
        status, body = await asyncio.wait_for(exchange, DEADLINE)
        self.unanswered.discard(number)
        if status == 200:
            self.accepted |= jobs_of(number, body)
        else:
            self.refused.add(number)


async def _exchange(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str
) -> tuple[int, bytes]:
    """Send a request and read the response, to its last byte."""
    writer.write(f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    found = _RESPONSE.match(head)
    if found is None:
        # Of the server itself, as when it shuts down; it closes the connection.
        return int(head.split()[1]), await reader.read()
    return int(found[1]), await reader.readexactly(int(found[2]))


async def _get(port: int, target: str) -> tuple[int, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await asyncio.wait_for(_exchange(reader, writer, target), DEADLINE)
    finally:
        writer.transport.abort()


def jobs_of(number: int, body: bytes) -> dict[int, str]:
    """Return the ids in a response by their numbers; a follower's is negative."""
    return dict(zip((number, -number), body.decode().split(), strict=False))


def mixed(number: int) -> str:
    """The target of a request for a job on the loop or in a thread, of no time or of some.

    Every eighth has a follower.
    """
    task = ("async", "thread")[number % 2]
    seconds = (0, 0, 0.002, 0.005)[number // 2 % 4]
    follower = "" if number % 8 else "&follower=thread"
    return f"/{task}?number={number}&seconds={seconds}{follower}"


def slow(number: int) -> str:
    """The target of a request for a job that takes so long that many are there at once."""
    return f"/{('async', 'thread')[number % 2]}?number={number}&seconds=0.1"


class Site:
    """A journal, the servers that share it, and the record of what happens in them.

    Args:
        directory: Where all of its files are.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.journal = directory / "jobs.db"
        self.numbers = itertools.count(1)
        self._servers: list[Server] = []
        self._loads: list[Load] = []
        self._blocks = 0
        self._starts = itertools.count(1)
        self._lines: list[str] = []
        self._read = 0
        self._reading = threading.Lock()
        self._born: dict[str, int] = {}
        self._gone: set[tuple[str, str]] = set()
        self._record = os.open(
            directory / "record", os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600
        )

    def close(self) -> None:
        """End all servers, at once."""
        with contextlib.ExitStack() as stack:  # each of them, whatever becomes of the others
            stack.callback(os.close, self._record)
            for server in self._servers:
                stack.callback(server.kill)

    # Servers and clients.

    def start(
        self,
        *,
        workers: int = 1,
        point: str = "",
        steps: int = 100,
        max_jobs: int = 1000,
        drain_timeout: float = 25.0,
        lifespan: str = "on",
        is_awaited: bool = True,
    ) -> Server:
        """Start a server on the journal.

        Args:
            workers: How many processes it has.
            point: Where it kills itself, as ``name`` or ``name:times``; see `tests.crash.app`.
            steps: How far into a statement, where that is the point.
            max_jobs: As the runner's.
            drain_timeout: As the runner's.
            lifespan: Whether the server speaks it, "on" or "off".
            is_awaited: Whether to return only when it serves.
        """
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "CRASH_DIRECTORY": str(self.directory),
            "CRASH_POINT": point,
            "CRASH_STEPS": str(steps),
            "CRASH_MAX_JOBS": str(max_jobs),
            "CRASH_DRAIN_TIMEOUT": str(drain_timeout),
        }
        for _ in range(3):
            environment["CRASH_ONCE"] = str(self.directory / f"died-{next(self._starts)}")
            server = self._start_once(workers, lifespan, environment)
            if not is_awaited or self._is_serving(server, workers):
                return server
            # It has ended: most likely another process was faster to take the port.
            server.kill()
        raise Failure(f"no server comes up\n{self.report()}")

    def _start_once(self, workers: int, lifespan: str, environment: dict[str, str]) -> Server:
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port)]
        command += ["--workers", str(workers), "--no-access-log", "--timeout-keep-alive", "60"]
        command += ["--lifespan", lifespan]
        with open(self.directory / "server.log", "ab") as log:
            process = subprocess.Popen(
                [*command, "tests.crash.app:app"],
                cwd=self.directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(self, process, port)
        self._servers.append(server)
        return server

    def _is_serving(self, server: Server, workers: int) -> bool:
        self.until(
            lambda: (
                not server.is_up() or (len(server.processes()) >= workers and server.is_accepting())
            ),
            "server that comes up",
        )
        return server.is_up()

    def load(
        self,
        target: Callable[[int], str] = mixed,
        *,
        connections: int = 16,
        limit: float = math.inf,
    ) -> Load:
        """Return clients, which work within a ``with``, and for so many requests at most."""
        load = Load(self.numbers, self.ports, target, connections, limit)
        self._loads.append(load)
        return load

    def ports(self) -> list[int]:
        """Where servers listen now."""
        return [server.port for server in self._servers if server.is_up()]

    def add(self, server: Server, task: str, count: int = 1, **query: Any) -> list[str]:
        """Have a server add so many jobs, and return their ids."""
        words = "".join(f"&{name}={value}" for name, value in query.items())
        load = Load(self.numbers, lambda: [server.port], str, 0, 0)
        self._loads.append(load)
        for _ in range(count):
            number = next(self.numbers)
            load.accepted |= jobs_of(number, server.get(f"/{task}?number={number}{words}"))
        return list(load.accepted.values())

    def block(self, server: Server, seconds: float) -> Load:
        """Block the event loop of a server, from the begin of a ``with`` on."""
        self._blocks += 1
        gate = f"blocked-{self._blocks}"
        target = f"/block?seconds={seconds}&gate={gate}"
        load = Load(self.numbers, lambda: [server.port], lambda _: target, 1, 1)
        load.begun = lambda: self.until((self.directory / gate).exists, "blocked loop")
        return load

    def accepted(self) -> dict[int, str]:
        """The job's id by the number of each request that was answered with 200."""
        return {number: job for load in self._loads for number, job in load.accepted.items()}

    def open(self, gate: str) -> None:
        """Let the tasks go on that wait for this gate."""
        (self.directory / gate).touch()

    # The record.

    def tell(self, *words: object) -> None:
        """Append a line to the record."""
        os.write(self._record, " ".join(map(str, words)).encode() + b"\n")

    def lines(self) -> list[str]:
        """The record so far."""
        with self._reading:
            size = os.fstat(self._record).st_size
            data = os.pread(self._record, size - self._read, self._read)
            data = data[: data.rfind(b"\n") + 1]
            self._read += len(data)
            for line in data.decode().splitlines():
                self._lines.append(line)
                word, *rest = line.split()
                if word == "born":
                    self._born[rest[0]] = int(rest[1])
                elif word in ("kill", "dying", "dead"):
                    self._gone.add((word, rest[0]))
            return self._lines

    def told(self, word: str, jobs: list[str] | None = None) -> list[list[str]]:
        """What the lines of this word say, the words after it; of all jobs or of these."""
        wanted = None if jobs is None else set(jobs)
        found = [line.split()[1:] for line in self.lines() if line.startswith(f"{word} ")]
        return [rest for rest in found if wanted is None or rest[1] in wanted]

    def has(self, word: str, process: str) -> bool:
        """Whether a process has been killed (``kill``), or is known to be ``dead``."""
        self.lines()
        return (word, process) in self._gone

    def born_in(self, group: int) -> list[str]:
        self.lines()
        return [process for process, found in self._born.items() if found == group]

    def processes_of(self, group: int) -> list[str]:
        return [
            process
            for process in self.born_in(group)
            if not {("kill", process), ("dying", process), ("dead", process)} & self._gone
        ]

    # The journal.

    def counts(self) -> dict[str, int]:
        """How many jobs there are of each status."""
        journal = SQLiteJournal(self.journal)
        try:
            return journal.counts()
        finally:
            journal.close()

    def is_locked(self) -> bool:
        """Whether somebody is writing, and does not come to an end."""
        with contextlib.closing(
            sqlite3.connect(self.journal, timeout=1.0, isolation_level=None)
        ) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.execute("ROLLBACK")
        return False

    def rows(self) -> dict[str, Row]:
        """All jobs by their ids."""
        with contextlib.closing(sqlite3.connect(self.journal, timeout=DEADLINE)) as connection:
            found = connection.execute("SELECT id, status, attempt, crashes, error FROM jobs")
            return {job: Row(*values) for job, *values in found}

    def is_finished(self) -> bool:
        try:
            counts = self.counts()
        except JournalError:
            return False  # there is no journal yet
        return not counts["queued"] and not counts["running"]

    # What is waited for, and what must hold.

    def wait(self, condition: Callable[[], Any], seconds: float) -> bool:
        """Wait until something is so; False if it is not, after that time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_INTERVAL)
        return True

    def until(self, condition: Callable[[], Any], what: str, seconds: float = DEADLINE) -> None:
        """Wait until something is so, or fail and show what is known."""
        if not self.wait(condition, seconds):
            raise Failure(f"no {what} in {seconds:g} seconds\n{self.report()}")

    def until_accepted(self, load: Load, count: int) -> None:
        """Wait until the clients have got so many good responses."""
        self.until(lambda: len(load.accepted) >= count, f"{count} good responses")

    def until_started(self, jobs: list[str], seconds: float = DEADLINE) -> None:
        """Wait until these jobs have been started."""
        self.until(
            lambda: len({job for _, job, *_ in self.told("start", jobs)}) == len(jobs),
            f"start of all {len(jobs)} jobs",
            seconds,
        )

    def finish(self) -> Figures:
        """Wait until the journal has nothing left to do, and check all that must hold."""
        self.until(self.is_finished, "end of all jobs")
        return self.check()

    def check(self) -> Figures:
        """Check all that must hold once the journal has nothing left to do."""
        figures = audit(self.evidence())
        if figures.violations:
            failure = Failure(f"{figures.report()}\n{self.report()}")
            failure.figures = figures
            raise failure
        return figures

    def evidence(self) -> Evidence:
        return Evidence(
            lines=self.lines(),
            accepted=self.accepted(),
            refused=set[int]().union(*(load.refused for load in self._loads)),
            unanswered=set[int]().union(*(load.unanswered for load in self._loads)),
            rows=self.rows(),
        )

    def report(self) -> str:
        """What is known, for a message."""
        log = (self.directory / "server.log").read_text(errors="replace")[-6000:]
        lives = [
            line for line in self.lines() if line.startswith(("born ", "kill ", "dying ", "dead "))
        ]
        try:
            counts: object = self.counts()
        except JournalError as exc:
            counts = exc
        latest = "\n".join(self.lines()[-20:])
        return (
            f"--- the journal\n{counts}\n--- the processes\n"
            + "\n".join(lives[-40:])
            + f"\n--- the end of the record\n{latest}\n--- what the servers wrote\n{log}"
        )


def _is_alive(pid: int) -> bool:
    """Whether a process has yet to die; a zombie has."""
    try:
        status: str = psutil.Process(pid).status()
    except psutil.NoSuchProcess:
        return False
    return status not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)


def _group_lives(group: int) -> bool:
    """Whether any process of a group has yet to die."""
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(pid) == group and _is_alive(pid):
                return True
    return False


def kill_at_random(
    site: Site, rng: random.Random, *, workers: int, kills: int, jobs: int = 0, max_jobs: int = 1000
) -> Figures:
    """Kill servers at random moments while they are under load, and check what comes of it.

    Args:
        site: Where; it is left with no server.
        rng: Decides on the moments, and on who dies.
        workers: How many processes a server has. With more than one, mostly one of them dies,
            sometimes two, sometimes all, and with them what starts them again.
        kills: How often, at least.
        jobs: How many jobs shall be promised in all, at least.
        max_jobs: As the runner's; a low number leaves most jobs to the journal.
    """

    def start(*, is_awaited: bool = True) -> Server:
        return site.start(
            workers=workers, max_jobs=max_jobs, drain_timeout=0.05, is_awaited=is_awaited
        )

    server = start()
    with site.load() as load:
        killed = 0
        while killed < kills or len(load.accepted) < jobs:
            is_early = rng.random() < 0.15
            if not server.is_up():
                server = start(is_awaited=not is_early)
            if is_early:
                time.sleep(rng.uniform(0.05, 0.5))  # most likely while it starts or recovers
            else:
                site.until_accepted(load, len(load.accepted) + rng.randint(1, 400))
                time.sleep(rng.uniform(0, 0.02))
            killed += _kill_some(server, workers, rng)
    if not server.is_up():
        server = start()
    figures = site.finish()
    server.kill()
    return figures


def _kill_some(server: Server, workers: int, rng: random.Random) -> int:
    """Kill one process, two or all, or now and then end it in good order; count the kills."""
    processes = server.processes()
    if processes and rng.random() < 0.1:
        server.terminate()
        return 0
    if workers == 1 or not processes or rng.random() < 0.2:
        server.kill()
        return len(processes)
    victims = rng.sample(processes, min(len(processes), rng.choice((1, 1, 2))))
    for process in victims:
        server.kill_one(process)
    return len(victims)
