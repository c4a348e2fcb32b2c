"""Calls on the event loop: async tasks, and whatever else is awaited (R1)."""

from __future__ import annotations

import asyncio
import sys
from asyncio.tasks import _enter_task, _leave_task  # documented, for task implementations
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import Context
from types import CoroutineType, TracebackType
from typing import Any, cast

from asgi_bg._execution._watchdog import Watchdog
from asgi_bg._failures import failure_of
from asgi_bg._job import Cancelled, Failed, Interrupted, Outcome, Succeeded
from asgi_bg._record import JobRecord

Call = Callable[[JobRecord], Awaitable[Any]]


class Coroutines:
    """The attempts that run, or are awaited, on one event loop.

    A job's first step is taken at once, without a turn of the loop: many jobs have no
    second one. It is taken inside an asyncio task, the job's carrier, which goes on with
    the job when it has to wait. So `asyncio.current_task`, timeouts, cancellation and
    contexts are in a job what they are in any task. (What Python 3.12 calls an eager task,
    except that jobs which never wait share a carrier, and are never registered.)
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, settle: Callable[[JobRecord, Outcome], None]
    ) -> None:
        self.loop = loop
        self.settle = settle
        self.running: dict[asyncio.Task[None], JobRecord] = {}
        self.stepping: JobRecord | None = None
        self._watchdog = Watchdog(self)
        self._spare: _Carrier | None = None

    def start(self, record: JobRecord, call: Call) -> Outcome | None:
        """Await ``call(record)``, in the context of its `add_task`.

        Returns:
            The outcome, if it did not have to wait; otherwise that is settled later.
        """
        if self.stepping is not None:
            # A job starts another: not within its own step, or they could nest for ever.
            self.loop.call_soon(self._start_later, record, record.run, call)
            return None
        if not self._watchdog.is_awake:
            self._watchdog.wake()
        carrier = self._spare
        if carrier is None or not carrier.is_usable:
            carrier = self._spare = _Carrier(self)
        context = record.own_context()
        task = record.handle = carrier.task
        outer = asyncio.current_task(self.loop)
        if outer is not None:
            _leave_task(self.loop, outer)
        _enter_task(self.loop, task)
        self.stepping = record
        try:
            outcome = context.run(carrier.first_step, record, call)
        finally:
            self.stepping = None
            _leave_task(self.loop, task)
            if outer is not None:
                _enter_task(self.loop, outer)
        if outcome is None:
            self._spare = None
            self.running[task] = record
            carrier.carry_on(record, context)
        else:
            # Its context leads to the record, and the task is kept: no cycle may stay.
            record.handle = None
        return outcome

    def _start_later(self, record: JobRecord, run: int, call: Call) -> None:
        if record.finished_at is not None or record.run != run:
            return  # cancelled in the meantime
        outcome = self.start(record, call)
        if outcome is not None:
            self.settle(record, outcome)

    def finish(self, task: asyncio.Task[None], record: JobRecord, outcome: Outcome) -> None:
        """Settle a job that had to wait."""
        record.handle = None
        del self.running[task]
        self.settle(record, outcome)

    def close(self) -> None:
        """Let the spare carrier end, and watch no more."""
        if self._spare is not None and not self.loop.is_closed():
            self._spare.task.cancel()
        self._spare = None
        self._watchdog.close()


class _Carrier(Coroutine[Any, None, None]):
    """The coroutine of a task that carries jobs: each step of the task is one of the job's.

    A job that had to wait is the last its carrier carries. A task, after all, can be known
    by what it waited for: by callbacks, by libraries that keep things per task.
    """

    def __init__(self, coroutines: Coroutines) -> None:
        self._coroutines = coroutines
        self._record: JobRecord | None = None
        self._coroutine: Coroutine[Any, Any, Any] | None = None
        self._context: Context | None = None
        self._awaited: Any = None
        self._is_waiting = False
        self._parked: asyncio.Future[None] = coroutines.loop.create_future()
        # In a context of its own: the one here and now is that of some request.
        self.task: asyncio.Task[None] = Context().run(
            coroutines.loop.create_task, self, name="asgi_bg job"
        )

    @property
    def is_usable(self) -> bool:
        """Whether it can carry a job; not if somebody has cancelled its task."""
        if self._is_waiting:
            return not self._parked.done()  # what cancelling a waiting task does at once
        return not (self.task.done() or _is_to_be_cancelled(self.task))

    def first_step(self, record: JobRecord, call: Call) -> Outcome | None:
        """Begin a job, in its context and with this as the current task; None if it waits."""
        try:
            coroutine = _as_coroutine(call(record))
            self._awaited = coroutine.send(None)
        except StopIteration as stop:
            return Succeeded(stop.value)
        except BaseException as exc:
            return _outcome_of(record, exc)
        self._coroutine = coroutine
        return None

    def carry_on(self, record: JobRecord, context: Context) -> None:
        """Go on with a job that waits."""
        self._record = record
        self._context = context
        if not self._parked.done():
            self._parked.set_result(None)

    def send(self, value: None) -> Any:
        """Take the next step of the task."""
        if self._record is None:
            # Wait for a job, the way a future's own __await__ does it.
            self._parked._asyncio_future_blocking = True  # noqa: SLF001 - asyncio's protocol
            self._is_waiting = True
            return self._parked
        if self._coroutine is None:
            raise StopIteration
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            return awaited  # what the first step has come to wait for
        return self._step(self._coroutine.send, value)

    def throw(
        self,
        kind: Any,
        error: BaseException | object = None,
        traceback: TracebackType | None = None,
    ) -> Any:
        """Take the next step with an exception: what was awaited raised, or a cancellation."""
        exc = kind if isinstance(kind, BaseException) else kind()
        if self._coroutine is None:
            raise exc
        awaited: asyncio.Future[Any] | None
        awaited, self._awaited = self._awaited, None
        if asyncio.isfuture(awaited) and awaited.cancel():
            # Cancelled before the task could hear of what the first step waits for.
            return awaited
        return self._step(self._coroutine.throw, exc)

    def close(self) -> None:
        """Close the job's coroutine, as the loop goes away."""
        if self._coroutine is not None and self._context is not None:
            self._context.run(self._coroutine.close)

    def __await__(self) -> Generator[Any, None, None]:
        raise TypeError("a carrier is driven by its task, and not awaited")

    def _step(self, step: Callable[[Any], Any], value: Any) -> Any:
        assert self._record is not None  # noqa: S101 - nothing is stepped before
        assert self._context is not None  # noqa: S101
        outcome: Outcome
        try:
            return self._context.run(step, value)
        except StopIteration as stop:
            outcome = Succeeded(stop.value)
        except BaseException as exc:
            outcome = _outcome_of(self._record, exc)
        self._coroutine = self._context = None
        self._coroutines.finish(self.task, self._record, outcome)
        raise StopIteration


def _is_to_be_cancelled(task: asyncio.Task[None]) -> bool:
    """Whether somebody has called ``cancel()`` on a task that has not heard of it yet."""
    if sys.version_info >= (3, 11):
        return task.cancelling() > 0
    # Python 3.10 has no other way to tell.
    must_cancel: bool = task._must_cancel  # noqa: SLF001
    return must_cancel


def _as_coroutine(work: Any) -> Coroutine[Any, Any, Any]:
    # The first look is there because the second is slow.
    if type(work) is CoroutineType or isinstance(work, Coroutine):
        return work  # pyright: ignore[reportUnknownVariableType] - a narrowed Any
    return _wait_for(cast("Awaitable[Any]", work))


async def _wait_for(work: Awaitable[Any]) -> Any:
    return await work


def _outcome_of(record: JobRecord, exc: BaseException) -> Outcome:
    match record.verdict:
        case Failed(exception):
            return failure_of(exception.with_traceback(exc.__traceback__))
        case Cancelled() | Interrupted() as ended:
            return ended
    if isinstance(exc, asyncio.CancelledError) and _is_cancelled_from_outside(record):
        return Cancelled("its asyncio task was cancelled")
    return failure_of(exc)


def _is_cancelled_from_outside(record: JobRecord) -> bool:
    """Whether somebody called ``cancel()``; a task may as well raise the error itself."""
    if sys.version_info >= (3, 11):
        return record.handle is not None and record.handle.cancelling() > 0
    return False
