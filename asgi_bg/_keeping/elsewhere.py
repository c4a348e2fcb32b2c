"""Jobs that an engine has, and what it tells of them (E5)."""

from __future__ import annotations

import logging
import time
from typing import Any

import msgspec

from asgi_bg._ids import instant_of
from asgi_bg._job import JobInfo, JobStatus, as_instant
from asgi_bg._rows import info_of
from asgi_bg._task import Task, declared_task
from asgi_bg.engines._link import Link
from asgi_bg.engines.base import Report
from asgi_bg.exceptions import EngineError
from asgi_bg.journal.base import JobRow
from asgi_bg.journal.codec import codec_of

logger = logging.getLogger("asgi_bg")


class Elsewhere:
    """Asks the engine about jobs that were handed over to it, or not even that.

    Args:
        link: The way to the engine, if there is one.
    """

    def __init__(self, link: Link | None) -> None:
        self._link = link

    async def follow(self, row: JobRow) -> JobInfo:
        """Return what is known of a job of the journal, by its engine if that has it."""
        info = info_of(row)
        if row.engine is None or self._link is None or row.engine != self._link.engine.name:
            return info
        try:
            report = await self._link.fetch(row.id)
        except EngineError as exc:
            logger.debug("%s", exc)
            return info
        return info if report is None else followed(info, report)

    async def find(self, id: str) -> JobInfo | None:
        """Return what the engine knows of a job that another machine has handed over to it.

        Raises:
            EngineError: It could not be asked.
        """
        queued_at = instant_of(id)
        if self._link is None or queued_at is None:
            return None
        report = await self._link.fetch(id)
        if report is None:
            return None
        return followed(elsewhere(id, report.task or "", queued_at, self._link.engine.name), report)

    def has_results(self, info: JobInfo) -> bool:
        """Whether the engine that has a job will tell its result."""
        engine = None if self._link is None else self._link.engine
        return (
            engine is not None
            and info.owner == f"engine:{engine.name}"
            and "results" in engine.supports
        )

    async def cancel(self, row: JobRow) -> JobInfo:
        """Have the engine cancel a job, and return what is known of it then.

        Raises:
            EngineError: This runner does not have its engine, or could not reach it.
        """
        info = await self.follow(row)
        if info.status.is_final:
            return info
        if self._link is None or row.engine != self._link.engine.name:
            raise EngineError(
                f"job {row.id} was handed over to the engine {row.engine}, which this runner does "
                "not have; cancel it with the engine's own tools"
            )
        if await self._link.cancel(row.id):
            return msgspec.structs.replace(
                info, status=JobStatus.cancelled, error="cancelled by request"
            )
        return await self.follow(row)


def elsewhere(id: str, task: str, queued_at: float, engine: str) -> JobInfo:
    """Return what is known of a job that only its engine knows."""
    return JobInfo(
        id=id,
        task=task,
        status=JobStatus.queued,
        attempt=0,
        max_attempts=1,
        queued_at=as_instant(queued_at),
        run_after=None,
        started_at=None,
        finished_at=None,
        progress=None,
        message="handed over",
        result=None,
        error=None,
        traceback=None,
        durable=True,
        owner=f"engine:{engine}",
        logs=(),
        handed_over_at=as_instant(queued_at),
    )


def handed_over(info: JobInfo, engine: str) -> JobInfo:
    """Return what is known of a job right after it was handed over."""
    return msgspec.structs.replace(
        info,
        message="handed over",
        owner=f"engine:{engine}",
        handed_over_at=as_instant(time.time()),
    )


def followed(info: JobInfo, report: Report) -> JobInfo:
    """Return what is known of a job that was handed over, by what its engine tells (E5)."""
    started, finished = report.started_at, report.finished_at
    return msgspec.structs.replace(
        info,
        status=report.status,
        attempt=report.attempt,
        started_at=None if started is None else as_instant(started),
        finished_at=None if finished is None else as_instant(finished),
        progress=report.progress,
        message=report.message or info.message,
        result=_result_of(report, declared_task(info.task)),
        error=report.error,
        traceback=report.traceback,
    )


def _result_of(report: Report, task: Task[..., Any] | None) -> Any:
    if task is None or report.result is None:
        return report.result
    try:
        return codec_of(task).decode_result(msgspec.json.encode(report.result).decode())
    except (TypeError, ValueError):
        return report.result
