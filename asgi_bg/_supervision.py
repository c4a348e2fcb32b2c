"""Supervises the runner of an app: started before the app, drained before it shuts down (R6)."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asgi_bg._runner import Runner

logger = logging.getLogger("asgi_bg")

LOOK_INTERVAL = 0.02
"""How many seconds lie between two looks whether requests are still being served."""


class Serving:
    """Counts the requests being served, so that a shutdown can wait for the last.

    Attributes:
        count: How many there are. Whoever waits looks at it now and then, so that requests
            need not tell anybody of their end.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0

    async def is_over(self, timeout: float) -> bool:
        """Wait until no request is being served; False if it takes more seconds than that."""
        deadline = time.monotonic() + timeout
        while self.count:
            if time.monotonic() >= deadline:
                return False
            await asyncio.sleep(LOOK_INTERVAL)
        return True


class Supervision:
    """One life of a runner beside its app.

    Args:
        runner: The runner.
        serving: The requests being served.
    """

    def __init__(self, runner: Runner, serving: Serving) -> None:
        self._runner = runner
        self._serving = serving
        self._deadline = 0.0

    async def start(self) -> None:
        """Start the runner.

        Raises:
            JournalError: Its journal cannot be opened; the message says why.
        """
        self._deadline = 0.0
        await self._runner.start()

    async def drain(self) -> None:
        """Wait for requests and jobs, for at most `drain_timeout` in all; cancel the rest."""
        timeout = self._runner.drain_timeout
        self._deadline = time.monotonic() + timeout
        if not await self._serving.is_over(timeout):
            logger.warning(
                "%d request(s) still being served at shutdown after %g seconds (drain_timeout); "
                "their jobs will be cancelled",
                self._serving.count,
                timeout,
            )
        await self._runner.finish_held(self._time_left())
        # Now, and not after the app has closed what they may be using.
        await self._runner.cancel_all()

    async def close(self) -> None:
        """Close the runner, in what is left of the time of a drain."""
        await self._runner.aclose(self._time_left())

    def _time_left(self) -> float:
        return max(0.0, self._deadline - time.monotonic())
