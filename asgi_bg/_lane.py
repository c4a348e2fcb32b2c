"""A lane: the jobs of one request on their way, one after another or all at once (R2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from asgi_bg._collector import BackgroundTasks
from asgi_bg._record import JobRecord


class Dispatcher(Protocol):
    """Who starts the jobs of a lane."""

    loop: asyncio.AbstractEventLoop

    def submit(self, record: JobRecord, when_done: Callable[[], None]) -> bool:
        """Start a job as soon as there is room; False if it leaves the lane at once."""
        ...

    def drop(self, records: list[JobRecord]) -> None:
        """End jobs that are not to run on this response (M5)."""
        ...

    def call(self, function: Callable[[], None]) -> None:
        """Call a function in the loop's thread: here and now, or soon."""
        ...

    def hold(self) -> None:
        """Keep `drain` from ending until `release`."""
        ...

    def release(self) -> None:
        """End a `hold`."""
        ...


class Lane:
    """Runs what a collector gathers until the app has returned and nothing is left.

    A job that is put off, or waits for a retry, leaves the lane: it stops nothing (R3).
    """

    _at_once = False
    _open = 0
    _is_complete = False
    _is_finished = False
    _is_pumping = False
    _waiter: asyncio.Future[None] | None = None

    def __init__(self, dispatcher: Dispatcher, tasks: BackgroundTasks, *, ordered: bool) -> None:
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._queue: list[JobRecord] = []
        if not ordered:
            self._at_once = True
        dispatcher.hold()
        tasks.listener = self._more

    def complete(self) -> None:
        """Note that the app has returned: once the jobs are done, no more can come."""
        self._is_complete = True
        self.pump()

    async def finished(self) -> None:
        """Wait until all jobs that were added have left the lane (R7).

        The wait outlasts the cancellation of the request's own call, which is raised
        only when the jobs are done.
        """
        cancellation: asyncio.CancelledError | None = None
        while not self._is_finished:
            self._waiter = self._dispatcher.loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError as exc:
                cancellation = exc
        if cancellation is not None:
            raise cancellation

    def _more(self) -> None:
        self._dispatcher.call(self.pump)

    def pump(self) -> None:
        """Start what may start; called whenever something has changed."""
        if self._is_pumping:
            return  # a job that ended while it was started: the loop below goes on
        self._is_pumping = True
        while self._at_once or not self._open:
            if not self._queue and not self._take():
                break
            record = self._queue.pop()
            self._open += 1
            if not self._dispatcher.submit(record, self._done):
                self._open -= 1
        self._is_pumping = False
        # Sealing fails if another thread has added a job by now; its call of `_more` follows.
        if self._is_complete and not self._open and not self._is_finished and self._tasks.seal():
            self._finish()

    def _take(self) -> bool:
        """Take up what has been gathered, the last first; whether anything is to run."""
        gathered = self._tasks.take()
        if not gathered:
            return False
        unwanted: list[JobRecord] = []
        for record in reversed(gathered):
            if record.status.is_final:
                continue  # cancelled while it waited for the response
            if self._tasks.wants(record):
                self._queue.append(record)
            else:
                unwanted.append(record)
        if unwanted:
            self._dispatcher.drop(unwanted[::-1])
        return bool(self._queue)

    def _done(self) -> None:
        self._open -= 1
        self.pump()

    def _finish(self) -> None:
        self._is_finished = True
        self._tasks.listener = None
        self._dispatcher.release()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
