"""The end of a job, or of its time in this process: who is told of it."""

from __future__ import annotations

import logging

from asgi_bg import events
from asgi_bg._job import JobStatus
from asgi_bg._messages import name_all
from asgi_bg._record import JobRecord, kept_of
from asgi_bg._scheduling.parts import Parts

logger = logging.getLogger("asgi_bg")


class Ends:
    """Ends jobs, and gives back those that others may go on with.

    Args:
        parts: What the runner is made of.
    """

    def __init__(self, parts: Parts) -> None:
        self._registry = parts.registry
        self._events = parts.events
        self._keeper = parts.keeper

    def end(self, record: JobRecord, status: JobStatus, event: str) -> None:
        """End a job; the single place where that happens."""
        record.end(status)
        self._registry.finish(record)
        if record.brought is not None:
            _tell_bringer(record, None)
        if record.kept is not None and self._keeper is not None:
            if event is events.DROPPED:
                self._keeper.dropped(record)
            else:
                self._keeper.ended(record)
        if self._events.handlers:
            self._events.emit(event, record)

    def cancel(self, record: JobRecord, reason: str) -> None:
        """End a job whose attempt, if there was one, is over, as a cancelled one."""
        record.error = reason
        self.end(record, JobStatus.cancelled, events.CANCELLED)

    def withdraw(self, record: JobRecord, reason: str) -> None:
        """End a job that was admitted and is not to run."""
        self._registry.free_key(record)
        record.error = reason
        self.end(record, JobStatus.cancelled, events.DROPPED)

    def drop(self, records: list[JobRecord]) -> None:
        """End jobs that are not to run on their response, with one warning (M5)."""
        dropped = [r for r in records if r.finished_at is None and not r.is_loose]
        for record in dropped:
            self.withdraw(record, "dropped: its response did not end as its run_on asks")
        if dropped:
            logger.warning(
                "%d job(s) dropped, as their response did not end as their run_on asks: %s",
                len(dropped),
                name_all(dropped),
            )

    def give_back(self, record: JobRecord) -> None:
        """Let the journal keep a job that waits or was cut off, for whoever claims it."""
        if record.status is JobStatus.running:
            kept_of(record).interrupted += 1
        record.status = JobStatus.queued
        is_in_thread = record.task.place == "thread" and record.is_in_thread
        assert self._keeper is not None  # noqa: S101 - it keeps the job
        self._keeper.give_back(record, is_stuck=is_in_thread and record.given_up == record.run)

    def leave_to_bringer(self, record: JobRecord, delay: float) -> None:
        """Let the engine that has brought a job bring it again, after so many seconds."""
        self._registry.unfinished.pop(record, None)
        _tell_bringer(record, delay)


def _tell_bringer(record: JobRecord, delay: float | None) -> None:
    """Tell the engine that has brought a job that the attempt is over."""
    brought, record.brought = record.brought, None
    if brought is not None and not brought.done():
        brought.set_result(delay)
