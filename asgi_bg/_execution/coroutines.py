"""Calls on the event loop: each job is an asyncio task of its own (R1).

So `asyncio.current_task`, timeouts, cancellation and contexts behave in a job as they do in
any task, and a job that misuses its task harms no other.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from asgi_bg._attempt import Attempt, failure_of
from asgi_bg._job import Cancelled, Failed, Outcome, Succeeded, running
from asgi_bg._watchdog import Watchdog


class Coroutines:
    """The attempts that run or are awaited on one event loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settle: Callable[[Attempt, Outcome], None],
    ) -> None:
        self._loop = loop
        self._settle = settle
        self.tasks: dict[asyncio.Task[None], Attempt] = {}
        self._watchdog = Watchdog(loop, self.tasks)

    def start(self, attempt: Attempt, call: Callable[[Attempt], Awaitable[Any]]) -> None:
        """Await ``call(attempt)`` in a task of its own, in the context of its `add_task`."""
        work = self._see_through(attempt, call)
        context = attempt.record.context.copy()
        if sys.version_info >= (3, 11):
            task = self._loop.create_task(work, context=context)
        else:
            task = context.run(self._loop.create_task, work)
        attempt.handle = task
        self.tasks[task] = attempt
        self._watchdog.wake()

    async def _see_through(
        self, attempt: Attempt, call: Callable[[Attempt], Awaitable[Any]]
    ) -> None:
        outcome: Outcome
        try:
            outcome = Succeeded(await call(attempt))
        except BaseException as exc:
            outcome = _outcome_of(attempt, exc)
        # Taken away, as the task's context leads to the attempt: no reference cycle stays.
        handle, attempt.handle = attempt.handle, None
        if handle is not None:
            del self.tasks[handle]
        self._settle(attempt, outcome)

    def close(self) -> None:
        """Watch no more."""
        self._watchdog.close()


def call_async(attempt: Attempt) -> Awaitable[Any]:
    """Begin an attempt at an async task."""
    called: Awaitable[Any] = attempt.call()
    return called


def go_on_with(value: Awaitable[Any]) -> Callable[[Attempt], Awaitable[Any]]:
    """Go on with what a plain function returned, as ``lambda: send(mail)`` does."""

    def call(attempt: Attempt) -> Awaitable[Any]:
        running.set(attempt)
        return value

    return call


def _outcome_of(attempt: Attempt, exc: BaseException) -> Outcome:
    match attempt.verdict:
        case Failed(exception):
            return failure_of(exception.with_traceback(exc.__traceback__), ours=1)
        case Cancelled() as cancelled:
            return cancelled
    if isinstance(exc, asyncio.CancelledError) and _is_cancelled_from_outside(attempt):
        return Cancelled("its asyncio task was cancelled")
    return failure_of(exc, ours=1)


def _is_cancelled_from_outside(attempt: Attempt) -> bool:
    """Whether somebody called ``cancel()``; a task may as well raise the error itself."""
    if sys.version_info >= (3, 11):
        return attempt.handle is not None and attempt.handle.cancelling() > 0
    return False
