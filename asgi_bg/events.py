"""What happens to jobs, told to whoever subscribed (R9)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

import msgspec

from asgi_bg._job import JobInfo, job_extras
from asgi_bg._record import JobRecord

__all__ = [
    "CANCELLED",
    "DROPPED",
    "FAILED",
    "HANDED_OVER",
    "NAMES",
    "PROGRESSED",
    "QUEUED",
    "RECOVERED",
    "RETRYING",
    "STARTED",
    "SUCCEEDED",
    "EventHandler",
    "Events",
    "Hearer",
    "JobEvent",
]

logger = logging.getLogger("asgi_bg")

QUEUED: Final = "queued"
STARTED: Final = "started"
PROGRESSED: Final = "progressed"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"
RETRYING: Final = "retrying"
CANCELLED: Final = "cancelled"
DROPPED: Final = "dropped"
RECOVERED: Final = "recovered"
HANDED_OVER: Final = "handed_over"

NAMES: Final = (
    QUEUED,
    STARTED,
    PROGRESSED,
    SUCCEEDED,
    FAILED,
    RETRYING,
    CANCELLED,
    DROPPED,
    RECOVERED,
    HANDED_OVER,
)


class JobEvent(msgspec.Struct, frozen=True):
    """Something that happened to a job.

    Attributes:
        name: What happened, one of `NAMES`.
        at: When, in UTC.
        job: The job as it stood right after.
    """

    name: str
    at: datetime
    job: JobInfo

    @property
    def id(self) -> str:
        """The job's id."""
        return self.job.id

    @property
    def task(self) -> str:
        """The name of the job's task."""
        return self.job.task


EventHandler: TypeAlias = Callable[[JobEvent], Any]


@runtime_checkable
class Hearer(Protocol):
    """A subscriber that takes the job as the runner has it, which saves a snapshot of it."""

    def hear(self, name: str, record: JobRecord) -> None:
        """Note that something happened to a job; in place of a call with a `JobEvent`.

        The record is only to be read, and not to be kept.
        """
        ...

    def __call__(self, event: JobEvent) -> Any:
        """Note that something happened to a job that is not in this process."""
        ...


class Events:
    """The subscribers of a runner; look at `handlers` first, so that nobody pays for none.

    A handler is called in the thread where the event happens: the event loop's for most,
    a worker's for ``started`` and ``progressed`` of a plain function, an endpoint's for
    ``queued``. It must be quick and must not block.
    """

    __slots__ = ("_hearers", "_others", "handlers")

    def __init__(self, handlers: EventHandler | Iterable[EventHandler] = ()) -> None:
        listed = (handlers,) if callable(handlers) else tuple(handlers)
        for handler in listed:
            if not callable(handler) or inspect.iscoroutinefunction(handler):
                raise TypeError(
                    f"on_event must hold plain functions of one event, got {handler!r}; an "
                    "async one can be started from a plain one with asyncio.create_task()"
                )
        self.handlers = listed
        self._hearers = tuple(each for each in listed if isinstance(each, Hearer))
        self._others = tuple(each for each in listed if not isinstance(each, Hearer))

    def emit(
        self, name: str, record: JobRecord, change: Callable[[JobInfo], JobInfo] | None = None
    ) -> None:
        """Tell every subscriber; one that raises is logged, the others still hear (R9).

        Args:
            name: What happened.
            record: The job.
            change: What to make of its snapshot, where the record does not show it.
        """
        for hearer in self._hearers:
            try:
                hearer.hear(name, record)
            except KeyboardInterrupt:
                raise
            except BaseException:
                _log_failure(hearer, name, record.id, record.task_name)
        if self._others:
            job = record.snapshot()
            self._tell(self._others, name, job if change is None else change(job))

    def tell(self, name: str, job: JobInfo) -> None:
        """Tell every subscriber of a job that need not be in this process."""
        self._tell(self.handlers, name, job)

    def _tell(self, handlers: tuple[EventHandler, ...], name: str, job: JobInfo) -> None:
        event = JobEvent(name, datetime.now(timezone.utc), job)
        for handler in handlers:
            try:
                handler(event)
            except KeyboardInterrupt:
                raise
            except BaseException:
                _log_failure(handler, name, job.id, job.task)


def _log_failure(handler: EventHandler, name: str, id: str, task: str) -> None:
    logger.exception(
        "a subscriber of job events failed: %r on %s of job %s of task %s",
        handler,
        name,
        id,
        task,
        extra=job_extras(id, task),
    )
