"""How jobs of this process stand, as the marks that the journal is told."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

from asgi_bg._job import JobStatus, job_extras
from asgi_bg._record import JobRecord, kept_of
from asgi_bg.exceptions import NotSerializable
from asgi_bg.journal._text import text_of
from asgi_bg.journal.base import Change, JobRow, Mark, Success
from asgi_bg.journal.codec import codec_of

logger = logging.getLogger("asgi_bg")

_encode = msgspec.json.Encoder().encode


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
