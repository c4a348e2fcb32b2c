"""One scheduler for each event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from threading import get_ident

from asgi_bg._scheduling.parts import Parts
from asgi_bg._scheduling.scheduler import Scheduler


class Schedulers:
    """The schedulers of a runner; most programs have one event loop, and tests many.

    Attributes:
        parts: What they are made of.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._by_loop: dict[asyncio.AbstractEventLoop, Scheduler] = {}
        self._last_used: Scheduler | None = None

    def current(self) -> Scheduler:
        """Return the one of the running event loop."""
        # A thread runs one loop at a time, so this tells that it is the running one; asking
        # asyncio costs a system call before Python 3.12.
        found = self._last_used
        if found is None or found.thread != get_ident() or not found.loop.is_running():
            found = self._last_used = self.of(asyncio.get_running_loop())
        return found

    def of(self, loop: asyncio.AbstractEventLoop) -> Scheduler:
        """Return the one of the loop that is running, made now if there is none."""
        found = self._by_loop.get(loop)
        if found is None:
            # Test clients run every request on a loop of its own, and close it.
            for other in [known for known in self._by_loop if known.is_closed()]:
                self._by_loop.pop(other).abandon()
            found = self._by_loop[loop] = Scheduler(self.parts)
        return found

    def remove(self, scheduler: Scheduler) -> None:
        """Forget one that was closed."""
        self._by_loop.pop(scheduler.loop, None)
        self._last_used = None

    @property
    def loops(self) -> tuple[asyncio.AbstractEventLoop, ...]:
        """The event loops that have one."""
        return tuple(self._by_loop)

    def __iter__(self) -> Iterator[Scheduler]:
        return iter(tuple(self._by_loop.values()))

    def __len__(self) -> int:
        return len(self._by_loop)
