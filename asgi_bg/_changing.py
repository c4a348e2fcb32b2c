"""Changes jobs by request of users: those of the memory, and those of the journal."""

from __future__ import annotations

from collections.abc import Callable

from asgi_bg._finding import Finding
from asgi_bg._job import JobInfo, JobStatus
from asgi_bg._scheduling.parts import Parts
from asgi_bg._scheduling.scheduler import Scheduler


class Changing:
    """Retries, cancels and forgets jobs.

    Args:
        parts: What the runner is made of.
        finding: Knows which jobs are here.
    """

    def __init__(self, parts: Parts, finding: Finding) -> None:
        self._registry = parts.registry
        self._keeper = parts.keeper
        self._finding = finding

    async def retry(self, id: str, current: Callable[[], Scheduler]) -> JobInfo:
        """Queue a failed or cancelled job again; see `Runner.retry`."""
        here = self._finding.here(id)
        if here is None and self._keeper is not None:
            info = await self._keeper.archive.retry(id)
            self._keeper.claims.claim_retried()
            return info
        record = here or self._registry.get(id)
        if record.status not in (JobStatus.failed, JobStatus.cancelled):
            raise ValueError(
                f"only failed and cancelled jobs can be retried, and job {id} is {record.status}"
            )
        self._registry.reopen(record)
        current().readmit(record)
        return record.snapshot()

    async def retry_failed(self, task: str | None, current: Callable[[], Scheduler]) -> int:
        """Queue all failed jobs again, or those of a task; return how many."""
        here = [r for r in tuple(self._registry.finished) if r.status is JobStatus.failed]
        retried = 0
        for record in here:
            if task in (None, record.task_name):
                await self.retry(record.id, current)
                retried += 1
        if self._keeper is not None:
            retried += await self._keeper.archive.retry_failed(task)
            self._keeper.claims.claim_retried()
        return retried

    async def cancel(self, id: str) -> JobInfo:
        """Cancel a job in whatever state it is; see `Runner.cancel`."""
        here = self._finding.here(id)
        if here is None and self._keeper is not None:
            return await self._keeper.archive.cancel(id)
        record = here or self._registry.get(id)
        record.home.cancel(record, "cancelled by request")
        return record.snapshot()

    async def purge(self, status: JobStatus | None, before: float) -> int:
        """Forget jobs that ended before that instant, and return how many."""
        gone = self._registry.purge(status, before)
        if self._keeper is not None:
            word = None if status is None else status.value
            gone += await self._keeper.archive.purge(word, before)
        return gone
