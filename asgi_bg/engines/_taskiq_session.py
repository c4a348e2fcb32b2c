"""Who has started a taskiq broker: the app that owns it, or the engine that needs it."""

from __future__ import annotations

import asyncio
import logging
from typing import Literal

from taskiq import AsyncBroker, TaskiqEvents, TaskiqState

from asgi_bg.engines._taskiq_line import Line

logger = logging.getLogger("asgi_bg")

SHUTDOWN_TIMEOUT = 2.0
"""How many seconds a broker gets to shut down."""


class Session:
    """Starts a broker if nobody else has, and shuts down what it has started.

    Args:
        broker: The broker; it tells by its events when somebody else starts it.
        line: The way to it.
    """

    def __init__(self, broker: AsyncBroker, line: Line) -> None:
        self._broker = broker
        self._line = line
        self._starter: Literal["engine", "user"] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._is_starting = False
        self._has_leftovers = False
        for event in (TaskiqEvents.CLIENT_STARTUP, TaskiqEvents.WORKER_STARTUP):
            broker.add_event_handler(event, self._note_startup)
        for event in (TaskiqEvents.CLIENT_SHUTDOWN, TaskiqEvents.WORKER_SHUTDOWN):
            broker.add_event_handler(event, self._note_shutdown)

    async def start(self) -> None:
        """Start the broker, unless it has been started."""
        self._enter_loop()
        async with self._lock:
            if self._starter is not None:
                return
            if self._has_leftovers:
                await self._stop()
            self._starter, self._is_starting = "engine", True
            try:
                await self._broker.startup()
            except BaseException:
                await self._stop()
                raise
            finally:
                self._is_starting = False

    async def stop(self) -> None:
        """Shut the broker down, if it was started here."""
        self._enter_loop()
        async with self._lock:
            if self._starter == "engine" or self._has_leftovers:
                await self._stop()

    async def _stop(self) -> None:
        self._starter, self._has_leftovers = None, False
        await self._line.disconnect()
        try:
            await asyncio.wait_for(self._broker.shutdown(), SHUTDOWN_TIMEOUT)
        except Exception as exc:
            logger.debug("shutting down the taskiq broker failed: %r", exc)

    def _enter_loop(self) -> None:
        """Know nothing any more of what was started in an event loop that has ended."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._has_leftovers = self._starter == "engine"
            self._loop, self._starter, self._lock = loop, None, asyncio.Lock()

    async def _note_startup(self, _state: TaskiqState) -> None:
        if self._is_starting:
            return
        self._enter_loop()
        if self._starter == "engine":
            # Its connections are about to be replaced, and would be left behind.
            await self._line.disconnect()
        self._starter = "user"

    def _note_shutdown(self, _state: TaskiqState) -> None:
        self._starter = None
