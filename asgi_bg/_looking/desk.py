"""Where people are served: what the journal has, in the form in which it is shown.

Over a journal alone, in blocking calls: the command line works so on the file of an app that
runs or is dead, and a runner asks in a thread.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from asgi_bg._job import JobInfo
from asgi_bg._looking.arguments import shown_call
from asgi_bg._looking.details import attempts_of
from asgi_bg._looking.overview import (
    FULL,
    LOOKED,
    Part,
    Window,
    situation_of,
    summarise,
    weigh,
    window_until_now,
)
from asgi_bg._origin import read as read_origin
from asgi_bg._rows import info_of, options_in
from asgi_bg._task import declared_task
from asgi_bg.exceptions import JobNotFound
from asgi_bg.journal._past import past_in
from asgi_bg.journal.base import JobRow, Journal
from asgi_bg.views import CAP, JobDetails, JobPage, Overview

PURGED = 500
"""How many jobs are removed at a time, so that no commit waits long for that."""

LISTED = 100
"""How many failed jobs are looked up at a time to be retried."""


class Desk:
    """Answers questions about the jobs of a journal, and does what is asked with them.

    Nothing here makes this process an owner of jobs, or runs any.

    Args:
        journal: The journal.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def details(self, id: str) -> JobDetails:
        """Return all that is known of a job.

        Raises:
            JobNotFound: There is none of that id (any more).
            JournalError: The journal cannot be read.
        """
        return details_of_row(self._row(id))

    def info(self, id: str) -> JobInfo:
        """Return what is known of a job; raises what `details` does."""
        return info_of(self._row(id))

    def infos(self, ids: Sequence[str]) -> dict[str, JobInfo]:
        """Return what is known of several jobs; those that there are not are left out."""
        return {row.id: info_of(row) for row in self._journal.get_many(ids)}

    def search(
        self,
        *,
        status: str | None = None,
        task: str | None = None,
        text: str | None = None,
        after: str | None = None,
        limit: int = 50,
        seconds: float = 0.15,
    ) -> JobPage:
        """Return jobs, the newest first; the arguments are those of `Runner.search`."""
        rows, going_on = self._journal.search(status, task, text, after, limit, seconds)
        found = rows if text is None else [row for row in rows if is_shown(text, row)]
        is_cut = going_on is not None and len(rows) < limit
        return JobPage(tuple(info_of(row) for row in found), going_on, is_cut)

    def overview(self, seconds: float = 3600.0, buckets: int = 60) -> Overview:
        """Return how many jobs stand how, and what has come of those of the last while."""
        window = window_until_now(seconds, buckets)
        return summarise(window, situation_of(self._journal.standing(CAP)), self.parts(window))

    def parts(self, window: Window) -> list[Part]:
        """Return a sample of the jobs of a window."""
        parts: list[Part] = []
        for number, samples in enumerate(self._journal.sample(window.buckets(), FULL)):
            if len(samples) < FULL:
                parts.append(Part(number, samples))
                continue
            stretches = window.stretches(number)
            for stretch, few in zip(
                stretches, self._journal.sample(stretches, LOOKED), strict=True
            ):
                parts.append(Part(number, few, weigh(few, stretch)))
        return parts

    def cancel(self, id: str) -> JobInfo:
        """Cancel a job that nobody has, or ask the process that has it to.

        Raises:
            JobNotFound: There is none of that id (any more).
            ValueError: An engine has it.
        """
        row = self._row(id)
        if row.engine is not None:
            raise ValueError(
                f"job {id} was handed over to the engine {row.engine}; cancel it there, with the "
                "engine's own tools"
            )
        self._journal.cancel(row.id, "cancelled by request", time.time())
        return self.info(row.id)

    def retry(self, id: str) -> JobInfo:
        """Let a failed or cancelled job wait again.

        Raises:
            JobNotFound: There is none of that id (any more).
            ValueError: It is neither.
        """
        row = self._row(id)
        if row.engine is not None:
            raise ValueError(
                f"job {id} was handed over to the engine {row.engine}; retry it there, with the "
                "engine's own tools"
            )
        if not self._journal.retry(row.id):
            raise ValueError(
                f"only failed and cancelled jobs can be retried, and job {id} is {row.status}"
            )
        return self.info(row.id)

    def retry_failed(self, task: str | None = None) -> Iterator[int]:
        """Let all failed jobs wait again, or those of a task; yield how many do so far."""
        retried = 0
        for ids in failed_ids(self._journal, task):
            retried += len(self._journal.retry_each(ids))
            yield retried

    def purge(self, status: str | None, before: float) -> Iterator[int]:
        """Forget jobs that ended (so) before that instant; yield how many are gone so far."""
        gone = 0
        while True:
            some = self._journal.purge(status, before, PURGED)
            gone += some
            yield gone
            if some < PURGED:
                return

    def _row(self, id: str) -> JobRow:
        row = self._journal.get(id)
        if row is None:
            raise JobNotFound(
                f"no job {id!r} is in the journal {self._journal.path}; finished jobs are "
                "forgotten when their retention is over"
            )
        return row


def failed_ids(journal: Journal, task: str | None) -> Iterator[list[str]]:
    """Yield the ids of the jobs that have failed, some at a time, the newest first."""
    after: str | None = None
    while True:
        rows, after = journal.search("failed", task, None, after, LISTED, 60.0)
        if rows:
            yield [row.id for row in rows]
        if after is None:
            return


def details_of_row(row: JobRow, job: JobInfo | None = None) -> JobDetails:
    """Return all that the journal knows of a job.

    Args:
        row: What it has.
        job: What is known better elsewhere, of the job that an engine has.
    """
    info = info_of(row) if job is None else job
    options = options_in(row)
    return JobDetails(
        job=info,
        arguments=shown_call(row.call, declared_task(row.task), options.redact),
        attempts=attempts_of(info, past_in(row)),
        origin=read_origin(row.origin),
        key=row.key,
        priority=row.priority,
        queue=options.queue,
        tags=options.tags,
    )


def is_shown(text: str, row: JobRow) -> bool:
    """Whether a text is in what is shown of a job, and not only in a redacted argument."""
    needle = text.casefold()
    plain = (row.id, row.task, row.key, row.message, row.error, row.origin)
    if any(needle in each.casefold() for each in plain if each is not None):
        return True
    redact = options_in(row).redact
    if not redact:
        return True
    arguments = shown_call(row.call, declared_task(row.task), redact) or ()
    return any(needle in each.value.casefold() for each in arguments)
