"""For the application's log: which job a record was written in (W4)."""

from __future__ import annotations

import logging
from typing import Any, Final

from asgi_bg._job import running

__all__ = ["NO_JOB", "JobFilter"]

NO_JOB: Final = "-"
"""What the attributes hold in records that were written outside of jobs."""


class JobFilter(logging.Filter):
    """Gives every record the attributes ``job_id``, ``task`` and ``attempt``.

    They are those of the job that the record was written in. What asgi_bg itself says of a job
    has them, too. Attributes of these names that a record has already are left as they are.

    Add it to handlers, not to loggers: a logger's filters see only what is logged with that
    very logger. It lets every record pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Set the attributes, and return True."""
        told = record.__dict__
        for name, value in _job_of(told).items():
            told.setdefault(name, value)
        return True


def _job_of(told: dict[str, Any]) -> dict[str, Any]:
    if "asgi_bg_job_id" in told:  # it says which job it is about, wherever it was written
        return {
            "job_id": told["asgi_bg_job_id"],
            "task": told.get("asgi_bg_task", NO_JOB),
            "attempt": told.get("asgi_bg_attempt", NO_JOB),
        }
    job = running.get(None)
    if job is None:
        return {"job_id": NO_JOB, "task": NO_JOB, "attempt": NO_JOB}
    return {"job_id": job.id, "task": job.task_name, "attempt": job.attempt}
