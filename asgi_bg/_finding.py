"""Finds jobs: those of the memory, and those of the journal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from asgi_bg._job import JobInfo, JobStatus
from asgi_bg._record import JobRecord
from asgi_bg._registry import Registry

if TYPE_CHECKING:
    from asgi_bg._keeping.keeper import Keeper


class Finding:
    """Answers with what this process knows best, and what the journal knows of the rest.

    Args:
        registry: The jobs that this process knows.
        keeper: Who keeps jobs in a journal, if there is one.
    """

    def __init__(self, registry: Registry, keeper: Keeper | None) -> None:
        self._registry = registry
        self._keeper = keeper

    def here(self, id: str) -> JobRecord | None:
        """Return the job of that id, if it is this process that knows how it stands."""
        held = None if self._keeper is None else self._keeper.held.get(id)
        if held is not None:
            return held
        known = self._registry.known(id)
        return None if known is None or known.kept is not None else known

    async def info(self, id: str) -> JobInfo:
        """Return what is known of a job; see `Runner.info`."""
        record = self.here(id)
        if record is None and self._keeper is not None:
            return await self._keeper.archive.info(id)
        return (record or self._registry.get(id)).snapshot()

    async def result(self, id: str, timeout: float | None) -> Any:
        """Wait for the end of a job; see `Runner.result`."""
        record = self.here(id)
        if record is None and self._keeper is not None:
            return await self._keeper.archive.result(id, timeout)
        return await (record or self._registry.get(id)).result(timeout)

    async def jobs(
        self, status: JobStatus | None, task: str | None, after: str | None, limit: int
    ) -> list[JobInfo]:
        """Return jobs, the newest first; see `Runner.jobs`."""
        here = [record.snapshot() for record in self._registry.newest(status, task, after, limit)]
        if self._keeper is None:
            return here
        word = None if status is None else status.value
        kept = await self._keeper.archive.find(word, task, after, limit)
        return sorted((*here, *kept), key=lambda job: job.id, reverse=True)[:limit]

    async def infos(self, ids: Sequence[str]) -> dict[str, JobInfo]:
        """Return what is known of several jobs; see `Runner.infos`."""
        infos: dict[str, JobInfo] = {}
        missing: list[str] = []
        for each in ids:
            record = self.here(each)
            if record is None:
                missing.append(each)
            else:
                infos[each] = record.snapshot()
        if missing and self._keeper is not None:
            infos |= await self._keeper.archive.infos(missing)
        return infos
