"""An ARQ worker within the process of an app, which has more to do than to work a queue."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from arq.worker import Function, Worker

from asgi_bg._job import job_extras
from asgi_bg.engines._arq_roster import Roster
from asgi_bg.engines._arq_worker import CANCEL_TIMEOUT, cancelled

__all__ = ["AppWorker"]

logger = logging.getLogger("asgi_bg")

PAUSE = 1.0
"""How many seconds lie between two looks whether Redis can be reached again."""


class LateFunctions(dict[str, Any]):
    """The functions of a worker, which it has by name; those of a roster are found later, too."""

    def __init__(self, known: dict[str, Any], roster: Roster) -> None:
        super().__init__(known)
        self._roster = roster

    def __missing__(self, name: str) -> Function:
        found = self[name] = self._roster.late(name)
        return found


class AppWorker(Worker):
    """An ARQ worker within the process of an app: it outlasts Redis, and leaves when asked to.

    Args:
        stopping: Set when no more jobs are to be taken.
        roster: Its functions.
        **settings: The arguments of `arq.worker.Worker`.
    """

    def __init__(self, stopping: asyncio.Event, roster: Roster, **settings: Any) -> None:
        settings.update(functions=roster, handle_signals=False)
        super().__init__(**settings)
        self.functions = LateFunctions(self.functions, roster)
        self._stopping = stopping
        self._taking = asyncio.Lock()
        self._is_away = False
        self._is_over = False

    async def serve(self, grace: float) -> None:
        """Work the queue until `stopping`, and what was begun for some seconds more.

        Args:
            grace: For how many.

        Raises:
            Exception: Redis cannot be reached now.
        """
        main = self.main_task = self.loop.create_task(self.main())
        asked = self.loop.create_task(self._stopping.wait())
        try:
            await asyncio.wait((main, asked), return_when=asyncio.FIRST_COMPLETED)
            if self._stopping.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._finish(), grace)
            else:
                main.result()  # which raises
        finally:
            self._is_over = True
            await cancelled((asked, main, *self.tasks.values()))
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.pool.delete(self.health_check_key), CANCEL_TIMEOUT)

    async def start_jobs(self, job_ids: list[bytes]) -> None:
        """Take jobs, until there is no more room or no more time."""
        for job_id in job_ids:
            if job_id.decode() in self.tasks:
                continue  # its mark may have expired while Redis was away
            async with self._taking:
                if self._stopping.is_set() or self.job_counter >= self.max_jobs:
                    return
                await super().start_jobs([job_id])

    async def finish_job(self, job_id: str, *args: Any, **kwargs: Any) -> None:
        """Note the end of a job, when Redis is back at the latest, so that it is not run again."""
        has_failed = False
        while True:
            try:
                return await super().finish_job(job_id, *args, **kwargs)
            except Exception as exc:
                if self._stopping.is_set():
                    raise
                if not has_failed:
                    logger.warning(
                        "the end of job %s cannot be noted yet: %r",
                        job_id,
                        exc,
                        extra=job_extras(job_id),
                    )
            has_failed = True
            await asyncio.sleep(PAUSE)

    async def _poll_iteration(self) -> None:
        if self._is_over:  # redis-py 4 sometimes loses a cancellation
            raise asyncio.CancelledError
        try:
            await super()._poll_iteration()
        except Exception as exc:
            if not self._is_away:
                logger.warning("working the queue of arq was broken off: %r", exc)
            self._is_away = True
            await asyncio.sleep(PAUSE)
        else:
            if self._is_away:
                logger.warning("the queue of arq is being worked again")
            self._is_away = False

    async def _finish(self) -> None:
        async with self._taking:
            pass  # what is being taken belongs to what was begun
        while running := [task for task in self.tasks.values() if not task.done()]:
            await asyncio.wait(running)
