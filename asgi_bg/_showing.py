"""What a runner shows of jobs: those of its memory, and those of its journal, as one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from asgi_bg._finding import Finding
from asgi_bg._job import JobInfo, JobStatus
from asgi_bg._looking.details import details_of_record
from asgi_bg._looking.overview import (
    Part,
    Situation,
    Window,
    earliest,
    situation_of,
    summarise,
    window_until_now,
)
from asgi_bg._record import JobRecord
from asgi_bg._registry import Registry
from asgi_bg.journal.base import Sample
from asgi_bg.views import CAP, Counts, JobDetails, JobPage, Overview, ProcessInfo

if TYPE_CHECKING:
    from asgi_bg._keeping.keeper import Keeper

LOOKED = 1_000
"""At how many jobs of the memory is looked for a text, in the event loop."""

NEAR = 5_000
"""How many of the oldest, and of the newest, unfinished jobs of the memory are counted one by
one; those in between wait."""


class Showing:
    """Answers with what this process knows best, and what the journal knows of the rest.

    Args:
        registry: The jobs that this process knows.
        keeper: Who keeps jobs in a journal, if there is one.
        finding: Knows which jobs are here.
    """

    def __init__(self, registry: Registry, keeper: Keeper | None, finding: Finding) -> None:
        self._registry = registry
        self._keeper = keeper
        self._finding = finding

    async def details(self, id: str) -> JobDetails:
        """Return all that is known of a job; see `Runner.details`."""
        record = self._finding.here(id)
        if record is None and self._keeper is not None:
            return await self._keeper.archive.details(id)
        return details_of_record(record or self._registry.get(id))

    async def search(
        self,
        status: JobStatus | None,
        task: str | None,
        text: str | None,
        after: str | None,
        limit: int,
        seconds: float,
    ) -> JobPage:
        """Return jobs, the newest first; see `Runner.search`."""
        wanted = limit + 1 if text is None else LOOKED
        records = self._registry.newest(status, task, after, wanted)
        here = [record.snapshot() for record in records if text is None or _has(record, text)]
        going_on = records[-1].id if text is not None and len(records) == LOOKED else None
        is_cut = going_on is not None
        kept: tuple[JobInfo, ...] = ()
        if self._keeper is not None:
            archive = self._keeper.archive
            word = None if status is None else status.value
            page = await archive.search(
                partial(
                    archive.desk.search,
                    status=word,
                    task=task,
                    text=text,
                    after=after,
                    limit=limit,
                    seconds=seconds,
                )
            )
            kept, is_cut = page.jobs, page.is_cut or is_cut
            if page.next is not None:
                going_on = max(page.next, going_on or page.next)
        known = {job.id for job in here}
        jobs = [*here, *(job for job in kept if job.id not in known)]
        if going_on is not None:
            # What is older may have others in between that were not looked at.
            jobs = [job for job in jobs if job.id >= going_on]
        jobs.sort(key=lambda job: job.id, reverse=True)
        if len(jobs) > limit:
            return JobPage(tuple(jobs[:limit]), jobs[limit - 1].id, False)
        return JobPage(tuple(jobs), going_on, is_cut)

    async def overview(self, seconds: float, buckets: int) -> Overview:
        """Return all jobs at a glance; see `Runner.overview`."""
        window = window_until_now(seconds, buckets)
        parts = self._parts(window)
        if self._keeper is None:
            return summarise(window, self._situation(), parts)
        archive = self._keeper.archive
        standing = await archive.ask(partial(archive.journal.standing, CAP))
        parts += await archive.ask(partial(archive.desk.parts, window))
        return summarise(window, self._corrected(situation_of(standing)), parts)

    def _parts(self, window: Window) -> list[Part]:
        """Return the jobs of a window that are in no journal."""
        near = self._unfinished()
        weight = max(1.0, len(self._registry.unfinished) / max(1, len(near)))
        parts: list[Part] = []
        for records, each in ((tuple(self._registry.finished), 1.0), (near, weight)):
            samples: dict[int, list[Sample]] = {}
            for record in records:
                bucket = window.bucket_of(record.queued_at) if record.kept is None else None
                if bucket is not None:
                    samples.setdefault(bucket, []).append(_sample_of(record))
            parts += [Part(bucket, some, each) for bucket, some in samples.items()]
        return parts

    def _unfinished(self) -> list[JobRecord]:
        """Return the oldest and the newest unfinished jobs."""
        unfinished = self._registry.unfinished
        if len(unfinished) <= 2 * NEAR:
            return list(unfinished)
        return [*islice(unfinished, NEAR), *islice(reversed(unfinished), NEAR)]

    def _own(self) -> _Own:
        """Count the unfinished jobs that are in no journal."""
        near = self._unfinished()
        between = len(self._registry.unfinished) - len(near)
        return _Own([record for record in near if record.kept is None], between)

    def _situation(self) -> Situation:
        """Return how the jobs of a runner without a journal stand."""
        own = self._own()
        ended = self._registry.ended
        counts = Counts(
            queued=own.queued,
            running=own.running,
            succeeded=ended[JobStatus.succeeded],
            failed=ended[JobStatus.failed],
            cancelled=ended[JobStatus.cancelled],
            retrying=own.retrying,
            handed_over=self._registry.handed_over,
        )
        return Situation(counts=counts, oldest=own.oldest, processes=(self._process(),))

    def _corrected(self, kept: Situation) -> Situation:
        """Return the situation of the journal, with what only this process knows."""
        assert self._keeper is not None  # noqa: S101 - or nobody would have asked the journal
        own = self._own()
        # The journal is told only now and then that a job runs.
        held = tuple(self._keeper.held.values())
        begun = sum(r.status is JobStatus.running and not _is_shown(r) for r in held)
        retrying = sum(r.attempt > 0 and r.status is JobStatus.queued for r in held)
        finished = [record.status for record in tuple(self._registry.finished)]
        counts = kept.counts
        return Situation(
            counts=Counts(
                queued=max(0, counts.queued - begun) + own.queued,
                running=counts.running + begun + own.running,
                succeeded=counts.succeeded + finished.count(JobStatus.succeeded),
                failed=counts.failed + finished.count(JobStatus.failed),
                cancelled=counts.cancelled + finished.count(JobStatus.cancelled),
                retrying=min(CAP, counts.retrying + retrying + own.retrying),
                handed_over=counts.handed_over,
            ),
            oldest=earliest(kept.oldest, own.oldest, _oldest_of(held)),
            processes=kept.processes or (self._process(),),
        )

    def _process(self) -> ProcessInfo:
        return ProcessInfo(os.getpid(), True, len(self._registry.unfinished))


class _Own:
    """Counts of unfinished jobs that are in no journal.

    Args:
        records: The jobs.
        between: How many more there are, which wait.
    """

    def __init__(self, records: Sequence[JobRecord], between: int) -> None:
        waiting = [record for record in records if record.status is not JobStatus.running]
        self.running = len(records) - len(waiting)
        self.queued = len(waiting) + between
        self.retrying = sum(record.attempt > 0 for record in waiting)
        self.oldest = _oldest_of(records)


def _oldest_of(records: Sequence[JobRecord]) -> float | None:
    """Return when the oldest one was added that waits for its turn."""
    return earliest(
        *(
            record.queued_at
            for record in records
            if record.status is not JobStatus.running and record.run_after is None
        )
    )


def _is_shown(record: JobRecord) -> bool:
    """Whether the journal has been told that the attempt runs."""
    shown = None if record.kept is None else record.kept.shown
    return shown is not None and shown[0] == record.attempt


def _sample_of(record: JobRecord) -> Sample:
    return Sample(
        record.task_name,
        record.status.value,
        record.queued_at,
        record.started_at,
        record.finished_at,
        False,
    )


def _has(record: JobRecord, text: str) -> bool:
    """Whether a text is in what is shown of a job."""
    needle = text.casefold()
    details = details_of_record(record)
    job, origin = details.job, details.origin
    plain = [job.id, job.task, details.key, job.message, job.error]
    if origin is not None:
        plain += [origin.path, origin.request_id, origin.trace]
    plain += [argument.value for argument in details.arguments or ()]
    return any(needle in each.casefold() for each in plain if each is not None)
