"""What happens to jobs, told to whoever subscribed (R9)."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timezone
from typing import Any, Final, TypeAlias

import msgspec

from asgi_bg._job import JobInfo
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


class Events:
    """The subscribers of a runner; look at `handlers` first, so that nobody pays for none.

    A handler is called in the thread where the event happens: the event loop's for most,
    a worker's for ``started`` and ``progressed`` of a plain function, an endpoint's for
    ``queued``. It must be quick and must not block.
    """

    __slots__ = ("handlers",)

    def __init__(self, handlers: EventHandler | Iterable[EventHandler] = ()) -> None:
        listed = (handlers,) if callable(handlers) else tuple(handlers)
        for handler in listed:
            if not callable(handler) or inspect.iscoroutinefunction(handler):
                raise TypeError(
                    f"on_event must hold plain functions of one event, got {handler!r}; an "
                    "async one can be started from a plain one with asyncio.create_task()"
                )
        self.handlers = listed

    def emit(self, name: str, record: JobRecord) -> None:
        """Tell every subscriber; one that raises is logged, the others still hear (R9)."""
        if self.handlers:
            self.tell(name, record.snapshot())

    def tell(self, name: str, job: JobInfo) -> None:
        """Tell every subscriber of a job that need not be in this process."""
        event = JobEvent(name, datetime.now(timezone.utc), job)
        for handler in self.handlers:
            try:
                handler(event)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception(
                    "a subscriber of job events failed: %r on %s of job %s of task %s",
                    handler,
                    name,
                    job.id,
                    job.task,
                    extra={"asgi_bg_job_id": job.id, "asgi_bg_task": job.task},
                )
