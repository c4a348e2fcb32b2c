"""One attempt of a job: the call of its task's function, and what the function is told of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from asgi_bg._job import CurrentJob, JobStatus, LogLine, running
from asgi_bg._record import JobRecord

LOGS_LIMIT = 100
"""How many of a job's last log records are kept with it."""

# Looking a member of an enum up takes longer than most of what is done with it here.
_RUNNING = JobStatus.running


class Attempt(CurrentJob):
    """The current job, as seen from an attempt in this process.

    Args:
        record: The job.
        run: The number of the attempt; see `JobRecord.run`.
    """

    __slots__ = ("attempt", "record", "run")

    def __init__(self, record: JobRecord, run: int) -> None:
        self.record = record
        self.attempt = record.attempt
        self.run = run

    # As the function sees it.

    @property
    def id(self) -> str:  # type: ignore[override] # read-only, as everything here
        return self.record.id

    @property
    def task_name(self) -> str:  # type: ignore[override]
        return self.record.task_name

    @property
    def cancelled(self) -> bool:
        return self.record.given_up >= self.run

    def report(self, fraction: float, message: str) -> None:
        if not self.cancelled:
            self.record.fraction = fraction
            self.record.message = message
            self.record.home.progressed(self.record)

    def keep(self, line: LogLine) -> None:
        if self.record.logs is None:
            self.record.logs = deque(maxlen=LOGS_LIMIT)
        self.record.logs.append(line)

    # As whoever makes the call sees it.

    def begin(self) -> None:
        """Note that the call begins now."""
        record = self.record
        if record.kept is not None:
            record.home.begins(record)
        record.status = _RUNNING
        record.started_at = time.time()

    def announce(self) -> None:
        """Tell of the begin, if anybody wants to know."""
        record = self.record
        if record.home.hears_begins or record.task.options.timeout is not None:
            record.home.began(record, self.run)

    def call(self) -> Any:
        """Call the task's function, with this as the running job of the context."""
        running.set(self)
        self.announce()
        record = self.record
        return record.task.func(*record.args, **record.kwargs)


def begin_and_call(record: JobRecord) -> Any:
    """Begin an attempt, and call the task's function."""
    attempt = Attempt(record, record.run)
    attempt.begin()
    return attempt.call()


def go_on_with(value: Any) -> Callable[[JobRecord], Awaitable[Any]]:
    """Go on with what a plain function has returned, in the same attempt."""

    def call(record: JobRecord) -> Awaitable[Any]:
        running.set(Attempt(record, record.run))
        work: Awaitable[Any] = value
        return work

    return call
