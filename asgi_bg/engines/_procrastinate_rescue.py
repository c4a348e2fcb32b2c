"""What becomes of a job whose worker died: it runs again, unless it is what workers die of."""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Any, cast

import msgspec
from procrastinate import App, JobContext
from procrastinate.exceptions import ProcrastinateException
from procrastinate.jobs import Job, Status
from procrastinate.manager import JobManager
from psycopg import Error

from asgi_bg._job import job_extras
from asgi_bg._task import declared_task
from asgi_bg.engines._failing import CRASH_LIMIT, POISONOUS
from asgi_bg.engines._procrastinate_notes import Notes, Outcome, note, notes_in
from asgi_bg.engines._procrastinate_sql import FORGET

__all__ = ["STALLED", "Rescue", "retry_stalled"]

logger = logging.getLogger("asgi_bg")

STALLED = 30.0
"""After how many seconds without a sign of life a worker counts as dead, at least."""

HEARTBEATS = 3
"""How many signs of life it may miss, where they are set to be rarer than usual."""

RETRY_STALLED = "asgi_bg:retry_stalled"
"""The task that looks for jobs of dead workers, every minute."""


class Rescue:
    """Has the workers of an app look for jobs of dead ones.

    Args:
        app: The app.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._former: int | None = None

    def add(self, queue: str) -> None:
        """Have them look every minute, unless they do already.

        Args:
            queue: The queue by which they are told to.
        """
        if RETRY_STALLED in cast("Any", self._app).tasks:
            return

        @self._app.periodic(cron="* * * * *", periodic_id="asgi_bg")
        @self._app.task(
            name=RETRY_STALLED, queueing_lock=RETRY_STALLED, queue=queue, pass_context=True
        )
        async def look(context: JobContext, timestamp: int) -> None:
            await retry_stalled(context.app.job_manager, patience_of(self._app))
            former, self._former = self._former, context.job.id
            if former is not None:  # or there would be a row for every minute
                await self._app.connector.execute_query_async(
                    FORGET, number=former, task=RETRY_STALLED
                )


async def retry_stalled(manager: JobManager, seconds: float) -> int:
    """Have the jobs of declared tasks run again whose workers have died.

    Returns:
        How many there were.
    """
    stalled = await manager.get_stalled_jobs(seconds_since_heartbeat=seconds)
    revived = 0
    for job in stalled:
        if declared_task(job.task_name) is not None:
            revived += await revive(manager, job)
    return revived


async def revive(manager: JobManager, job: Job) -> bool:
    """Have a job run again, if nobody else has seen to that meanwhile."""
    notes = notes_in(job.task_kwargs)
    crashes = notes.crashes + 1
    more = Notes(crashes=crashes, interruptions=notes.interruptions + 1)
    if crashes >= CRASH_LIMIT:
        more = Notes(
            crashes=crashes, outcome=msgspec.json.encode(Outcome(error=POISONOUS)).decode()
        )
    try:
        if not await note(manager, job, notes, more):
            return False
        if crashes >= CRASH_LIMIT:
            logger.error(
                "job %s of task %s: %s",
                job.queueing_lock,
                job.task_name,
                POISONOUS,
                extra=job_extras(str(job.queueing_lock), job.task_name),
            )
            await manager.finish_job(job, status=Status.FAILED, delete_job=False)
            return False
        await manager.retry_job(job, retry_at=datetime.now(timezone.utc))
    except (Error, ProcrastinateException) as exc:
        # Such as: the same job waits, as it was sent twice.
        logger.warning(
            "job %s of a worker that died is left as it is: %s",
            job.id,
            exc,
            extra=job_extras(str(job.queueing_lock), job.task_name),
        )
        return False
    return True


def patience_of(app: App) -> float:
    """Return after how many seconds without a sign of life a worker of an app counts as dead."""
    defaults = cast("dict[str, Any]", app.worker_defaults)
    interval: float = defaults.get("update_heartbeat_interval", 0.0)
    timeout: float = defaults.get("stalled_worker_timeout", 0.0)
    return max(STALLED, timeout, HEARTBEATS * interval)
