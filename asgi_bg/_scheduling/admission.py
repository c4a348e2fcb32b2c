"""The way in: which jobs are taken, and what is made of a call that is to become one."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from asgi_bg import events
from asgi_bg._job import Job
from asgi_bg._origin import Origin, Request
from asgi_bg._record import NO_KEYWORDS, Home, JobRecord
from asgi_bg._scheduling.attempts import Attempts
from asgi_bg._scheduling.parts import Parts
from asgi_bg._task import Task, as_task, declared_task
from asgi_bg.engines.base import NativeTask
from asgi_bg.exceptions import EngineError, QueueFull

if TYPE_CHECKING:
    from asgi_bg._keeping.keeper import Keeper
    from asgi_bg.engines._link import Link

Admitted: TypeAlias = "tuple[Job, JobRecord | None]"
"""A new job and its record, or the job that has the task's key already and None."""


class Admission:
    """Makes jobs of calls, from any thread.

    Args:
        home: Who looks after the jobs.
        parts: What the runner is made of.
        attempts: Who carries them out.
    """

    def __init__(self, home: Home, parts: Parts, attempts: Attempts) -> None:
        self._home = home
        self._max_queued = parts.limits.max_queued
        self._registry = parts.registry
        self._events = parts.events
        self._keeper = parts.keeper
        self._link = parts.link
        self._attempts = attempts

    def admit(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Request | Origin | None,
    ) -> Admitted:
        """Take a new job.

        Raises:
            QueueFull: ``max_queued`` jobs wait (R8); not of jobs that are kept in a journal.
            NotSerializable: The call is to be kept or made elsewhere, and cannot be.
            EngineError: The engine lacks what the task asks for (E5).
        """
        if task.is_durable and self._keeper is not None:
            return self._admit_kept(self._keeper, task, args, kwargs, source)
        waiting = len(self._registry.unfinished) - self._attempts.slots.used
        if self._keeper is not None:
            waiting -= len(self._keeper.held)
        if waiting >= self._max_queued:
            raise QueueFull(
                f"{waiting} jobs wait already, which is the limit (max_queued="
                f"{self._max_queued}), so task {task.name} was not added; answer 503, "
                "or raise the limit if there is memory for more"
            )
        record = JobRecord(task, args, kwargs or NO_KEYWORDS, copy_context(), self._home, source)
        if task.is_special:
            self._prepare(record)
            if task.options.key is not None:
                holder = self._registry.hold_key(task.options.key, record)
                if holder is not record:
                    return holder, None
        return self._enter(record)

    def _admit_kept(
        self,
        keeper: Keeper,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Request | Origin | None,
    ) -> Admitted:
        if self._link is not None:
            _check_for(self._link, task, has_disk=keeper.has_disk)
        record = JobRecord(task, args, kwargs, copy_context(), self._home, source)
        holder = keeper.saver.keep(record, declared_task(task.name))
        if holder is not record:
            return holder, None
        try:
            if task.is_special:
                if self._link is None:
                    self._prepare(record)
                else:
                    record.run_after = _due(record)
        except BaseException:
            keeper.dropped(record)
            self._registry.free_key(record)
            raise
        return self._enter(record)

    def _prepare(self, record: JobRecord) -> None:
        """Do what few tasks ask for: another process, a wait."""
        if record.task.place == "process":
            self._attempts.pack(record)
        record.run_after = _due(record)

    def _enter(self, record: JobRecord) -> Admitted:
        self._registry.unfinished[record] = None
        if self._events.handlers:
            self._events.emit(events.QUEUED, record)
        return record, record


def task_or_native(link: Link) -> Callable[[Any], Task[..., Any]]:
    """Return what finds the task that something is, which may be one of the engine's own (E4)."""

    def find(func: Any) -> Task[..., Any]:
        if type(func) is not FunctionType and not isinstance(func, Task):
            native = link.engine.native(func)
            if native is not None:
                return NativeTask(native)
        return as_task(cast("Callable[..., Any]", func))

    return find


def _check_for(link: Link, task: Task[..., Any], *, has_disk: bool) -> None:
    if not isinstance(task, NativeTask):
        link.engine.check(task)
    if task.options.key is not None and not has_disk:
        raise EngineError(
            f"task {task.name} asks for key=, which needs a journal beside the engine "
            f"{link.engine.name}; give the runner one, with journal="
        )


def _due(record: JobRecord) -> float | None:
    """Return before when a new job may not start, in seconds since the epoch."""
    options = record.task.options
    if options.delay is not None:
        return record.queued_at + options.delay
    return None if options.run_at is None else options.run_at.timestamp()
