"""Where recorded jobs lie until a test has them run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import copy_context
from typing import Any, Protocol

from asgi_bg._job import Job, JobInfo, JobStatus
from asgi_bg._origin import Origin, Request
from asgi_bg._record import NO_KEYWORDS, JobRecord
from asgi_bg._runner import Runner
from asgi_bg._scheduling.parts import Parts
from asgi_bg._scheduling.scheduler import Scheduler
from asgi_bg._task import Task, as_task
from asgi_bg.events import CANCELLED
from asgi_bg.exceptions import JobNotFound


def parts_of(scheduler: Scheduler) -> Parts:
    """Return what a scheduler is made of, but for a journal and an engine."""
    return scheduler.parts._replace(keeper=None, link=None)


def new_parts() -> Parts:
    """Return the parts of a new runner."""
    return Runner()._parts  # noqa: SLF001 - as a runner of defaults has them


class Note(Protocol):
    """Records a job that was added; that of a store."""

    def __call__(
        self,
        record: JobRecord,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        shelf: Shelf,
        scheduler: Scheduler | None,
    ) -> None:
        """Record it; ``scheduler`` has admitted it, if a server has."""
        ...


class Shelf:
    """The home of jobs that lie here, of one runner; and who takes jobs without a server.

    A scheduler ends its jobs when its event loop is closed, as test clients do after every
    request. These outlive it.

    Args:
        parts: What its runner is made of.
        note: Records the jobs that are added here.
    """

    hears_begins = False
    owner = "test"

    def __init__(self, parts: Parts, note: Note) -> None:
        self.parts = parts
        self._note = note
        self.task_of: Callable[[Any], Task[..., Any]] = as_task

    # As a queue, for `TaskRecorder.request`.

    def admit(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Request | Origin | None,
    ) -> tuple[Job, JobRecord | None]:
        """Take a new job; see `asgi_bg._collector.JobQueue`."""
        record = JobRecord(task, args, kwargs or NO_KEYWORDS, copy_context(), self, source)
        if task.options.key is not None:
            holder = self.parts.registry.hold_key(task.options.key, record)
            if holder is not record:
                return holder, None
        self.parts.registry.unfinished[record] = None
        self._note(record, task, args, kwargs, self, None)
        return record, record

    def withdraw(self, record: JobRecord, reason: str) -> None:
        """End a job that is not to run."""
        self.parts.registry.free_key(record)
        self.end(record, reason)

    # As a home.

    def cancel(self, record: JobRecord, reason: str) -> None:
        """Cancel a job that lies here, and tell of it."""
        if self.end(record, reason) and self.parts.events.handlers:
            self.parts.events.emit(CANCELLED, record)

    def end(self, record: JobRecord, reason: str) -> bool:
        """End a job that lies here; False if it has ended already."""
        if record.finished_at is not None:
            return False
        record.error = reason
        record.end(JobStatus.cancelled)
        self.parts.registry.finish(record)
        return True

    def named(self, record: JobRecord) -> None:
        """Make a job known by its id."""
        self.parts.registry.name(record)

    def began(self, record: JobRecord, run: int) -> None:
        """Do nothing: what lies here does not run, as in the others."""

    def progressed(self, record: JobRecord) -> None:
        """Do nothing."""

    def begins(self, record: JobRecord) -> None:
        """Do nothing."""

    def returned(self, record: JobRecord, value: Any) -> None:
        """Do nothing."""

    async def result_of(self, id: str, timeout: float | None) -> Any:
        """Refuse: jobs of a journal do not lie here."""
        raise JobNotFound(f"no job {id!r} is kept in a journal while a test records")

    async def info_of(self, id: str) -> JobInfo:
        """Refuse: jobs of a journal do not lie here."""
        raise JobNotFound(f"no job {id!r} is kept in a journal while a test records")
