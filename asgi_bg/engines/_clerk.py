"""A thread that makes blocking calls for an event loop, and can be left to itself."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Call(NamedTuple):
    future: asyncio.Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]


class Clerk:
    """Makes calls one after another, in a daemon thread of its own.

    A thread cannot be stopped, and a call may hang as long as it likes: so nothing waits for
    the thread, neither an executor that others use nor the end of the process.

    Args:
        name: What the thread is called.
    """

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._waiting = 0
        self._is_dismissed = False
        self._last: Callable[[], object] | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way, or waits for its turn."""
        return self._waiting > 0

    @property
    def is_alive(self) -> bool:
        """Whether the thread has yet to end."""
        return self._thread.is_alive()

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Make a call in the thread, and return what it returns.

        If this is cancelled the call goes on, and nobody hears what comes of it.

        Raises:
            ConnectionError: The thread has been dismissed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._lock:
            if self._is_dismissed:
                raise ConnectionError("the connection was closed meanwhile")
            self._waiting += 1
            self._calls.put(_Call(future, function, args))
        return await future

    def dismiss(self, last: Callable[[], object]) -> None:
        """Let the thread end after the call under way and one last call; those that wait fail."""
        with self._lock:
            self._is_dismissed = True
            self._last = last
            self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            self._make(call)
            del call  # while the thread waits, nothing keeps the arguments alive
        if self._last is not None:
            with contextlib.suppress(Exception):
                self._last()

    def _make(self, call: _Call) -> None:
        value: Any = None
        error: BaseException | None = None
        if self._is_dismissed:
            error = ConnectionError("the connection was closed meanwhile")
        elif not call.future.cancelled():
            try:
                value = call.function(*call.args)
            except BaseException as exc:
                error = exc
        with self._lock:
            self._waiting -= 1
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            call.future.get_loop().call_soon_threadsafe(_settle, call.future, value, error)


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return  # cancelled
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
