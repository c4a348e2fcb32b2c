"""One attempt of a job run here and now, for workers that are not asynchronous.

Such a worker bounds the time of a call by a signal that raises in the main thread, or kills the
process; so the call is made in the very thread that the worker makes it in.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import random
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextvars import copy_context
from typing import Any

from asgi_bg._collector import BackgroundTasks, JobQueue, collecting
from asgi_bg._failures import describe_error, failure_of
from asgi_bg._job import CurrentJob, LogLine, Retry, running
from asgi_bg._retry import judge
from asgi_bg._scheduling.brought import declared_as, plain_result
from asgi_bg._task import Task
from asgi_bg.engines.base import Again
from asgi_bg.journal.codec import codec_of

Reporter = Callable[[float, str], object]
"""Told the fraction done, and the words."""

CANCEL_GRACE = 5.0
"""How long a coroutine may go on that is given up, in seconds."""


class Inline:
    """Runs jobs in the thread that asks for it, async ones on an event loop of that thread.

    Args:
        queue: Takes the jobs that the tasks add.
        overtime: What the worker raises into a call that takes too long.
        is_end: Whether an exception ends the worker rather than the job.
    """

    def __init__(
        self,
        queue: JobQueue,
        overtime: tuple[type[BaseException], ...] = (),
        is_end: Callable[[BaseException], bool] = lambda exc: isinstance(exc, KeyboardInterrupt),
    ) -> None:
        self._queue = queue
        self._overtime = overtime
        self._is_end = is_end

    def perform(
        self, name: str, envelope: Mapping[str, Any], attempt: int, report: Reporter
    ) -> Any:
        """Run one attempt of a job; as `asgi_bg.engines.Performer.perform`, but here and now."""
        task = declared_as(name, envelope["options"])
        args, kwargs = codec_of(task).decode(envelope["call"])
        job = InlineJob(envelope["id"], name, attempt, report)
        try:
            # The worker's own context may hold a span of its tracing.
            value = copy_context().run(self._call, job, task, args, kwargs)
        except BaseException as exc:
            if self._is_end(exc):
                raise
            raise self._failure_of(exc, task, job)  # noqa: B904 - mostly the same one
        return plain_result(task, value)

    def _call(
        self,
        job: InlineJob,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        running.set(job)
        collecting.set(BackgroundTasks(self._queue))
        if task.place == "loop":
            return run_here(_await_call(task, args, kwargs))
        value = task.func(*args, **kwargs)
        return run_here(_await(value)) if inspect.isawaitable(value) else value

    def _failure_of(
        self, exc: BaseException, task: Task[..., Any], job: InlineJob
    ) -> BaseException:
        """Return what to raise to the worker."""
        if isinstance(exc, self._overtime):
            exc = _took_longer(task).with_traceback(exc.__traceback__)
            exc.__suppress_context__ = True  # it says no more
        failure = failure_of(exc)
        error = failure.exception
        if not isinstance(error, Exception):  # such as SystemExit, which would end the worker
            error = RuntimeError(describe_error(error))
        draw = random.random()  # noqa: S311 - jitter
        match judge(failure, job.attempt, task.options, draw):
            case Retry(delay):
                return Again(delay, error)
            case _:
                return error


class InlineJob(CurrentJob):
    """The current job, as seen from a call in the worker's own thread."""

    __slots__ = ("_report", "attempt", "id", "task_name")

    def __init__(self, id: str, task_name: str, attempt: int, report: Reporter) -> None:
        self.id = id
        self.task_name = task_name
        self.attempt = attempt
        self._report = report

    @property
    def cancelled(self) -> bool:
        return False  # what ends an attempt is raised into it, or ends the process

    def report(self, fraction: float, message: str) -> None:
        """Tell the worker."""
        self._report(fraction, message)

    def keep(self, line: LogLine) -> None:
        """Leave it to the worker's own log."""


async def _await_call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Call an async task's function, for as long as its timeout says."""
    timeout = task.options.timeout
    if timeout is None:
        return await task.func(*args, **kwargs)
    call = asyncio.ensure_future(_await(task.func(*args, **kwargs)))
    try:
        await asyncio.wait((call,), timeout=timeout)
        if call.done():
            return call.result()
    finally:
        await _end(call)
    raise _took_longer(task)


async def _await(work: Any) -> Any:
    return await work


async def _end(call: asyncio.Future[Any]) -> None:
    """Cancel a call, unless it is done, and give it the time to see to that."""
    if not call.done():
        call.cancel()
        await asyncio.wait((call,), timeout=CANCEL_GRACE)
    if call.done() and not call.cancelled():
        call.exception()  # seen, so that asyncio does not speak of it


def _took_longer(task: Task[..., Any]) -> TimeoutError:
    return TimeoutError(f"task {task.name} took longer than {task.options.timeout} seconds")


class _OwnLoop:
    """An event loop that is closed with its thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.process = os.getpid()

    def __del__(self) -> None:
        self.loop.close()


class _Here(threading.local):
    own: _OwnLoop | None = None


_here = _Here()
_inherited: list[_OwnLoop] = []


def run_here(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end, on the event loop of this thread, which is kept.

    What breaks in from outside, as the exception of a signal does, cancels it.
    """
    own = _here.own
    if own is not None and own.process != os.getpid():
        _inherited.append(own)  # closing it here would disturb it in the process it is from
        own = None
    if own is None:
        own = _here.own = _OwnLoop()
    call = own.loop.create_task(work)
    try:
        return own.loop.run_until_complete(call)
    finally:
        if not call.done():
            with contextlib.suppress(Exception):
                own.loop.run_until_complete(_end(call))
