"""A clerk with a connection to Celery's broker or result backend, replaced when it is stuck."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from asgi_bg.engines._clerk import Clerk

CLOSE_TIMEOUT = 0.4
"""How long a connection may take to be closed in good order, in seconds: there are two, and
little time for them."""


class Held(Protocol):
    """What a clerk works with, in its thread."""

    def close(self) -> None:
        """Disconnect."""
        ...

    def interrupt(self) -> None:
        """Break the connection under a call that waits for it; from any thread."""
        ...


T = TypeVar("T")
H = TypeVar("H", bound=Held)


class Post(Generic[H]):
    """Has calls made on a connection, in a thread that can be left to itself.

    Args:
        name: What the thread is called.
        make: Makes what holds the connection.
        timeout: How long a thread that was left may take to come to its end, in seconds.

    Attributes:
        held: What holds the connection now; None before the first call, and when it was left.
    """

    def __init__(self, name: str, make: Callable[[], H], timeout: float) -> None:
        self._name = name
        self._make = make
        self._timeout = timeout
        self._clerk: Clerk | None = None
        self._left: list[Clerk] = []
        self.held: H | None = None

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Return what a function returns, given what holds the connection and the arguments.

        Raises:
            ConnectionError: The thread before this one is stuck, or `leave` was called meanwhile.
        """
        await self._none_stuck()
        if self._clerk is None or self.held is None:
            self._clerk, self.held = Clerk(self._name), self._make()
        return await self._clerk.call(function, self.held, *args)

    async def leave(self) -> None:
        """Close the connection in good order; or break it, and leave its thread to itself."""
        clerk, self._clerk = self._clerk, None
        held, self.held = self.held, None
        if clerk is None or held is None:
            return
        try:
            if not clerk.is_busy:
                with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
                    await asyncio.wait_for(clerk.call(held.close), CLOSE_TIMEOUT)
        finally:
            clerk.dismiss(held.close)
            if clerk.is_busy:
                held.interrupt()
            self._left.append(clerk)

    async def _none_stuck(self) -> None:
        """Wait for a thread that was left to itself: there is never more than one."""
        end = time.monotonic() + self._timeout
        while any(clerk.is_alive and clerk.is_busy for clerk in self._left):
            if time.monotonic() > end:
                raise ConnectionError(
                    "a call to Celery's broker or result backend that was given up has not come "
                    "to its end yet"
                )
            await asyncio.sleep(0.01)
        self._left.clear()
