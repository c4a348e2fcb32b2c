"""Rows of the journal, and what they are in this process: what is known of a job, and its task."""

from __future__ import annotations

from typing import Any

import msgspec

from asgi_bg._job import JobInfo, JobStatus, LogLine, as_instant
from asgi_bg._options import Options, apply, difference
from asgi_bg._task import Task, declared_task
from asgi_bg.engines.base import Native, NativeTask
from asgi_bg.journal.base import JobRow
from asgi_bg.journal.codec import codec_of

_encode = msgspec.json.Encoder().encode
_NATIVE = "native"


def info_of(row: JobRow) -> JobInfo:
    """Return what is known of a job of the journal."""
    task = declared_task(row.task)
    options = None if task is None else _options_of(task, row)
    retries = 0 if options is None else options.retries
    is_final = JobStatus(row.status).is_final
    return JobInfo(
        id=row.id,
        task=row.task,
        status=JobStatus(row.status),
        attempt=row.attempt,
        max_attempts=retries + 1 + row.interrupted,
        queued_at=as_instant(row.queued_at),
        run_after=None if row.run_after is None else as_instant(row.run_after),
        started_at=None if row.started_at is None else as_instant(row.started_at),
        finished_at=as_instant(row.finished_at) if row.finished_at and is_final else None,
        progress=row.progress,
        message=row.message if row.engine is None else "handed over",
        result=_result_in(row, task) if is_final else None,
        error=row.error,
        traceback=row.traceback,
        durable=True,
        owner=row.owner if row.engine is None else f"engine:{row.engine}",
        logs=_logs_in(row),
        handed_over_at=(
            as_instant(row.finished_at) if row.engine is not None and row.finished_at else None
        ),
    )


def task_of(row: JobRow) -> Task[..., Any]:
    """Return the task of a job, with the options it was added with.

    Raises:
        LookupError: No task of that name is declared in this process (J8).
        TypeError, ValueError: Its options do not fit (any more).
    """
    return task_by(row.task, row.options, row.priority)


def task_by(name: str, changed: str | None, priority: int) -> Task[..., Any]:
    """Return a task by its name, with what is kept of a job's options; raises as `task_of`."""
    changes: dict[str, object] = {} if changed is None else msgspec.json.decode(changed)
    if _NATIVE in changes:
        return NativeTask(Native(name, msgspec.convert(changes[_NATIVE], dict[str, Any])))
    task = declared_task(name)
    if task is None:
        raise LookupError(
            f"no task {name!r} is declared here: it was renamed or removed, or its module "
            "has not been imported; retry the job when it is back"
        )
    if not changes and priority == task.options.priority:
        return task
    options = apply(task.options, changes, priority)
    return Task(task.func, name=task.name, options=options, declared=True)


def changes_of(task: Task[..., Any], declared: Task[..., Any] | None) -> str | None:
    """Return as JSON what is kept of a job's options: how they differ from the declared ones."""
    if isinstance(task, NativeTask):
        return _encode({_NATIVE: task.native.options}).decode()
    redact = task.options.redact
    if declared is not None and declared.options is task.options and not redact:
        return None
    changes = difference(task.options, declared.options if declared else task.options)
    if redact:
        changes["redact"] = redact  # also for who shows the job and does not know the task
    return _encode(changes).decode() if changes else None


def options_in(row: JobRow) -> Options:
    """Return the options of a job, as far as they are known here."""
    task = declared_task(row.task)
    if task is not None:
        return _options_of(task, row)
    try:
        return apply(Options(), msgspec.json.decode(row.options or "{}"), row.priority)
    except Exception:  # of an engine's own task, of a later version, or edited by hand
        return Options()


def _options_of(task: Task[..., Any], row: JobRow) -> Options:
    try:
        return task_of(row).options
    except Exception:  # edited by hand
        return task.options


def _result_in(row: JobRow, task: Task[..., Any] | None) -> Any:
    if row.result is None:
        return None
    try:
        if task is not None:
            return codec_of(task).decode_result(row.result)
        return msgspec.json.decode(row.result)
    except ValueError:
        return row.result  # edited by hand


def _logs_in(row: JobRow) -> tuple[LogLine, ...]:
    if row.logs is None:
        return ()
    try:
        return msgspec.json.decode(row.logs, type=tuple[LogLine, ...])
    except ValueError:
        return ()
