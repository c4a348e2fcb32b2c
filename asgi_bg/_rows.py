"""Rows of the journal and what they are in this process, there and back."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

from asgi_bg._job import JobInfo, JobStatus, LogLine, as_instant, job_extras
from asgi_bg._options import Options, apply, difference
from asgi_bg._origin import Origin
from asgi_bg._origin import read as read_origin
from asgi_bg._record import JobRecord, Kept
from asgi_bg._task import Task, declared_task
from asgi_bg.engines.base import Message, Native, NativeTask, Report
from asgi_bg.exceptions import NotSerializable
from asgi_bg.journal._text import text_of
from asgi_bg.journal.base import Change, JobRow, Mark, NewJob, Success
from asgi_bg.journal.codec import codec_of

logger = logging.getLogger("asgi_bg")

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


def elsewhere(id: str, task: str, queued_at: float, engine: str) -> JobInfo:
    """Return what is known of a job that only its engine knows."""
    return JobInfo(
        id=id,
        task=task,
        status=JobStatus.queued,
        attempt=0,
        max_attempts=1,
        queued_at=as_instant(queued_at),
        run_after=None,
        started_at=None,
        finished_at=None,
        progress=None,
        message="handed over",
        result=None,
        error=None,
        traceback=None,
        durable=True,
        owner=f"engine:{engine}",
        logs=(),
        handed_over_at=as_instant(queued_at),
    )


def handed_over(info: JobInfo, engine: str) -> JobInfo:
    """Return what is known of a job right after it was handed over."""
    return msgspec.structs.replace(
        info,
        message="handed over",
        owner=f"engine:{engine}",
        handed_over_at=as_instant(time.time()),
    )


def followed(info: JobInfo, report: Report) -> JobInfo:
    """Return what is known of a job that was handed over, by what its engine tells (E5)."""
    started, finished = report.started_at, report.finished_at
    return msgspec.structs.replace(
        info,
        status=report.status,
        attempt=report.attempt,
        started_at=None if started is None else as_instant(started),
        finished_at=None if finished is None else as_instant(finished),
        progress=report.progress,
        message=report.message or info.message,
        result=_result_of(report, declared_task(info.task)),
        error=report.error,
        traceback=report.traceback,
    )


def _result_of(report: Report, task: Task[..., Any] | None) -> Any:
    if task is None or report.result is None:
        return report.result
    try:
        return codec_of(task).decode_result(_encode(report.result).decode())
    except (TypeError, ValueError):
        return report.result


def task_of(row: JobRow) -> Task[..., Any]:
    """Return the task of a job, with the options it was added with.

    Raises:
        LookupError: No task of that name is declared in this process (J8).
        TypeError, ValueError: Its options do not fit (any more).
    """
    return _task_by(row.task, row.options, row.priority)


def _task_by(name: str, changed: str | None, priority: int) -> Task[..., Any]:
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
        _task_by(job.task, job.options, job.priority),
        id=job.id,
        call=job.call,
        changes=job.options,
        queued_at=job.queued_at,
        run_after=job.run_after,
        priority=job.priority,
        trace=_trace_in(read_origin(job.origin)),
    )


def _trace_in(origin: Origin | None) -> str | None:
    return None if origin is None else origin.trace


def _message(task: Task[..., Any], *, changes: str | None, **fields: Any) -> Message:
    native = task.native.options if isinstance(task, NativeTask) else None
    return Message(
        task=task.name,
        changes=changes if native is None else None,
        native=native,
        options=task.options,
        **fields,
    )


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
        found: Options = _options_of(task, row)
        return found
    try:
        return apply(Options(), msgspec.json.decode(row.options or "{}"), row.priority)
    except Exception:  # of an engine's own task, of a later version, or edited by hand
        return Options()


def _options_of(task: Task[..., Any], row: JobRow) -> Any:
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


def release_of(row: JobRow, status: str, reason: str | None) -> Change:
    """Return the mark that lets go of a claimed job.

    Args:
        row: The job.
        status: How it stands from now on.
        reason: Why it has ended, if it has.
    """
    return Change(
        row.id,
        status,
        row.attempt,
        row.interrupted,
        None,
        row.started_at,
        None if reason is None else time.time(),
        row.progress,
        row.message,
        None,
        row.error if reason is None else reason,
        row.traceback if reason is None else None,
        row.logs,
        False,
        row.past,
    )


def kept_of(record: JobRecord) -> Kept:
    """Return what belongs to a record as one that is kept."""
    assert record.kept is not None  # noqa: S101 - only such records come here
    return record.kept


def success_of(record: JobRecord, value: Any, at: float, limit: int) -> Mark:
    """Return the mark of a job that has succeeded.

    Args:
        record: The job.
        value: What its task returned.
        at: When, in seconds since the epoch.
        limit: How many bytes of JSON the value may take; of one that takes more, or cannot be
            written down, the log tells, and it is not kept.
    """
    text = _text_of(record, value, limit)
    if not (record.logs or record.past or record.message) and record.fraction is None:
        return Success(record.id, record.attempt, record.started_at, at, text)
    return msgspec.structs.replace(
        standing_of(record, is_held=False),
        status=JobStatus.succeeded.value,
        run_after=None,
        finished_at=at,
        result=text,
        error=None,
        traceback=None,
    )


def standing_of(record: JobRecord, *, is_held: bool) -> Change:
    """Return the mark that says how a job stands that has no result."""
    return Change(
        record.id,
        str(record.status),
        record.attempt,
        kept_of(record).interrupted,
        record.run_after,
        record.started_at,
        record.finished_at,
        record.fraction,
        record.message,
        None,
        record.error,
        record.traceback,
        _logs_of(record),
        is_held,
        _past_of(record),
    )


def _text_of(record: JobRecord, value: Any, limit: int) -> str | None:
    if value is None:
        return None
    try:
        text = codec_of(record.task).encode_result(value)
        if len(text) <= limit:
            return text
        reason = f"it takes {len(text)} bytes, over max_payload={limit}"
    except NotSerializable as exc:
        reason = str(exc)
    logger.warning(
        "the result of task %s is not kept: %s (job %s)",
        record.task_name,
        reason,
        record.id,
        extra=job_extras(record.id, record.task_name),
    )
    return None


def _past_of(record: JobRecord) -> str | None:
    return text_of(record.past) if record.past else None


def _logs_of(record: JobRecord) -> str | None:
    if not record.logs:
        return None
    lines = tuple(record.logs)
    try:
        return _encode(lines).decode()
    except UnicodeEncodeError:  # half a surrogate pair, as file names have
        fixed = [
            msgspec.structs.replace(
                line, message=line.message.encode("utf-8", "backslashreplace").decode()
            )
            for line in lines
        ]
        return _encode(fixed).decode()
