"""A job as this process holds it, and what is known of it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from contextvars import Context
from typing import Any, Protocol

from asgi_bg._failures import describe_error
from asgi_bg._ids import new_id
from asgi_bg._job import (
    Cancelled,
    Failed,
    Interrupted,
    Job,
    JobInfo,
    JobStatus,
    LogLine,
    PastAttempt,
    as_instant,
)
from asgi_bg._origin import Origin, Request, Tracing, current_trace
from asgi_bg._task import Task
from asgi_bg.exceptions import JobFailed

PAST_LIMIT = 20
"""How many of a job's attempts before the last one are kept with it."""

PAST_TRACEBACK = 4_000
"""To how many characters their tracebacks are shortened."""

# Looking a member of an enum up takes longer than most of what is done with it here.
_QUEUED = JobStatus.queued
_SUCCEEDED = JobStatus.succeeded

NO_KEYWORDS: dict[str, Any] = {}


class Home(Protocol):
    """Who admitted a job and looks after it.

    Every method but `result_of` and `info_of` may be called from any thread.
    """

    owner: str
    hears_begins: bool
    """Whether it wants to know of every job that begins, not only of those with a timeout."""

    def cancel(self, record: JobRecord, reason: str) -> None:
        """Cancel it in whatever state it is; one that has ended stays as it is."""
        ...

    def began(self, record: JobRecord, run: int) -> None:
        """Note that the task is being called, in the attempt of that number."""
        ...

    def progressed(self, record: JobRecord) -> None:
        """Note that the task has told how far it is."""
        ...

    def named(self, record: JobRecord) -> None:
        """Note that the job has got its id, and can be asked for by it."""
        ...

    def begins(self, record: JobRecord) -> None:
        """Note that an attempt of a job that is kept in a journal begins."""
        ...

    def returned(self, record: JobRecord, value: Any) -> None:
        """Note that the function of a job that is kept has returned this, in its thread."""
        ...

    async def result_of(self, id: str, timeout: float | None) -> Any:
        """Wait for the end of a job that is kept in a journal, whoever runs it."""
        ...

    async def info_of(self, id: str) -> JobInfo:
        """Return what is known of a job that is kept in a journal, whoever runs it."""
        ...


class Follower(Protocol):
    """Where other jobs wait for the end of one."""

    def job_done(self) -> None:
        """Note that it has ended, or left to be tried again later."""
        ...


class Kept:
    """What belongs to a job that is kept in a journal.

    Attributes:
        call: Its arguments, as JSON text.
        options: Its options, where they differ from the declared ones, as JSON text.
        interrupted: How many of its attempts were cut off.
        is_told: Whether the journal has been told of it.
        returned: The ``run`` of the attempt whose function has returned, in its thread, and of
            which the journal has been told.
        is_away: Whether it waits in the journal, for this process or another one.
        is_claimed: Whether it was taken from there, as there was room for it.
        shown: What the journal says of its progress: the attempt, the fraction, the words.
    """

    __slots__ = (
        "call",
        "interrupted",
        "is_away",
        "is_claimed",
        "is_told",
        "options",
        "returned",
        "shown",
    )

    def __init__(self, call: str, options: str | None) -> None:
        self.call = call
        self.options = options
        self.interrupted = 0
        self.is_told = False
        self.is_away = False
        self.is_claimed = False
        self.returned = 0
        self.shown: tuple[int, float | None, str] | None = None


class JobRecord(Job):
    """One job in this process; written by the scheduler alone.

    Most jobs are queued, run and forgotten, and nobody asks. So instants are seconds since
    the epoch, and the id is made when somebody wants to know it.

    Attributes:
        task, args, kwargs, context: The call, and the context of its `add_task` (R4).
        packed: The call as bytes, where it is to be made in another process.
        home: Who admitted it.
        attempt: The number of the attempt under way, or of the last.
        run_after: Before when it does not start (again).
        turn: Its place in the line for a slot.
        has_slot: Whether the attempt holds one.
        is_in_thread: Whether a worker thread has begun with it.
        run: The number of the attempt as no other attempt of the job has it, also after it
            was queued anew by hand; what a call brings late is known by it.
        given_up: The ``run`` of the last attempt that was given up while it ran.
        is_loose: Whether it was queued anew by hand, so that the collector that may still
            list it is not where it is to be run from.
        line: The collector whose lane lists it now; other lanes that list it pass over it.
        verdict: The outcome that was decided for the attempt while it runs.
        handle: The asyncio task that runs or awaits the attempt.
        timer: What happens by itself: the time is up, the wait is over.
        finished_at: When it ended; None as long as it has not, which is how to ask.
        lane: Where the jobs of its request wait for its end; None once it has left it.
        kept: What belongs to a job that is kept in a journal; None for other jobs.
        source: The request that it comes from; None if there was none, or nobody knows.
        trace: The trace context in which it was added, if somebody traces.
        past: Its attempts before the last one, or None.
        brought: For a job that an engine has brought, which sees to its retries: told when the
            attempt is over, with the seconds after which it is to be tried again, or None.
    """

    __slots__ = (
        "_id",
        "args",
        "attempt",
        "brought",
        "context",
        "error",
        "exception",
        "finished_at",
        "fraction",
        "given_up",
        "handle",
        "has_slot",
        "home",
        "is_in_thread",
        "is_loose",
        "kept",
        "kwargs",
        "lane",
        "line",
        "logs",
        "message",
        "packed",
        "past",
        "queued_at",
        "run",
        "run_after",
        "source",
        "started_at",
        "status",
        "task",
        "timer",
        "trace",
        "traceback",
        "turn",
        "value",
        "verdict",
        "waiters",
    )

    # One lock for all: an id is made once, and no waiter is lost.
    _naming = threading.Lock()

    def __init__(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
        home: Home,
        source: Request | Origin | None,
    ) -> None:
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.context: Context | None = context
        self.home = home
        self.queued_at = time.time()
        self.packed: bytes | None = None
        self.status = _QUEUED
        self.attempt = 0
        self.run_after: float | None = None
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.value: Any = None
        self.error: str | None = None
        self.exception: BaseException | None = None
        self.traceback: str | None = None
        self.fraction: float | None = None
        self.message = ""
        self.logs: deque[LogLine] | None = None
        self.waiters: list[asyncio.Future[None]] | None = None
        self.turn = 0
        self.has_slot = False
        self.is_in_thread = False
        self.run = 0
        self.given_up = 0
        self.is_loose = False
        self.line: object = None
        self.verdict: Failed | Cancelled | Interrupted | None = None
        self.handle: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.lane: Follower | None = None
        self.kept: Kept | None = None
        self.brought: asyncio.Future[float | None] | None = None
        self.source: Request | Origin | None = source
        self.trace: str | None = None if Tracing.current is None else current_trace()
        self.past: list[PastAttempt] | None = None
        self._id: str | None = None

    def become(self, id: str) -> None:
        """Take an id: of a job that is kept, which is found by it among those held."""
        self._id = id

    # What users see.

    @property
    def id(self) -> str:
        """The job's id, made now if nobody has asked before."""
        if self._id is None:
            with self._naming:
                if self._id is None:
                    self._id = new_id(self.queued_at)
            self.home.named(self)
        return self._id

    @property
    def task_name(self) -> str:
        """The name of its task."""
        return self.task.name

    async def result(self, timeout: float | None = None) -> Any:
        """Wait for the end and return the value, as `Job.result` says."""
        began = time.monotonic()
        if self.finished_at is None and not self.is_away:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            with self._naming:
                self.waiters = [*(self.waiters or ()), waiter]
            try:
                # It may have ended, on another thread's loop, between the look and the entry.
                if self.finished_at is None and not self.is_away:
                    await asyncio.wait((waiter,), timeout=timeout)
            finally:
                with self._naming:
                    self.waiters = [other for other in self.waiters if other is not waiter]
            if self.finished_at is None and not self.is_away:
                raise TimeoutError(
                    f"job {self.id} of task {self.task_name} is still {self.status} "
                    f"after {timeout} seconds"
                )
        if self.finished_at is None:
            left = None if timeout is None else max(0.0, began + timeout - time.monotonic())
            return await self.home.result_of(self.id, left)
        if self.status is _SUCCEEDED:
            return self.value
        failed = JobFailed(self.id, self.task_name, self.error or str(self.status))
        raise failed from self.exception

    async def info(self) -> JobInfo:
        """Return what is known of the job now."""
        if self.is_away and self.finished_at is None:
            return await self.home.info_of(self.id)
        return self.snapshot()

    def snapshot(self) -> JobInfo:
        """Return what is known of the job now; from any thread."""
        return JobInfo(
            id=self.id,
            task=self.task_name,
            status=self.status,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            queued_at=as_instant(self.queued_at),
            run_after=None if self.run_after is None else as_instant(self.run_after),
            started_at=None if self.started_at is None else as_instant(self.started_at),
            finished_at=None if self.finished_at is None else as_instant(self.finished_at),
            progress=self.fraction,
            message=self.message,
            result=self.value,
            error=self.error,
            traceback=self.traceback,
            durable=self.kept is not None,
            owner=self.home.owner if self.attempt else None,
            logs=tuple(self.logs or ()),
        )

    # Its attempts.

    @property
    def max_attempts(self) -> int:
        """How often it may be started, in all; attempts that were cut off do not count."""
        interrupted = 0 if self.kept is None else self.kept.interrupted
        return self.task.options.retries + 1 + interrupted

    @property
    def is_away(self) -> bool:
        """Whether it waits in a journal, and not in this process."""
        return self.kept is not None and self.kept.is_away

    def own_context(self) -> Context:
        """Return a context for one attempt: that of its `add_task`, as it was then."""
        assert self.context is not None  # noqa: S101 - only a job that succeeded has none
        return self.context.copy()

    def origin(self) -> Origin | None:
        """Return the request and the trace that it comes from, if any is known."""
        if self.source is None:
            return None if self.trace is None else Origin(trace=self.trace)
        return self.source.origin(self.trace)

    def remember(self, error: str | None, traceback: str | None) -> None:
        """Keep an attempt that is over, as another one follows."""
        if traceback is not None:
            traceback = traceback[-PAST_TRACEBACK:]
        end = time.time() if self.finished_at is None else self.finished_at
        over = PastAttempt(self.attempt, self.started_at, end, error, traceback)
        self.past = [*(self.past or ())[1 - PAST_LIMIT :], over]

    def fail(self, failure: Failed) -> None:
        """Note what an attempt failed with, without deciding what follows."""
        self.error = describe_error(failure.exception)
        self.exception = failure.exception
        self.traceback = failure.traceback

    def end(self, status: JobStatus) -> None:
        """Note that the job has ended, and wake who waits for it."""
        self.status = status
        self.finished_at = time.time()
        if status is _SUCCEEDED:
            # Arguments and context may hold a whole request; failed jobs keep theirs, so
            # that they can be tried again.
            self.args = ()
            self.kwargs = NO_KEYWORDS
            self.context = self.packed = None
            if self.error is not None:  # that of an attempt before
                self.error = self.exception = self.traceback = None
        self.wake()

    def wake(self) -> None:
        """Have those look who wait for it."""
        if self.waiters is not None:
            for waiter in self.waiters:
                with contextlib.suppress(RuntimeError):  # its loop is closed, and nobody waits
                    waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    def reopen(self) -> None:
        """Make a job that has ended a queued one again, with all its attempts ahead."""
        is_kept = bool(self.past and self.past[-1].is_it(self.attempt, self.started_at))
        if self.attempt and not is_kept:  # as it is where it was cancelled before the next one
            self.remember(self.error, self.traceback)
        self.status = _QUEUED
        self.attempt = self.turn = 0
        self.finished_at = self.run_after = self.verdict = self.fraction = None
        self.is_loose = True
        self.line = None
        self.message = ""


def kept_of(record: JobRecord) -> Kept:
    """Return what belongs to a record as one that is kept."""
    assert record.kept is not None  # noqa: S101 - only such records come here
    return record.kept


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
