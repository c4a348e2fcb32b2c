"""Many timeouts of equal length, at the price of one timer and two dictionary writes each."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Expiring(Protocol):
    """Something that is told when its time has come; hashed by identity."""

    def expire(self) -> None:
        """Note that the time has come."""
        ...


class Deadlines:
    """Tells whatever was added that ``seconds`` have passed, unless it is discarded before.

    As all wait equally long, they are due in the order added, and one timer for the first
    of them serves them all.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self._loop = loop
        self._seconds = seconds
        self._waiting: dict[Expiring, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def add(self, waiting: Expiring) -> None:
        """Start the time of something."""
        self._waiting[waiting] = due = self._loop.time() + self._seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._look)

    def discard(self, waiting: Expiring) -> None:
        """Do not tell it, if it waits."""
        self._waiting.pop(waiting, None)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        # Collected first, as telling one of them may add and discard others.
        due: list[Expiring] = []
        for waiting, at in self._waiting.items():
            if at > now:
                self._timer = self._loop.call_at(at, self._look)
                break
            due.append(waiting)
        for waiting in due:
            if self._waiting.pop(waiting, None) is not None:
                waiting.expire()
