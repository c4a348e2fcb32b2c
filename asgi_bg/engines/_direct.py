"""An engine without a journal: what it acknowledges takes the place of what is on disk (E1)."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Sequence

from asgi_bg._job import job_extras
from asgi_bg.engines._link import Link
from asgi_bg.engines._message import message_of_job
from asgi_bg.exceptions import EngineError, JournalError
from asgi_bg.journal.base import (
    Batch,
    JobRow,
    Mark,
    NewJob,
    Orphan,
    Sample,
    Standing,
    Unwritable,
)

logger = logging.getLogger("asgi_bg")

KNOWN = 10_000
"""Of how many jobs that were handed over the arguments and the task are remembered."""

LEAST_LIMIT = 1.0
"""How many seconds an acknowledgement may take at least, however long a job waited before."""

MAX_PAYLOAD = 16 * 1024 * 1024


class Refused(EngineError, Unwritable):
    """The engine will never take a job."""


class DirectJournal:
    """Stands where a journal stands, and has the engine keep the jobs instead.

    A commit sends its new jobs, and returns when they are acknowledged; so those of
    concurrent requests are sent together. There is nothing to claim or to recover: what
    the engine has, its workers run.

    Args:
        link: The way to the engine.
    """

    def __init__(self, link: Link) -> None:
        self.path = f"engine:{link.engine.name}"
        self.max_payload = MAX_PAYLOAD
        self._link = link
        self._known: OrderedDict[str, JobRow] = OrderedDict()
        # Of a batch of which the engine refuses a part, as the parts are committed once more.
        self._answers: dict[str, str | None] = {}

    def open(self) -> None:
        """Do nothing: the engine is opened when there is something to send."""

    def close(self) -> None:
        """Do nothing."""

    def commit(self, batch: Batch) -> dict[str, str]:
        """Send new jobs, and cancel those that their response has dropped.

        Raises:
            EngineError: The engine did not acknowledge them in time.
            Refused: It will never take one of them.
        """
        dropped = set(batch.dropped)
        added = [job for job in batch.added if job.id not in dropped]
        fresh = [job for job in added if job.id not in self._answers]
        if fresh:
            self._send(fresh)
        reasons = [reason for job in added if (reason := self._answers.get(job.id)) is not None]
        if reasons:
            raise Refused(reasons[0])
        if fresh:
            self._answers.clear()
        for gone in dropped & self._known.keys():
            self._take_back(gone)
        return {}

    def _send(self, jobs: list[NewJob]) -> None:
        # Those that waited for the commit before, which failed, have had their time.
        timeout = self._link.engine.timeout
        waited = time.time() - min(job.queued_at for job in jobs)
        limit = min(timeout, max(LEAST_LIMIT, timeout - waited))
        answers = self._link.send_now([message_of_job(job) for job in jobs], limit)
        self._answers.update(zip((job.id for job in jobs), answers, strict=True))
        for job, reason in zip(jobs, answers, strict=True):
            if reason is None:
                self._known[job.id] = _row_of(job, self._link.engine.name)
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)

    def _take_back(self, id: str) -> None:
        engine = self._link.engine
        try:
            is_cancelled = self._link.run(self._link.cancel(id), LEAST_LIMIT)
        except EngineError as exc:
            is_cancelled = False
            logger.debug("%s", exc)
        if not is_cancelled:
            logger.warning(
                "job %s is dropped by its response, but %s has it already and may run it",
                id,
                engine.name,
                extra=job_extras(id),
            )

    def note_start(self, id: str, attempt: int) -> None:
        """Do nothing: no attempt of such a job begins here."""

    def note(self, entry: Mark | NewJob) -> None:
        """Do nothing: there is nowhere to keep it."""

    def turn(self) -> None:
        """Do nothing."""

    def recover(self) -> list[Orphan]:
        """Return nothing."""
        return []

    def claim(self, limit: int, now: float) -> list[JobRow]:
        """Return nothing."""
        return []

    def next_due(self) -> float | None:
        """Return nothing."""
        return None

    def cancellations(self) -> list[str]:
        """Return nothing."""
        return []

    def cancel(self, id: str, reason: str, now: float) -> None:
        """Raise, as the engine has all jobs."""
        raise JournalError(f"job {id} is not here to be cancelled")

    def retry(self, id: str) -> bool:
        """Return False, as the engine has all jobs."""
        return False

    def retry_each(self, ids: Sequence[str]) -> list[str]:
        """Return nothing, as the engine has all jobs."""
        return []

    def purge(self, status: str | None, before: float, limit: int) -> int:
        """Forget nothing."""
        return 0

    def expire(self, now: float, limit: int) -> bool:
        """Forget nothing."""
        return False

    def get(self, id: str) -> JobRow | None:
        """Return a job that this process has handed over, as long as it is remembered."""
        return self._known.get(id)

    def find(
        self, status: str | None, task: str | None, after: str | None, limit: int
    ) -> list[JobRow]:
        """Return the last jobs that this process has handed over, the newest first."""
        if status not in (None, "queued"):
            return []
        known = sorted(self._known.copy().values(), key=lambda row: row.id, reverse=True)
        return [
            row
            for row in known
            if (task is None or row.task == task) and (after is None or row.id < after)
        ][:limit]

    def get_many(self, ids: Sequence[str]) -> list[JobRow]:
        """Return those jobs that this process has handed over, as long as remembered."""
        return [row for each in ids if (row := self._known.get(each)) is not None]

    def search(
        self,
        status: str | None,
        task: str | None,
        text: str | None,
        after: str | None,
        limit: int,
        seconds: float,
    ) -> tuple[list[JobRow], str | None]:
        """Return the last jobs that this process has handed over, the newest first."""
        found = self.find(status, task, after, KNOWN)
        if text is not None:
            needle = text.casefold()
            found = [row for row in found if needle in f"{row.id} {row.task} {row.call}".casefold()]
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None

    def sample(self, stretches: Sequence[tuple[float, float]], limit: int) -> list[list[Sample]]:
        """Return the oldest ones of each stretch of time."""
        known = sorted(self._known.copy().values(), key=lambda row: row.queued_at)
        return [
            [
                Sample(row.task, row.status, row.queued_at, None, row.finished_at, True)
                for row in known
                if since <= row.queued_at < until
            ][:limit]
            for since, until in stretches
        ]

    def standing(self, limit: int) -> Standing:
        """Return that nothing waits here."""
        return Standing(self.counts(), 0, len(self._known), None, [])

    def holder_of(self, key: str) -> str | None:
        """Return nothing: keys need a journal."""
        return None

    def counts(self) -> dict[str, int]:
        """Return that nothing waits here."""
        return dict.fromkeys(("queued", "running", "succeeded", "failed", "cancelled"), 0)

    def has_ready(self) -> bool:
        """Return False."""
        return False

    def has_retries(self) -> bool:
        """Return False."""
        return False


def _row_of(job: NewJob, engine: str) -> JobRow:
    return JobRow(
        id=job.id,
        task=job.task,
        call=job.call,
        options=job.options,
        queued_at=job.queued_at,
        run_after=job.run_after,
        priority=job.priority,
        key=job.key,
        after=job.after,
        status="queued",
        attempt=0,
        interrupted=0,
        crashes=0,
        started_at=None,
        finished_at=time.time(),
        owner=None,
        progress=None,
        message="",
        result=None,
        error=None,
        traceback=None,
        logs=None,
        is_recovered=False,
        engine=engine,
        origin=job.origin,
    )
