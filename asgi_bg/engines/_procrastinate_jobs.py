"""Jobs as Procrastinate keeps them: what is made of a message, and what can be told of a row."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

from procrastinate.jobs import DEFAULT_QUEUE, Job

from asgi_bg._job import JobStatus
from asgi_bg.engines._procrastinate_native import native_job
from asgi_bg.engines._procrastinate_notes import Outcome, notes_in
from asgi_bg.engines.base import Envelope, Message, Report, is_envelope

__all__ = ["envelope_of", "job_of", "lock_of", "report_of"]

_STATUS = {
    "todo": JobStatus.queued,
    "doing": JobStatus.running,
    "succeeded": JobStatus.succeeded,
    "failed": JobStatus.failed,
    "cancelled": JobStatus.cancelled,
    "aborting": JobStatus.running,
    "aborted": JobStatus.cancelled,
}

_NO_WORDS = {
    "failed": "it failed in a worker, and the worker's log says why",
    "cancelled": "cancelled",
    "aborted": "aborted in a worker",
}


def envelope_of(arguments: Mapping[str, Any]) -> Envelope | None:
    """Return the envelope among the arguments of a job, if it is one of ours."""
    found = arguments.get("envelope")
    return found if is_envelope(found) else None


def job_of(message: Message) -> Job:
    """Return the job that Procrastinate makes of a message."""
    if message.native is not None:
        return native_job(message, message.native)
    due = message.run_after
    return Job(
        queue=message.options.queue or DEFAULT_QUEUE,
        priority=message.priority,
        lock=lock_of(message.task, message.options.concurrency),
        queueing_lock=message.id,
        task_name=message.task,
        task_kwargs={"envelope": message.envelope},
        scheduled_at=None if due is None else datetime.fromtimestamp(due, timezone.utc),
    )


def lock_of(task: str, concurrency: int | None) -> str | None:
    """Return what keeps jobs of a task from running at once, if that is asked for."""
    return task if concurrency == 1 else None


def report_of(row: Mapping[str, Any]) -> Report:
    """Return what the tables tell of a job."""
    word: str = row["status"]
    status = _STATUS[word]
    notes = notes_in(row["notes"] or {})
    outcome = notes.told if word in ("succeeded", "failed") else Outcome()
    # One that was run again after a failure still has what it failed with.
    has_value = status is JobStatus.succeeded
    return Report(
        status=status,
        task=row["task_name"],
        attempt=row["attempts"] + (status is JobStatus.running) - notes.interruptions,
        started_at=_seconds(row["started_at"]),
        finished_at=_seconds(row["finished_at"]) if status.is_final else None,
        result=outcome.result if has_value else None,
        error=None if has_value else outcome.error or _NO_WORDS.get(word),
        traceback=None if has_value else outcome.traceback,
    )


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()
