"""A job: one queued call of a task, what is known of it, and how it ended."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextvars import Context, ContextVar
from datetime import datetime, timezone
from enum import Enum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from asgi_bg._ids import new_id
from asgi_bg.exceptions import JobFailed, JobNotFound

if TYPE_CHECKING:
    from asgi_bg._task import Task

LOGS_LIMIT = 100
"""How many of a job's last log records are kept with it."""


class JobStatus(str, Enum):
    """Where a job stands. A string, so it compares and encodes as its word."""

    queued = "queued"
    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    cancelled = "cancelled"

    def __str__(self) -> str:
        return self.value

    @property
    def is_final(self) -> bool:
        """Whether a job of this status has ended."""
        return self is not JobStatus.queued and self is not JobStatus.running


class LogLine(msgspec.Struct, frozen=True):
    """One log record that was emitted inside a job.

    Attributes:
        at: When, in UTC.
        level: The level's name, such as ``"WARNING"``.
        logger: The logger's name.
        message: The formatted message, shortened to 2,000 characters.
    """

    at: datetime
    level: str
    logger: str
    message: str


class JobInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a job at one moment. All instants are UTC.

    Attributes:
        id: The job's id, the same over all its attempts.
        task: The task's name.
        status: Where it stands.
        attempt: How often it has been started.
        max_attempts: How often it may be started, in all.
        queued_at: When it was added.
        run_after: The instant before which it does not start (again), if there is one.
        started_at: When its last attempt started.
        finished_at: When it ended.
        progress: The fraction done that the task last told, from 0 to 1, or None.
        message: The words the task last told with it.
        result: What the task returned.
        error: Its last error in one line, as in ``ValueError: no such user``.
        traceback: The last error's traceback.
        durable: Whether the job survives a crash of the process.
        owner: The process that has it, as ``pid:12345``.
        logs: The last log records emitted inside it, oldest first.
    """

    id: str
    task: str
    status: JobStatus
    attempt: int
    max_attempts: int
    queued_at: datetime
    run_after: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    progress: float | None
    message: str
    result: Any
    error: str | None
    traceback: str | None
    durable: bool
    owner: str | None
    logs: tuple[LogLine, ...]


# How an attempt ended: one of these four values, read in one place, `_scheduler`.


class Succeeded(msgspec.Struct, frozen=True):
    """The task returned this value."""

    value: Any


class Failed(msgspec.Struct, frozen=True):
    """The task raised this, or its time was up."""

    exception: BaseException
    traceback: str


class Retry(msgspec.Struct, frozen=True):
    """It failed, and is to be tried again after this many seconds."""

    delay: float
    failure: Failed


class Cancelled(msgspec.Struct, frozen=True):
    """Somebody cancelled it."""

    reason: str


Outcome: TypeAlias = Succeeded | Failed | Retry | Cancelled


def describe_error(exception: BaseException) -> str:
    """Return an exception as one line, the way a traceback ends."""
    text = str(exception).strip()
    name = type(exception).__qualname__
    return f"{name}: {text.splitlines()[0]}" if text else name


class Home(Protocol):
    """Who admitted a job, and looks after it."""

    def cancel(self, record: JobRecord, reason: str) -> None:
        """Cancel it in whatever state it is; one that has ended stays as it is."""
        ...


class JobRecord:
    """One job as this process holds it; written by the scheduler alone.

    Instants are seconds since the epoch and become `datetime` only when somebody looks.
    """

    __slots__ = (
        "args",
        "attempt",
        "cancel",
        "context",
        "error",
        "exception",
        "finished_at",
        "home",
        "id",
        "kwargs",
        "logs",
        "message",
        "owner",
        "packed",
        "progress",
        "queued_at",
        "run_after",
        "started_at",
        "status",
        "task",
        "traceback",
        "value",
        "waiters",
    )

    def __init__(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: Context,
        packed: bytes | None,
        home: Home,
    ) -> None:
        self.id = new_id()
        self.home = home
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.context = context
        # The call as bytes, where it is to be made in another process.
        self.packed = packed
        self.status = JobStatus.queued
        self.attempt = 0
        self.queued_at = time.time()
        self.run_after: float | None = None
        self.started_at: float | None = None
        self.finished_at: float | None = None
        self.progress: float | None = None
        self.message = ""
        self.value: Any = None
        self.error: str | None = None
        self.exception: BaseException | None = None
        self.traceback: str | None = None
        self.owner: str | None = None
        self.logs: deque[LogLine] | None = None
        self.waiters: list[asyncio.Future[None]] | None = None
        # What ends the job early in its present state; None while nothing could.
        self.cancel: Callable[[str], None] | None = None

    def __repr__(self) -> str:
        return f"<job {self.id} of {self.task.name}, {self.status}>"

    @property
    def max_attempts(self) -> int:
        return self.task.options.retries + 1

    def start(self) -> None:
        """Note that an attempt begins now."""
        self.status = JobStatus.running
        self.started_at = time.time()
        self.run_after = None

    def end(self, status: JobStatus) -> None:
        """Note that the job has ended, and let go of what only running it needed."""
        self.status = status
        self.finished_at = time.time()
        self.run_after = None
        self.cancel = None
        if status is JobStatus.succeeded:
            # Failed ones keep theirs, so that they can be tried again.
            self.release()
        if self.waiters is not None:
            waiters, self.waiters = self.waiters, None
            for waiter in waiters:
                waiter.get_loop().call_soon_threadsafe(_wake, waiter)

    def reopen(self) -> None:
        """Make a job that has ended a queued one again, with all its attempts ahead."""
        self.status = JobStatus.queued
        self.attempt = 0
        self.finished_at = None
        self.progress = None
        self.message = ""

    def release(self) -> None:
        """Let go of arguments and context, which may hold a whole request."""
        self.args = ()
        self.kwargs = {}
        self.context = Context()
        self.packed = None

    def fail(self, failure: Failed) -> None:
        """Note what an attempt failed with, without deciding what follows."""
        self.error = describe_error(failure.exception)
        self.exception = failure.exception
        self.traceback = failure.traceback

    async def wait(self, timeout: float | None) -> Any:
        """Return the job's value once it has ended, or raise as `Job.result` says."""
        if not self.status.is_final:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            if self.waiters is None:
                self.waiters = []
            self.waiters.append(waiter)
            # The job may have ended, in another thread's loop, between look and append.
            if not self.status.is_final:
                try:
                    await asyncio.wait_for(waiter, timeout)
                except asyncio.TimeoutError:
                    raise TimeoutError(
                        f"job {self.id} of task {self.task.name} is still {self.status} "
                        f"after {timeout} seconds"
                    ) from None
                finally:
                    if self.waiters is not None and waiter in self.waiters:
                        self.waiters.remove(waiter)
        if self.status is JobStatus.succeeded:
            return self.value
        failed = JobFailed(self.id, self.task.name, self.error or str(self.status))
        raise failed from self.exception

    def info(self) -> JobInfo:
        """Return what is known of the job now."""
        return JobInfo(
            id=self.id,
            task=self.task.name,
            status=self.status,
            attempt=self.attempt,
            max_attempts=self.max_attempts,
            queued_at=_instant(self.queued_at),
            run_after=None if self.run_after is None else _instant(self.run_after),
            started_at=None if self.started_at is None else _instant(self.started_at),
            finished_at=None if self.finished_at is None else _instant(self.finished_at),
            progress=self.progress,
            message=self.message,
            result=self.value,
            error=self.error,
            traceback=self.traceback,
            durable=False,
            owner=self.owner,
            logs=tuple(self.logs or ()),
        )


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


class Job:
    """A queued call of a task, as ``add_task`` returns it.

    It can be kept, compared and asked; it need not be. Keeping it keeps its result.
    """

    __slots__ = ("_record",)

    def __init__(self, record: JobRecord) -> None:
        self._record = record

    @property
    def id(self) -> str:
        """The job's id: unguessable, sorting by time, the same over all attempts."""
        return self._record.id

    @property
    def task_name(self) -> str:
        """The name of its task."""
        return self._record.task.name

    async def result(self, timeout: float | None = None) -> Any:
        """Wait until the job has ended, and return what its task returned.

        A job of a request starts only after the response (M4): do not wait for it in the
        endpoint that added it.

        Args:
            timeout: How long to wait, in seconds; None for as long as it takes.

        Raises:
            JobFailed: The job failed, was cancelled or was dropped.
            TimeoutError: It has not ended by then. It goes on.
        """
        return await self._record.wait(timeout)

    async def info(self) -> JobInfo:
        """Return what is known of the job now."""
        return self._record.info()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self._record.id)

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.task_name}, {self._record.status}>"


class CurrentJob(ABC):
    """The job that is running, seen from inside; `current_job` returns it.

    Attributes:
        id: The job's id, the same over all attempts, so a task can be idempotent.
        task_name: The name of its task.
        attempt: Which attempt this is, from 1.
        cancelled: Whether this attempt was given up: its time was up, or somebody
            cancelled it. A thread cannot be stopped, so a long plain function looks here
            now and then, and returns.
    """

    __slots__ = ("attempt", "cancelled", "id", "task_name")

    def __init__(self, id: str, task_name: str, attempt: int) -> None:
        self.id = id
        self.task_name = task_name
        self.attempt = attempt
        self.cancelled = False

    def progress(self, fraction: float, message: str = "") -> None:
        """Tell how far the job has come. May be called from any thread.

        Args:
            fraction: The fraction done; what lies outside of 0 to 1 is taken as the
                nearer of the two.
            message: What it is doing, in words.

        Raises:
            TypeError: The fraction is no number, or the message no string.
        """
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)):
            raise TypeError(f"fraction must be a number from 0 to 1, got {fraction!r}")
        if not isinstance(message, str):
            raise TypeError(f"message must be a string, got {message!r}")
        # The comparison is this way round so that NaN becomes 0 too.
        self.report(min(float(fraction), 1.0) if fraction >= 0 else 0.0, message)

    @abstractmethod
    def report(self, fraction: float, message: str) -> None:
        """Carry a progress report to whoever keeps the job; each executor has its way."""

    @abstractmethod
    def keep(self, line: LogLine) -> None:
        """Keep a log record with the job; each executor has its way."""

    def __repr__(self) -> str:
        return f"<current job {self.id} of {self.task_name}, attempt {self.attempt}>"


running: ContextVar[CurrentJob] = ContextVar("asgi_bg_running_job")


def current_job() -> CurrentJob:
    """Return the job that this code runs in.

    Raises:
        JobNotFound: The code does not run in a job; a task that was called directly,
            as the plain function it is, has none.
    """
    try:
        return running.get()
    except LookupError:
        raise JobNotFound(
            "no job is running here: current_job() works inside a task that a runner runs, "
            "not where the task was called directly"
        ) from None
