"""A job: one queued call of a task, what is known of it, and how it ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextvars import ContextVar
from datetime import datetime, timezone
from enum import Enum
from typing import Any, TypeAlias

import msgspec

from asgi_bg.exceptions import JobNotFound


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
        error: In one line why it has no result, or its last attempt had none, as in
            ``ValueError: no such user``; None once it has succeeded.
        traceback: That error's traceback.
        durable: Whether the job survives a crash of the process.
        owner: The process that has it, as ``pid:12345``.
        logs: The last log records emitted inside it, oldest first.
        handed_over_at: When it was handed over to an engine, if it was; ``owner`` is then the
            engine, as ``engine:arq``, and until that tells how the job stands it counts as
            queued.
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
    handed_over_at: datetime | None = None


class PastAttempt(msgspec.Struct, frozen=True, array_like=True):
    """An attempt that is over, of a job that goes on or was queued anew.

    Attributes:
        number: Which one, from 1.
        started_at, finished_at: When, in seconds since the epoch.
        error: What it failed with, in one line.
        traceback: That error's traceback, shortened.
    """

    number: int
    started_at: float | None
    finished_at: float | None
    error: str | None
    traceback: str | None

    def is_it(self, number: int, started_at: float | None) -> bool:
        """Whether it is the attempt of that number, and not one before a retry by hand.

        Args:
            number: Which one it would be.
            started_at: When that began; None where it is not known (any more).
        """
        return number == self.number and started_at in (None, self.started_at)


# How an attempt ended: one of these five values, read in one place, `_scheduler`.


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


class Interrupted(msgspec.Struct, frozen=True):
    """This process goes on without it; it waits in the journal for another attempt."""

    reason: str


Outcome: TypeAlias = Succeeded | Failed | Retry | Cancelled | Interrupted


class Job(ABC):
    """A queued call of a task, as ``add_task`` returns it.

    It can be kept and asked; it need not be. Keeping it keeps its result.
    """

    __slots__ = ("__weakref__",)

    @property
    @abstractmethod
    def id(self) -> str:
        """The job's id: unguessable, sorting by time, the same over all attempts."""

    @property
    @abstractmethod
    def task_name(self) -> str:
        """The name of its task."""

    @abstractmethod
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

    @abstractmethod
    async def info(self) -> JobInfo:
        """Return what is known of the job now."""

    def __repr__(self) -> str:
        return f"<Job {self.id} of {self.task_name}>"


def job_extras(id: str, task: str | None = None) -> dict[str, object]:
    """Return the structured extras of a log record about a job that is no record here."""
    extras: dict[str, object] = {"asgi_bg_job_id": id}
    if task is not None:
        extras["asgi_bg_task"] = task
    return extras


def as_instant(seconds: float) -> datetime:
    """Return seconds since the epoch as an instant in UTC."""
    return datetime.fromtimestamp(seconds, timezone.utc)


class CurrentJob(ABC):
    """The job that is running, seen from inside; `current_job` returns it.

    Attributes:
        id: The job's id, the same over all attempts, so a task can be idempotent.
        task_name: The name of its task.
        attempt: Which attempt this is, from 1.
    """

    id: str
    task_name: str
    attempt: int

    @property
    @abstractmethod
    def cancelled(self) -> bool:
        """Whether this attempt was given up: its time was up, or somebody cancelled it.

        A thread cannot be stopped, so a long plain function looks here now and then, and
        returns.
        """

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
        self.report(min(float(fraction), 1.0) if fraction >= 0 else 0.0, str.__str__(message))

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
