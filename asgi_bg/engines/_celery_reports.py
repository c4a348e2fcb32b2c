"""What is written in Celery's result backend, as reports."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, cast

import msgspec

from asgi_bg._failures import describe_error
from asgi_bg._job import JobStatus
from asgi_bg.engines.base import Report

PROGRESS = "PROGRESS"
"""The state of a running job that has told how far it is; a word that many use with Celery."""

_STATUSES = {
    "RECEIVED": JobStatus.queued,
    "RETRY": JobStatus.queued,
    "STARTED": JobStatus.running,
    PROGRESS: JobStatus.running,
    "SUCCESS": JobStatus.succeeded,
    "FAILURE": JobStatus.failed,
    "REJECTED": JobStatus.failed,
    "REVOKED": JobStatus.cancelled,
    "IGNORED": JobStatus.succeeded,
}


def report_of(meta: dict[str, Any]) -> Report | None:
    """Return what is written in a result backend as a report; None if nothing is."""
    state: str = meta["status"]
    if state == "PENDING":
        return None
    status = _STATUSES.get(state, JobStatus.running)  # tasks may make up states of their own
    value = meta.get("result")
    report = Report(
        status=status,
        task=meta.get("name"),
        attempt=_attempt_of(meta, status),
        finished_at=_instant(meta.get("date_done")) if status.is_final else None,
        result=value if status is JobStatus.succeeded else None,
        error=_error_of(value) if state in ("FAILURE", "RETRY", "REJECTED") else None,
        traceback=meta.get("traceback"),
    )
    return _with_progress(report, value) if status is JobStatus.running else report


def _attempt_of(meta: dict[str, Any], status: JobStatus) -> int:
    """Return the number of the attempt; Celery writes it down with ``result_extended`` only."""
    retries = meta.get("retries")
    if retries is not None:
        return int(retries) + 1
    return 0 if status in (JobStatus.queued, JobStatus.cancelled) else 1


def _instant(value: Any) -> float | None:
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    if not isinstance(value, datetime):
        return None
    if value.tzinfo is None:
        value = value.replace(tzinfo=timezone.utc)
    return float(value.timestamp())


def _error_of(value: Any) -> str:
    """Return an error in one line, from how Celery's JSON stores it or from what pickle brings."""
    if isinstance(value, BaseException):
        return describe_error(value)
    if not isinstance(value, dict):
        return str(value)
    stored = cast("dict[str, Any]", value)
    message = stored.get("exc_message")
    parts = cast("Sequence[Any]", message) if isinstance(message, (list, tuple)) else (message,)
    text = ", ".join(str(part) for part in parts if part is not None)
    name = str(stored.get("exc_type"))
    return f"{name}: {text.splitlines()[0]}" if text else name


def _with_progress(report: Report, value: Any) -> Report:
    """Return the report with what the running task has told, in our tasks' form of it."""
    told = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    fraction, message = told.get("fraction"), told.get("message")
    started_at, attempt = told.get("started_at"), told.get("attempt")
    return msgspec.structs.replace(
        report,
        progress=float(fraction) if isinstance(fraction, (int, float)) else None,
        message=message if isinstance(message, str) else "",
        started_at=float(started_at) if isinstance(started_at, (int, float)) else None,
        attempt=attempt if isinstance(attempt, int) else report.attempt,
    )
