"""What the log says about jobs, where several places say it."""

from __future__ import annotations

import logging

from asgi_bg._failures import forget_frames
from asgi_bg._record import JobRecord

logger = logging.getLogger("asgi_bg")


def extras(record: JobRecord) -> dict[str, object]:
    """The structured extras of every log record about a job."""
    return {
        "asgi_bg_job_id": record.id,
        "asgi_bg_task": record.task_name,
        "asgi_bg_attempt": record.attempt,
    }


def name_all(records: list[JobRecord]) -> str:
    """Name jobs for a log message, the first twenty of them."""
    named = ", ".join(f"{record.task_name} ({record.id})" for record in records[:20])
    more = len(records) - 20
    return f"{named} and {more} more" if more > 0 else named


def log_unfinished(records: list[JobRecord], when: str = "the runner was closed") -> None:
    """Log which jobs have to be cancelled, and which stay queued in the journal (R6)."""
    kept = [record for record in records if record.kept is not None and record.kept.is_told]
    gone = [record for record in records if record not in set(kept)]
    if gone:
        logger.error(
            "%d job(s) were not done when %s, and are cancelled: %s",
            len(gone),
            when,
            name_all(gone),
        )
    if kept:
        logger.warning(
            "%d job(s) were not done when %s, and stay queued in the journal: %s",
            len(kept),
            when,
            name_all(kept),
        )


def log_failure(record: JobRecord, exception: BaseException) -> None:
    """Log a job's failure, once and with its traceback (R3)."""
    logger.error(
        "task %s failed in attempt %d of %d (job %s)",
        record.task_name,
        record.attempt,
        record.max_attempts,
        record.id,
        exc_info=(type(exception), exception, exception.__traceback__),
        extra=extras(record),
    )
    # The text is kept; the frames would keep alive all that the task's variables hold.
    forget_frames(exception)
