"""Works an engine's queue in the app's own process (``consume=True``)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time

from asgi_bg._retry import backoff
from asgi_bg.engines.base import Engine, Performer

logger = logging.getLogger("asgi_bg")

RETRY_DELAY = 0.5
RETRY_MAX_DELAY = 10.0
"""The longest wait before the queue is worked again, after it could not be reached."""

CLOSE_TIMEOUT = 5.0
"""How many seconds a worker gets to let go of its connections."""


class Consumer:
    """Keeps an engine's worker going, from the runner's start to its end.

    Args:
        engine: The engine.
        performer: Who runs the jobs: the runner.
        max_jobs: How many it may take at once.
        grace: For how many seconds what was begun may go on after `stop`.
    """

    def __init__(self, engine: Engine, performer: Performer, max_jobs: int, grace: float) -> None:
        self._engine = engine
        self._performer = performer
        self._max_jobs = max_jobs
        self._stopping: asyncio.Event | None = None
        self._grace = grace
        self._stopped_at = 0.0
        self._working: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work the queue."""
        if self._working is None:
            self._stopping = asyncio.Event()
            self._working = asyncio.get_running_loop().create_task(self._work(self._stopping))

    def stop(self) -> None:
        """Take no more jobs."""
        if self._stopping is not None and not self._stopping.is_set():
            self._stopping.set()
            self._stopped_at = time.monotonic()

    async def aclose(self) -> None:
        """Wait for the end of the worker, or end it."""
        working, self._working = self._working, None
        if working is None:
            return
        self.stop()
        # The queue's own functions, of which the runner knows nothing, have their time too.
        left = max(0.0, self._stopped_at + self._grace - time.monotonic())
        await asyncio.wait((working,), timeout=left + CLOSE_TIMEOUT)
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working

    async def _work(self, stopping: asyncio.Event) -> None:
        failures = 0
        name = self._engine.name
        while not stopping.is_set():
            try:
                await self._engine.work(self._performer, self._max_jobs, stopping, self._grace)
                failures = 0
            except Exception as exc:
                failures += 1
                reason = f"{type(exc).__name__}: {exc}"
                logger.warning("working the queue of %s was broken off: %s", name, reason)
            if not stopping.is_set():
                draw = random.random()  # noqa: S311 - jitter
                wait = backoff(failures + 1, base=RETRY_DELAY, cap=RETRY_MAX_DELAY, draw=draw)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(stopping.wait(), wait)
