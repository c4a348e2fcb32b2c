"""A request that comes by no ASGI server, and how it is served all the same."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any, cast

from django.http.response import FileResponse, HttpResponseBase, StreamingHttpResponse

from asgi_bg._collector import BackgroundTasks, collecting
from asgi_bg._types import Message, Receive, Scope, Send
from asgi_bg.django._places import RequestThread, place
from asgi_bg.django._setup import configured_run_on, get_runner
from asgi_bg.middleware import BackgroundTaskMiddleware


class Served:
    """One request, as `BackgroundTaskMiddleware` sees it: an ASGI app that responds when told.

    Attributes:
        collector: The request's tasks, once it is being served.
        promised: Done when durable jobs are on disk (J1); has the error if they are not (J2).
        call: Done when the jobs have ended.
    """

    def __init__(self, scope: Scope, thread: Executor | None = None) -> None:
        self._scope = scope
        self._thread = thread
        self._loop: asyncio.AbstractEventLoop | None = None
        self._status: Future[int] = Future()
        self._closed: Future[None] = Future()
        self.collector: Future[BackgroundTasks] = Future()
        self.promised: Future[None] = Future()
        self.call: Future[None] = Future()

    async def run(self) -> None:
        """Serve it, and run its jobs."""
        self._loop = asyncio.get_running_loop()
        middleware = BackgroundTaskMiddleware(
            self._app, runner=get_runner(), run_on=configured_run_on()
        )
        try:
            await middleware(self._scope, _receive, _send)
        except BaseException as exc:
            if not self.collector.done():
                self.collector.set_exception(exc)
            elif not self.promised.done():
                self.promised.set_exception(exc)
            elif not isinstance(exc, Exception):
                raise

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.collector.set_result(BackgroundTasks.from_scope(scope))
        status = await asyncio.wrap_future(self._status)
        await send({"type": "http.response.start", "status": status, "headers": []})
        self.promised.set_result(None)
        await asyncio.wrap_future(self._closed)
        await send({"type": "http.response.body", "body": b""})

    def ended(self, task: asyncio.Task[None]) -> None:
        """Note the end of `run`, where that is a task of the request's own event loop."""
        if not task.cancelled():
            task.exception()
        self.call.set_result(None)

    def respond(self, status: int) -> None:
        """Tell that the view has returned."""
        self._status.set_result(status)

    def follow(self, response: HttpResponseBase) -> None:
        """Be there while a response streams, and told when it is closed."""
        if isinstance(response, StreamingHttpResponse) and not isinstance(response, FileResponse):
            parts_of = _parts_async if response.is_async else _parts
            parts: Any = response.streaming_content
            response.streaming_content = parts_of(self.collector.result(), self._thread, parts)
        # Where Django itself lists what is to be closed with a response, before it sends
        # the signal `request_finished`.
        cast("Any", response)._resource_closers.append(self.close)  # noqa: SLF001

    def fail(self, error: BaseException) -> None:
        """Tell that the view has failed, and there is no response."""
        self._status.set_exception(error)
        self._wait()

    def close(self) -> None:
        """Tell that the response has been sent, and wait for its jobs."""
        if not self._closed.done():
            self._closed.set_result(None)
            self._wait()

    def _wait(self) -> None:
        if isinstance(self._thread, RequestThread):
            self._thread.serve_until(self.call)
            self._thread.close()
        elif asyncio._get_running_loop() is not self._loop:  # noqa: SLF001
            self.call.result()


class _Portal:
    """An event loop in a thread of its own, one for the process, for requests without one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0

    def start(self, coroutine: Coroutine[Any, Any, None]) -> Future[None]:
        """Run a coroutine there, in a copy of the context of this call."""
        with self._lock:
            if self._loop is None or self._pid != os.getpid():  # a forked child has no threads
                self._loop = asyncio.new_event_loop()
                self._pid = os.getpid()
                # A daemon: what is put off must not keep the process from ending.
                threading.Thread(
                    target=self._loop.run_forever, name="asgi_bg requests", daemon=True
                ).start()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)


portal = _Portal()


@contextmanager
def within(tasks: BackgroundTasks, thread: Executor | None) -> Generator[None]:
    """Have `add_task` find the collector, and jobs find the thread, within this context."""
    token, standing = collecting.set(tasks), place.set(thread)
    try:
        yield
    finally:
        place.reset(standing)
        collecting.reset(token)


def _parts(
    tasks: BackgroundTasks, thread: Executor | None, parts: Iterable[bytes]
) -> Iterator[bytes]:
    """Make the parts of a stream as the view made the response (M8)."""
    iterator = iter(parts)
    while True:
        with within(tasks, thread):
            part = next(iterator, None)
        if part is None:
            return
        yield part


async def _parts_async(
    tasks: BackgroundTasks, thread: Executor | None, parts: AsyncIterable[bytes]
) -> AsyncIterator[bytes]:
    """As `_parts`, for a stream that is async."""
    iterator = aiter(parts)
    while True:
        with within(tasks, thread):
            part = await anext(iterator, None)
        if part is None:
            return
        yield part


async def _receive() -> Message:
    await asyncio.Event().wait()
    raise AssertionError


async def _send(message: Message) -> None:
    """Send nothing: Django sends the response."""


@contextmanager
def collect_tasks() -> Generator[BackgroundTasks]:
    """Collect tasks outside of requests: in management commands, in the shell, in tests.

    The jobs that are added in the block, with `asgi_bg.add_task` or to the collector that it
    gives, run when it ends, plain functions in this thread; it returns when they have ended.
    Where the block raises, they are dropped, but for those that run always (M5).

    ::

        with collect_tasks():
            import_orders(path)

    Raises:
        JournalError: Durable jobs could not be written (J2).
    """
    thread = RequestThread()
    served = Served({"type": "http", "method": "COLLECT", "path": "", "headers": []}, thread)
    served.call = portal.start(served.run())
    tasks = served.collector.result()
    with within(tasks, thread):
        try:
            yield tasks
        except BaseException as exc:
            served.fail(exc)
            raise
    served.respond(200)
    served.promised.result()
    served.close()
