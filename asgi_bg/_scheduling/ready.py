"""Starts the jobs of several requests in a row."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from asgi_bg._scheduling.drain import Drain
from asgi_bg._scheduling.lane import Lane

logger = logging.getLogger("asgi_bg")

ROW = 16
"""The jobs of how many requests are started in a row."""


class Ready:
    """Lanes whose jobs may start, together with those of some others.

    The jobs of several requests in a row find the processor's caches warm. Of too many,
    what they hold until then would set off the garbage collector.

    Args:
        loop: The event loop.
        drain: Waits for what is gathered here.
        collect: Takes up what has returned: it goes first, and all that it holds.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, drain: Drain, collect: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._drain = drain
        self._collect = collect
        self._ready: list[Lane] = []

    def add(self, lane: Lane) -> None:
        """Start the jobs of a lane soon."""
        if not self._ready:
            self._drain.hold()
            self._loop.call_soon(self.start)
        self._ready.append(lane)
        if len(self._ready) >= ROW:
            self.start()

    def start(self) -> None:
        """Start the jobs of all lanes now."""
        if self._ready:
            self._collect()
            ready, self._ready = self._ready, []
            for lane in ready:
                try:
                    lane.pump()
                except Exception:
                    # A fault of ours must not become one of the request that comes by here.
                    logger.exception("starting the jobs of a request failed")
            self._drain.release()
