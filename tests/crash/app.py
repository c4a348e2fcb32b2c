"""The application that is killed: each request adds durable jobs under its own number.

Imported by the servers' processes and by nobody else. What happens goes to the record, a file
that all processes append to with single writes, so that its order is the order in which
things happened:

    born PROCESS GROUP                            a server process has loaded the application
    child PROCESS PARENT                          one that it has started for tasks has
    start NUMBER JOB ATTEMPT PROCESS TIME         the task begins
    end NUMBER JOB ATTEMPT PROCESS TIME           the last the task does
    cancelled NUMBER JOB ATTEMPT PROCESS TIME     the task was cancelled
    noted JOB ATTEMPT PROCESS TIME                the journal has been told of the end
    dying PROCESS POINT                           the process kills itself at a named point

A PROCESS is its number and an instant, as the system gives numbers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from asgi_bg import BackgroundTaskMiddleware, Task, add_task, current_job, task
from asgi_bg.journal import SQLiteJournal

DIRECTORY = Path(os.environ["CRASH_DIRECTORY"])
POLL_INTERVAL = 0.01
PROCESS = f"{os.getpid()}-{time.monotonic_ns():x}"

_record = os.open(DIRECTORY / "record", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)


def tell(*words: object) -> None:
    """Append a line to the record."""
    os.write(_record, " ".join(map(str, words)).encode() + b"\n")


# Only server processes load the application without inheriting this.
_parent = os.environ.get("CRASH_PARENT")
if _parent is None:
    os.environ["CRASH_PARENT"] = PROCESS
    tell("born", PROCESS, os.getpgid(0))
else:
    tell("child", PROCESS, _parent)


# Where to die.


class Fault:
    """The point where this process kills itself, if it is to.

    Attributes:
        point: Its name, or nothing.
        steps: After how many steps of SQLite's machine to die in the middle of a statement.
    """

    def __init__(self) -> None:
        point = os.environ.get("CRASH_POINT", "") if _parent is None else ""
        self.point, _, at = point.partition(":")
        self.steps = int(os.environ.get("CRASH_STEPS", "100"))
        self._at = int(at or 1)
        self._times = itertools.count(1)

    def is_due(self, point: str) -> bool:
        """Note that a point has been reached; whether it is the time to die there."""
        return point == self.point and next(self._times) >= self._at

    def reach(self, point: str) -> None:
        """Die, if this is the point and the time."""
        if self.is_due(point):
            self.die()

    def die(self) -> None:
        """Die, unless another process has died of this already."""
        with contextlib.suppress(FileExistsError):
            os.close(os.open(os.environ["CRASH_ONCE"], os.O_CREAT | os.O_EXCL))
            tell("dying", PROCESS, self.point)
            os.kill(os.getpid(), signal.SIGKILL)

    @contextlib.contextmanager
    def in_statement(self, point: str, connection: Any) -> Iterator[None]:
        """Die in the middle of the statement that this surrounds."""
        if connection is None or not self.is_due(point):
            yield
            return

        def die() -> int:
            self.die()
            return 0

        connection.set_progress_handler(die, self.steps)
        try:
            yield
        finally:
            connection.set_progress_handler(None, 0)


fault = Fault()


class DyingJournal(SQLiteJournal):
    """The journal, with named points around all that it does to a job."""

    def open(self) -> None:
        super().open()
        fault.reach("after-open")

    def commit(self, batch: Any) -> dict[str, str]:
        if batch.added:
            fault.reach("before-commit")
        if batch.marks:
            fault.reach("before-result-commit")
        if batch.added and batch.marks:
            fault.reach("before-mixed-commit")
        point = "mid-result-commit" if batch.marks else "mid-commit" if batch.added else ""
        with fault.in_statement(point, self._file.connection):
            twins = super().commit(batch)
        if batch.added:
            fault.reach("after-commit")
        if batch.marks:
            fault.reach("after-result-commit")
        return twins

    def note_start(self, id: str, attempt: int) -> None:
        fault.reach("before-start")
        super().note_start(id, attempt)
        fault.reach("after-start")

    def note(self, mark: Any) -> None:
        is_end = getattr(mark, "finished_at", None) is not None
        if is_end:
            fault.reach("before-note")
        super().note(mark)
        if is_end:
            tell("noted", mark.id, mark.attempt, PROCESS, time.monotonic())
            fault.reach("after-note")

    def turn(self) -> None:
        super().turn()
        fault.reach("after-turn")

    def recover(self) -> Any:
        found = super().recover()
        if found:
            fault.reach("after-recovery")
        return found

    def _take_from(self, *values: Any) -> Any:
        fault.reach("before-recovery")
        with fault.in_statement("mid-recovery", self._file.connection):
            taken = super()._take_from(*values)
        fault.reach("after-taking")
        return taken

    def claim(self, limit: int, now: float) -> Any:
        with fault.in_statement("mid-claim", self._file.connection):
            claimed = super().claim(limit, now)
        if claimed:
            fault.reach("after-claim")
        return claimed

    def close(self) -> None:
        fault.reach("before-close")
        super().close()


# The tasks.


def is_open(gate: str) -> bool:
    return not gate or (DIRECTORY / gate).exists()


@contextlib.contextmanager
def told(number: int) -> Iterator[None]:
    """Tell the start and the end of the task that is running."""
    job = current_job()
    about = (number, job.id, job.attempt, PROCESS)
    tell("start", *about, time.monotonic())
    try:
        yield
    except asyncio.CancelledError:
        tell("cancelled", *about, time.monotonic())
        raise
    fault.reach("mid-task")
    tell("end", *about, time.monotonic())
    fault.reach("after-end")


@task(name="async")
async def async_task(number: int, seconds: float, gate: str) -> None:
    with told(number):
        if seconds:
            await asyncio.sleep(seconds)
        while not is_open(gate):
            await asyncio.sleep(POLL_INTERVAL)


@task(name="thread")
def thread_task(number: int, seconds: float, gate: str) -> None:
    with told(number):
        if seconds:
            time.sleep(seconds)
        while not is_open(gate):
            time.sleep(POLL_INTERVAL)


@task(name="process", executor="process")
def process_task(number: int, seconds: float, gate: str) -> None:
    thread_task(number, seconds, gate)


@task(name="narrow", concurrency=2)
async def narrow_task(number: int, seconds: float, gate: str) -> None:
    await async_task(number, seconds, gate)


@task(name="poison")
async def poisonous_task(number: int, seconds: float, gate: str) -> None:
    with told(number):
        await asyncio.sleep(seconds)
        tell("dying", PROCESS, "poison")
        os.kill(os.getpid(), signal.SIGKILL)


TASKS: dict[str, Task[..., Any]] = {
    f"/{found.name}": found
    for found in (async_task, thread_task, process_task, narrow_task, poisonous_task)
}


# The application.


async def serve(scope: Any, receive: Any, send: Any) -> None:
    """Add the jobs that the request names, and answer with their ids.

    A follower, the second job of its request, has the number with a minus sign.
    """
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    number, seconds = int(query.get("number", 0)), float(query.get("seconds", 0))
    gate, delay = query.get("gate", ""), float(query.get("delay", 0))
    if scope["path"] == "/block":
        (DIRECTORY / gate).touch()
        time.sleep(seconds)
        body = b""
    else:
        added = TASKS[scope["path"]]
        if delay:
            added = added.using(delay=delay)
        jobs = [add_task(added, number, seconds, gate)]
        if "follower" in query:
            jobs.append(add_task(TASKS[f"/{query['follower']}"], -number, seconds, gate))
        body = " ".join(job.id for job in jobs).encode()
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", str(len(body)).encode())],
        }
    )
    await send({"type": "http.response.body", "body": body})


class Outermost:
    """Dies before or after a response reaches the server."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                fault.reach("before-send")
            await send(message)
            if message["type"] == "http.response.body" and fault.is_due("after-send"):
                # Until the event loop has given the bytes to the system.
                await asyncio.sleep(0.005)
                fault.die()

        await self.app(scope, receive, sending)


app = Outermost(
    BackgroundTaskMiddleware(
        serve,
        journal=DyingJournal(DIRECTORY / "jobs.db"),
        max_jobs=int(os.environ.get("CRASH_MAX_JOBS", "1000")),
        drain_timeout=float(os.environ.get("CRASH_DRAIN_TIMEOUT", "25")),
    )
)
