"""Which jobs have changed since the last look, however many there are."""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import TypeAlias

from asgi_bg._job import JobInfo, JobStatus
from asgi_bg._looking.desk import Desk

PAGE = 200
"""How many jobs are asked for at a time."""

PAGES = 10
"""After how many pages of new jobs a look ends; what came before them is passed over."""

REMEMBERED = 10_000
"""Of how many jobs it is known how they stood."""

State: TypeAlias = tuple[JobStatus, int, float | None, str, bool]


class Follower:
    """Follows the jobs of a journal by looking at it again and again.

    A look costs some quick questions: for the newest jobs, for those that run, and for those
    that had not ended at the last one. A job that comes and ends between two looks is told
    once, ended.

    Args:
        desk: The journal's.
        task: Only jobs of this task.
    """

    def __init__(self, desk: Desk, task: str | None) -> None:
        self._desk = desk
        self._task = task
        self._states: OrderedDict[str, State] = OrderedDict()
        self._open: dict[str, None] = {}
        self._is_first = True

    def look(self) -> list[JobInfo]:
        """Return the jobs that have changed, in the order of what happened.

        The first look returns those that have not ended.
        """
        found = sorted(self._found().items())  # so that the oldest is forgotten first
        changed = [job for _, job in found if self._is_news(job)]
        self._is_first = False
        return sorted(changed, key=_instant_of)

    def _found(self) -> dict[str, JobInfo]:
        found = self._desk.infos(list(self._open)[-REMEMBERED:]) if self._open else {}
        for status in ("running", "queued") if self._is_first else ("running",):
            page = self._desk.search(status=status, task=self._task, limit=PAGE)
            found.update((job.id, job) for job in page.jobs)
        after: str | None = None
        for _ in range(1 if self._is_first else PAGES):
            # Jobs are written a little later than their ids are made, so that an older one
            # may come after a newer: hence whole pages, and no last id.
            page = self._desk.search(task=self._task, after=after, limit=PAGE)
            found.update((job.id, job) for job in page.jobs)
            after = page.next
            if after is None or all(job.id in self._states for job in page.jobs):
                break
        return found

    def _is_news(self, job: JobInfo) -> bool:
        state = (
            job.status,
            job.attempt,
            job.progress,
            job.message,
            job.handed_over_at is not None,
        )
        former = self._states.get(job.id)
        self._states[job.id] = state
        self._states.move_to_end(job.id)
        if job.status.is_final or job.handed_over_at is not None:
            self._open.pop(job.id, None)
        else:
            self._open[job.id] = None
        if len(self._states) > REMEMBERED:
            forgotten, _ = self._states.popitem(last=False)
            self._open.pop(forgotten, None)
        return state != former and not (self._is_first and job.status.is_final)


def _instant_of(job: JobInfo) -> tuple[datetime, str]:
    if job.status is JobStatus.queued:
        return job.handed_over_at or job.queued_at, job.id
    return job.finished_at or job.started_at or job.queued_at, job.id
