"""A lane: the jobs of one request on their way, one after another or all at once (R2)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from asgi_bg._collector import BackgroundTasks
from asgi_bg._job import JobRecord
from asgi_bg._types import RunOn


class Dispatcher(Protocol):
    """Who starts the jobs of a lane."""

    loop: asyncio.AbstractEventLoop

    def submit(self, record: JobRecord, when_done: Callable[[], None]) -> bool:
        """Start a job when there is room; False if it leaves the lane at once."""
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

    __slots__ = (
        "_dispatcher",
        "_finished",
        "_is_complete",
        "_open",
        "_ordered",
        "_permits",
        "_queue",
        "_tasks",
        "_waiter",
    )

    def __init__(
        self,
        dispatcher: Dispatcher,
        tasks: BackgroundTasks,
        permits: Callable[[JobRecord], bool],
        *,
        ordered: bool,
    ) -> None:
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._permits = permits
        self._ordered = ordered
        self._queue: deque[JobRecord] = deque()
        self._open = 0
        self._is_complete = False
        self._finished = False
        self._waiter: asyncio.Future[None] | None = None
        tasks.listener = self._more
        dispatcher.hold()

    def complete(self) -> None:
        """Note that the app has returned: once the jobs are done, no more can come."""
        self._is_complete = True
        self._pump()

    def start(self) -> None:
        """Start the jobs while the app has not returned yet."""
        self._pump()

    async def finished(self) -> None:
        """Wait until all jobs that were added have left the lane (R7).

        The wait outlasts the cancellation of the request's own call, which is raised
        only when the jobs are done.
        """
        cancellation: asyncio.CancelledError | None = None
        while not self._finished:
            self._waiter = self._dispatcher.loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError as exc:
                cancellation = exc
        if cancellation is not None:
            raise cancellation

    def _more(self) -> None:
        self._dispatcher.call(self._pump)

    def _pump(self) -> None:
        self._take()
        while self._queue and not (self._ordered and self._open):
            self._open += 1
            if not self._dispatcher.submit(self._queue.popleft(), self._done):
                self._open -= 1
        if self._is_complete and not self._open and not self._finished:
            self._finish()

    def _take(self) -> None:
        unwanted: list[JobRecord] = []
        for record in self._tasks.take():
            if record.status.is_final:
                continue  # cancelled while it waited for the response
            if self._permits(record):
                self._queue.append(record)
            else:
                unwanted.append(record)
        if unwanted:
            self._dispatcher.drop(unwanted)

    def _done(self) -> None:
        self._open -= 1
        self._pump()

    def _finish(self) -> None:
        if not self._tasks.seal():
            # Added by another thread since `_take`; its `_more` is on the way.
            return
        self._finished = True
        self._tasks.listener = None
        self._dispatcher.release()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def permit_all(record: JobRecord) -> bool:
    """The rule for jobs that no response decides about."""
    return True


def rule_of(permits: Callable[[RunOn], bool], default: RunOn) -> Callable[[JobRecord], bool]:
    """The rule of a response, for each job by its task's ``run_on`` or the default (M5)."""

    def is_permitted(record: JobRecord) -> bool:
        return permits(record.task.options.run_on or default)

    return is_permitted
