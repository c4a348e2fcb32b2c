"""Jobs, as the messages that are sent to an engine."""

from __future__ import annotations

from typing import Any

from asgi_bg._origin import Origin
from asgi_bg._origin import read as read_origin
from asgi_bg._record import JobRecord, kept_of
from asgi_bg._rows import task_by
from asgi_bg._task import Task
from asgi_bg.engines.base import Message, NativeTask
from asgi_bg.journal.base import NewJob


def message_of(record: JobRecord) -> Message:
    """Return a job as it is sent to an engine."""
    return _message(
        record.task,
        id=record.id,
        call=kept_of(record).call,
        changes=kept_of(record).options,
        queued_at=record.queued_at,
        run_after=record.run_after,
        priority=record.task.options.priority,
        trace=_trace_in(record.origin()),
    )


def message_of_job(job: NewJob) -> Message:
    """Return a new job as it is sent to an engine.

    Raises:
        LookupError: No task of its name is declared any more.
    """
    return _message(
        task_by(job.task, job.options, job.priority),
        id=job.id,
        call=job.call,
        changes=job.options,
        queued_at=job.queued_at,
        run_after=job.run_after,
        priority=job.priority,
        trace=_trace_in(read_origin(job.origin)),
    )


def _message(task: Task[..., Any], *, changes: str | None, **fields: Any) -> Message:
    native = task.native.options if isinstance(task, NativeTask) else None
    return Message(
        task=task.name,
        changes=changes if native is None else None,
        native=native,
        options=task.options,
        **fields,
    )


def _trace_in(origin: Origin | None) -> str | None:
    return None if origin is None else origin.trace
