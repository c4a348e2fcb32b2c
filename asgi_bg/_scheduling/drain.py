"""What a drain waits for: nothing ready, running or waiting for a retry."""

from __future__ import annotations

import asyncio
import time


class Drain:
    """Counts what is under way on one event loop, and tells when nothing is.

    All methods belong to the loop's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._holds = 0
        self._waiters: list[asyncio.Future[None]] = []

    @property
    def is_busy(self) -> bool:
        """Whether something is under way."""
        return self._holds > 0

    def hold(self) -> None:
        """Keep the drain from ending until `release`."""
        self._holds += 1

    def release(self) -> None:
        """End a `hold`."""
        self._holds -= 1
        if not self._holds and self._waiters:
            waiters, self._waiters = self._waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def wait(self, timeout: float | None) -> bool:
        """Wait until nothing is under way; False if that takes more seconds than that."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._holds:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await asyncio.wait((waiter,), timeout=left)
        return True
