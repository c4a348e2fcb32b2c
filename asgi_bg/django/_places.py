"""The thread of a request as a place where its jobs run, for tests and WSGI."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import ContextVar
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

place: ContextVar[Executor | None] = ContextVar("asgi_bg_django_place", default=None)
"""Who makes the calls of plain functions that the request adds, in place of the runner's
threads. Jobs find it in the context of their `add_task`."""


def standing_place() -> Executor | None:
    """Return who makes the calls of this context's request, if it still takes any."""
    asked = place.get()
    if isinstance(asked, RequestThread):
        return asked if asked.is_open else None
    # A waiting sync caller, of asgiref's: it has no door to ask whether one still waits.
    while getattr(asked, "_broken", False):
        asked = getattr(asked, "_old_executor", None)
    return asked


class RequestThread(Executor):
    """Makes calls in the thread that made it, while that waits in `serve_until`.

    Database connections of Django belong to a thread, and in Django's `TestCase` so does the
    transaction that all of a test happens in: elsewhere a job would not see the test's data.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_closed = False
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()

    @property
    def is_open(self) -> bool:
        """Whether it still takes calls."""
        return not self._is_closed

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Queue a call; from any thread.

        Raises:
            RuntimeError: The request is over.
        """
        future: Future[R] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as exc:
                future.set_exception(exc)
            else:
                future.set_result(result)

        with self._lock:
            if self._is_closed:
                raise RuntimeError("the request is over, and its thread takes no more calls")
            self._calls.put(call)
        return future

    def serve_until(self, future: Future[Any]) -> None:
        """Make the calls that come, until the future is done."""
        future.add_done_callback(lambda _: self._calls.put(None))
        while not future.done():
            call = self._calls.get()
            if call is not None:
                call()

    def close(self) -> None:
        """Take no more calls, and make those that have come."""
        with self._lock:
            self._is_closed = True
        while not self._calls.empty():
            call = self._calls.get()
            if call is not None:
                call()
