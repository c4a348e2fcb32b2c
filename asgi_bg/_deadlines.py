"""Many timeouts of equal length, at the price of one timer and two dictionary writes each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadlines:
    """Calls whatever was added, after ``seconds``, unless it is discarded before.

    As all wait equally long, they are due in the order added, and one timer for the first
    of them serves them all.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._waiting: dict[Callable[[], None], float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, expire: Callable[[], None]) -> None:
        """Call ``expire``, which must be hashable, when its time has come."""
        self._waiting[expire] = due = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def discard(self, expire: Callable[[], None]) -> None:
        """Do not call it, if it waits."""
        self._waiting.pop(expire, None)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        # The copy is of what is due only; calling it may add and discard.
        due = []
        for expire, at in self._waiting.items():
            if at > now:
                self._timer = self._loop.call_at(at, self._look)
                break
            due.append(expire)
        for expire in due:
            if self._waiting.pop(expire, None) is not None:
                expire()
