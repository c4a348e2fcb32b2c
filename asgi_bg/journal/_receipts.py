"""Waiting until jobs are on disk, and hearing of it (J1)."""

from __future__ import annotations

import asyncio
import logging

from asgi_bg.exceptions import EngineError, JournalError
from asgi_bg.journal.base import NewJob

logger = logging.getLogger("asgi_bg")


class Receipt:
    """Tells those who wait for it whether some jobs have been written (J1).

    Attributes:
        is_written: Whether they have been.
        error: Why they have not, and will not be.
    """

    __slots__ = ("_loop", "_waiters", "error", "is_written", "jobs")

    def __init__(self, jobs: list[NewJob], loop: asyncio.AbstractEventLoop) -> None:
        self.jobs = jobs
        self.is_written = False
        self.error: JournalError | EngineError | None = None
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []

    async def written(self) -> None:
        """Wait until the jobs are on disk.

        Raises:
            JournalError, EngineError: They cannot be written, or handed over.
        """
        if not self.is_written and self.error is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self.error is not None:
            # A new one each time, as several may raise it.
            raise type(self.error)(str(self.error)) from self.error.__cause__

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.is_written or self.error is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of those who wait."""
        return self._loop

    def tell(self) -> None:
        """Wake who waits, in their event loop."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def tell_all(receipts: list[Receipt]) -> None:
    """Wake who waits for one of these, from another thread than theirs."""
    by_loop: dict[asyncio.AbstractEventLoop, list[Receipt]] = {}
    for receipt in receipts:
        by_loop.setdefault(receipt.loop, []).append(receipt)
    for loop, told in by_loop.items():
        try:
            loop.call_soon_threadsafe(_tell, told)
        except RuntimeError:
            logger.debug("an event loop was closed while its jobs were being written")


def _tell(receipts: list[Receipt]) -> None:
    for receipt in receipts:
        receipt.tell()
