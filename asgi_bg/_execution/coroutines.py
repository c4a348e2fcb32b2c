"""Calls on the event loop: each job is an asyncio task of its own (R1).

So `asyncio.current_task`, timeouts, cancellation and contexts behave in a job as they do in
any task, and a job that misuses its task harms no other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from asgi_bg._job import Cancelled, Failed, Outcome, Succeeded
from asgi_bg._record import JobRecord, failure_of
from asgi_bg._watchdog import Watchdog


class Coroutines:
    """The attempts that run or are awaited on one event loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settle: Callable[[JobRecord, Outcome], None]
    ) -> None:
        self._loop = loop
        self._settle = settle
        self.tasks: dict[asyncio.Task[None], JobRecord] = {}
        self._watchdog = Watchdog(loop, self.tasks)

    def start(self, record: JobRecord, call: Callable[[JobRecord], Awaitable[Any]]) -> None:
        """Await ``call(record)`` in a task of its own, in the context of its `add_task`."""
        work = self._see_through(record, call)
        if sys.version_info >= (3, 11):
            task = self._loop.create_task(work, context=record.own_context())
        else:
            task = record.own_context().run(self._loop.create_task, work)
        record.handle = task
        self.tasks[task] = record
        if not self._watchdog.is_awake:
            self._watchdog.wake()

    async def _see_through(
        self, record: JobRecord, call: Callable[[JobRecord], Awaitable[Any]]
    ) -> None:
        outcome: Outcome
        try:
            outcome = Succeeded(await call(record))
        except BaseException as exc:
            outcome = _outcome_of(record, exc)
        # Taken away, as the task's context leads to the record: no reference cycle stays.
        handle, record.handle = record.handle, None
        if handle is not None:
            del self.tasks[handle]
        self._settle(record, outcome)

    def close(self) -> None:
        """Watch no more."""
        self._watchdog.close()


def _outcome_of(record: JobRecord, exc: BaseException) -> Outcome:
    match record.verdict:
        case Failed(exception):
            return failure_of(exception.with_traceback(exc.__traceback__))
        case Cancelled() as cancelled:
            return cancelled
    if isinstance(exc, asyncio.CancelledError) and _is_cancelled_from_outside(record):
        return Cancelled("its asyncio task was cancelled")
    return failure_of(exc)


def _is_cancelled_from_outside(record: JobRecord) -> bool:
    """Whether somebody called ``cancel()``; a task may as well raise the error itself."""
    if sys.version_info >= (3, 11):
        return record.handle is not None and record.handle.cancelling() > 0
    return False
