"""Where an engine's own worker runs the tasks of this project."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from asgi_bg._runner import Runner
from asgi_bg.engines._subscribers import Subscribers
from asgi_bg.engines.base import Engine, Performer
from asgi_bg.events import EventHandler

__all__ = ["Worker"]

MAX_JOBS = 100_000
"""How many jobs run at once at most; it is the engine's worker that bounds them."""


class Worker:
    """Runs the jobs that an engine's worker brings, in the worker's event loop.

    Tasks run as they do in the app: plain functions in threads, ``current_job()`` known, and
    what they add with ``add_task`` goes to the engine before they count as done.

    Args:
        engine: The engine. Its functions call `perform`.

    Attributes:
        performer: Who runs the jobs instead, where the app itself works the queue.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._subscribers = Subscribers()
        self._runner: Runner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.performer: Performer | None = None

    def subscribe(self, on_event: EventHandler | Iterable[EventHandler]) -> None:
        """Have a handler, or several, told of the jobs that are run here from the next start on.

        Where a `performer` runs the jobs, its own subscribers hear of them.

        Args:
            on_event: As `asgi_bg.Runner` takes it. Who is given twice hears of them once.

        Raises:
            TypeError: One of them is no plain function.
        """
        self._subscribers.add(on_event)

    async def perform(self, name: str, envelope: Mapping[str, Any], attempt: int) -> Any:
        """Run one attempt of a job; see `asgi_bg.engines.Performer.perform`."""
        performer = self.performer
        if performer is None:
            performer = await self._runner_here()
        return await performer.perform(name, envelope, attempt)

    async def aclose(self) -> None:
        """Let go of what serves the jobs, when the engine's worker ends."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.aclose()

    async def _runner_here(self) -> Runner:
        loop = asyncio.get_running_loop()
        if self._runner is None or self._loop is not loop:
            self._loop = loop
            handlers = self._subscribers.events.handlers
            self._runner = Runner(engine=self._engine, max_jobs=MAX_JOBS, on_event=handlers)
            self._runner.consumes = False
        await self._runner.start()  # once; several jobs may come by before it has
        return self._runner
