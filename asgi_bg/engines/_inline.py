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
import time
from collections.abc import Callable, Coroutine, Mapping
from contextvars import Context, copy_context
from typing import Any

from asgi_bg import events
from asgi_bg._collector import BackgroundTasks, JobQueue, collecting
from asgi_bg._execution.attempt import Attempt
from asgi_bg._failures import describe_error, failure_of
from asgi_bg._ids import instant_of
from asgi_bg._job import JobStatus, Retry, running
from asgi_bg._origin import Origin
from asgi_bg._record import JobRecord
from asgi_bg._retry import judge
from asgi_bg._scheduling.brought import declared_as, plain_result
from asgi_bg._task import Task
from asgi_bg.engines._inline_home import InlineHome, Reporter
from asgi_bg.engines._subscribers import Subscribers
from asgi_bg.engines.base import Again
from asgi_bg.journal.codec import codec_of

CANCEL_GRACE = 5.0
"""How long a coroutine may go on that is given up, in seconds."""


class Inline:
    """Runs jobs in the thread that asks for it, async ones on an event loop of that thread.

    Args:
        queue: Takes the jobs that the tasks add.
        overtime: What the worker raises into a call that takes too long.
        is_end: Whether an exception ends the worker rather than the job.
        subscribers: Who is told of what happens to the jobs.
    """

    def __init__(
        self,
        queue: JobQueue,
        overtime: tuple[type[BaseException], ...] = (),
        is_end: Callable[[BaseException], bool] = lambda exc: isinstance(exc, KeyboardInterrupt),
        subscribers: Subscribers | None = None,
    ) -> None:
        self._queue = queue
        self._overtime = overtime
        self._is_end = is_end
        self._subscribers = subscribers or Subscribers()

    def perform(
        self, name: str, envelope: Mapping[str, Any], attempt: int, report: Reporter
    ) -> Any:
        """Run one attempt of a job; as `asgi_bg.engines.Performer.perform`, but here and now."""
        task = declared_as(name, envelope["options"])
        home = InlineHome(self._subscribers.events, report)
        record = _record_of(task, envelope, attempt, home)
        try:
            # The worker's own context may hold a span of its tracing.
            value = copy_context().run(self._call, record)
        except BaseException as exc:
            if self._is_end(exc):
                raise
            raise self._failure_of(exc, record, home)  # noqa: B904 - mostly the same one
        record.value = value
        record.end(JobStatus.succeeded)
        home.tell(events.SUCCEEDED, record)
        return plain_result(task, value)

    def _call(self, record: JobRecord) -> Any:
        task, args, kwargs = record.task, record.args, record.kwargs
        attempt = Attempt(record, record.run)
        running.set(attempt)
        tasks = BackgroundTasks(self._queue)
        tasks.source = record.source
        collecting.set(tasks)
        attempt.begin()
        attempt.announce()
        if task.place == "loop":
            return run_here(_await_call(task, args, kwargs))
        value = task.func(*args, **kwargs)
        return run_here(_await(value)) if inspect.isawaitable(value) else value

    def _failure_of(self, exc: BaseException, record: JobRecord, home: InlineHome) -> BaseException:
        """Conclude an attempt that failed, and return what to raise to the worker."""
        task = record.task
        if isinstance(exc, self._overtime):
            exc = _took_longer(task).with_traceback(exc.__traceback__)
            exc.__suppress_context__ = True  # it says no more
        failure = failure_of(exc)
        record.fail(failure)
        error = failure.exception
        if not isinstance(error, Exception):  # such as SystemExit, which would end the worker
            error = RuntimeError(describe_error(error))
        draw = random.random()  # noqa: S311 - jitter
        match judge(failure, record.attempt, task.options, draw):
            case Retry(delay):
                record.remember(record.error, record.traceback)
                record.status = JobStatus.queued
                record.run_after = time.time() + delay
                home.tell(events.RETRYING, record)
                error = Again(delay, error)
            case _:
                record.end(JobStatus.failed)
                home.tell(events.FAILED, record)
        record.exception = None  # the frames of which hold the record
        return error


def _record_of(
    task: Task[..., Any], envelope: Mapping[str, Any], attempt: int, home: InlineHome
) -> JobRecord:
    """Return a job as this worker has got it, for one attempt."""
    args, kwargs = codec_of(task).decode(envelope["call"])
    trace = envelope.get("trace")
    source = Origin(trace=trace) if isinstance(trace, str) else None
    record = JobRecord(task, args, kwargs, Context(), home, source)
    record.trace = None  # that of the envelope counts
    record.become(envelope["id"])
    record.queued_at = instant_of(record.id) or record.queued_at
    record.attempt = attempt
    record.run = 1
    record.has_slot = True  # the worker's
    return record


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
