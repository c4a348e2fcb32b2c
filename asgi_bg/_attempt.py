"""One attempt at a job: what the task sees of it, and how a plain function is called."""

from __future__ import annotations

import asyncio
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from anyio.lowlevel import EventLoopToken

from asgi_bg._job import (
    LOGS_LIMIT,
    Cancelled,
    CurrentJob,
    Failed,
    JobRecord,
    LogLine,
    Outcome,
    Succeeded,
    running,
)


class Supervisor(Protocol):
    """Who is told of an attempt's fate; every method may be called from any thread."""

    @property
    def token(self) -> EventLoopToken:
        """The event loop that ``anyio.from_thread`` finds inside a plain function."""
        ...

    def may_begin(self, attempt: Attempt) -> bool:
        """Whether a thread may begin with it; False if it was settled in the meantime."""
        ...

    def attempt_began(self, attempt: Attempt) -> None:
        """The task is about to be called."""
        ...

    def attempt_progressed(self, attempt: Attempt) -> None:
        """The task has told how far it is."""
        ...

    def attempt_returned(self, attempt: Attempt, outcome: Outcome) -> None:
        """The call has ended, in a worker thread."""
        ...

    def give_up(self, attempt: Attempt, verdict: Failed | Cancelled) -> None:
        """End the attempt early, with this outcome."""
        ...


def failure_of(exception: BaseException, *, ours: int) -> Failed:
    """Return an exception as an outcome, its traceback without our own first frames."""
    frames = exception.__traceback__
    for _ in range(ours):
        frames = frames.tb_next if frames is not None and frames.tb_next is not None else frames
    exception = exception.with_traceback(frames)
    return Failed(exception, "".join(traceback.format_exception(exception)))


class Attempt(CurrentJob):
    """One attempt: it claims a slot, is run, and is settled exactly once.

    Attributes:
        record: The job.
        timeout: How long it may take, in seconds, or None.
        began: The monotonic instant at which the task was called.
        has_slot: Whether it holds one.
        is_in_thread: Whether a worker thread has begun with it.
        settled: Whether its outcome is decided; what a thread brings later is ignored.
        verdict: The outcome that was decided for it while it still ran.
        handle: The asyncio task that runs or awaits it, where there is one.
        timer: Its timeout, while it runs.
        when_done: Called once it is settled, for the next job in line.
    """

    __slots__ = (
        "began",
        "concurrency",
        "handle",
        "has_slot",
        "is_in_thread",
        "priority",
        "record",
        "settled",
        "supervisor",
        "timeout",
        "timer",
        "verdict",
        "when_done",
    )

    def __init__(
        self,
        record: JobRecord,
        supervisor: Supervisor,
        timeout: float | None,
        when_done: Callable[[], None] | None,
    ) -> None:
        options = record.task.options
        self.id = record.id
        self.task_name = record.task.name
        self.attempt = 0
        self.cancelled = False
        self.record = record
        self.supervisor = supervisor
        self.timeout = timeout
        self.when_done = when_done
        self.concurrency = options.concurrency
        self.priority = options.priority
        self.began = 0.0
        self.has_slot = False
        self.is_in_thread = False
        self.settled = False
        self.verdict: Failed | Cancelled | None = None
        self.handle: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None

    @property
    def token(self) -> EventLoopToken:
        """The event loop that ``anyio.from_thread`` finds inside a plain function."""
        return self.supervisor.token

    def begin(self) -> None:
        """Make this the running job of the context it is called in, and note its begin."""
        running.set(self)
        self.note_begin()

    def note_begin(self) -> None:
        """Note that the task is being called now."""
        self.began = time.monotonic()
        self.record.start()
        self.supervisor.attempt_began(self)

    def call(self) -> Any:
        """Begin, and call the task's function."""
        self.begin()
        record = self.record
        return record.task.func(*record.args, **record.kwargs)

    def run(self) -> None:
        """Call the plain function, in a worker thread, in the context of its `add_task`."""
        if not self.supervisor.may_begin(self):
            return
        outcome: Outcome
        try:
            outcome = Succeeded(self.record.context.copy().run(self.call))
        except BaseException as exc:
            outcome = failure_of(exc, ours=2)
        self.supervisor.attempt_returned(self, outcome)

    def abort(self, reason: str) -> None:
        """Cancel the job, for the reason given."""
        self.supervisor.give_up(self, Cancelled(reason))

    def report(self, fraction: float, message: str) -> None:
        """Note the progress, unless the attempt has been given up."""
        if not self.settled:
            self.record.progress = fraction
            self.record.message = message
            self.supervisor.attempt_progressed(self)

    def keep(self, line: LogLine) -> None:
        """Keep a log record with the job, the last `LOGS_LIMIT` of them."""
        if self.record.logs is None:
            self.record.logs = deque(maxlen=LOGS_LIMIT)
        self.record.logs.append(line)
