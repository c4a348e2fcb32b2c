"""Where a recording gets between the app and its runner.

Nothing of the app is changed: seven methods are replaced while a test records, and put back. Jobs
are admitted as ever, and gathered until the response has ended; but none is written to a journal
or sent to an engine, and when one would start, it is laid aside.
"""

# ruff: noqa: SLF001 - this is the one place that reaches into the runner
from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from asgi_bg._job import Job
from asgi_bg._origin import Origin, Request
from asgi_bg._record import JobRecord
from asgi_bg._retry import backoff
from asgi_bg._runner import Runner
from asgi_bg._scheduling.admission import task_or_native
from asgi_bg._scheduling.attempts import Attempts
from asgi_bg._scheduling.ends import Ends
from asgi_bg._scheduling.lane import Lane
from asgi_bg._scheduling.parts import Parts
from asgi_bg._scheduling.scheduler import Scheduler
from asgi_bg._task import Task
from asgi_bg._types import Receive, Scope, Send
from asgi_bg.engines.base import NativeTask
from asgi_bg.middleware import BackgroundTaskMiddleware
from asgi_bg.testing._shelf import Shelf, parts_of
from asgi_bg.testing._store import INTERVAL, Store

if TYPE_CHECKING:
    from asgi_bg.engines._consumer import Consumer

AnyMethod: TypeAlias = "Callable[..., Any]"

AT_ONCE_TIMEOUT = 30.0
"""How long a request waits for its jobs where they run at once, in seconds."""

_lanes: ContextVar[list[Lane] | None] = ContextVar("asgi_bg_lanes", default=None)

_admit = Scheduler.admit
_withdraw = Ends.withdraw
_submit = Scheduler.submit
_leave_for_retry = Attempts.leave_for_retry
_soon = Scheduler.soon
_scheduler_of = Runner.scheduler
_serve = BackgroundTaskMiddleware.__call__


class Outside(NamedTuple):
    """What a runner has outside of this process, and does without while a test records."""

    parts: Parts
    consumer: Consumer | None
    consumes: bool


class Seam:
    """Sends what the runners of this process are given into a store; one at a time.

    Args:
        store: Where jobs are recorded.
    """

    _current: Seam | None = None

    def __init__(self, store: Store) -> None:
        self._store = store
        self._shelves: dict[int, Shelf] = {}
        self._outside: dict[Runner, Outside] = {}
        self._made: dict[Scheduler, Parts] = {}

    def open(self) -> None:
        """Replace the methods.

        Raises:
            RuntimeError: Somebody records already.
        """
        if Seam._current is not None:
            raise RuntimeError(
                "background tasks are being recorded already; use the recorder that is there, "
                "and no second one within it"
            )
        Seam._current = self
        for owner, name, method in self._replaced():
            setattr(owner, name, method)

    def close(self) -> None:
        """Put the methods back, and give the runners back what they did without."""
        Seam._current = None
        for owner, name, method in _ORIGINALS:
            setattr(owner, name, method)
        for runner, outside in self._outside.items():
            self._attach(runner, outside)

    def _replaced(self) -> tuple[tuple[type, str, AnyMethod], ...]:
        seam = self

        async def serve(
            middleware: BackgroundTaskMiddleware, scope: Scope, receive: Receive, send: Send
        ) -> None:
            # Test clients look whether this is an async function.
            await seam.serve(middleware, scope, receive, send)

        replacements: tuple[AnyMethod, ...] = (
            _as_method(self.admit),
            _as_method(self.withdraw),
            _as_method(self.submit),
            _as_method(self.leave_for_retry),
            start_now,
            _as_method(self.scheduler_of),
            serve,
        )
        return tuple(
            (owner, name, method)
            for (owner, name, _), method in zip(_ORIGINALS, replacements, strict=True)
        )

    # In place of the scheduler's, and of its rooms'.

    def admit(
        self,
        scheduler: Scheduler,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Request | Origin | None,
    ) -> tuple[Job, JobRecord | None]:
        """Admit a job, to the memory only, and record it."""
        plain, call = self._checked(scheduler, task, args, kwargs)
        job, record = _admit(scheduler, plain, *call, source)
        if record is not None:
            shelf = self._shelf_of(scheduler)
            self._store.note(record, task, args, kwargs, shelf, scheduler)
        return job, record

    def _checked(
        self,
        scheduler: Scheduler,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> tuple[Task[..., Any], tuple[tuple[Any, ...], dict[str, Any]]]:
        """Return a task that is not kept, and its call as a journal or an engine would bring it.

        Raises:
            NotSerializable, EngineError: They would not take it (J7, E5).
        """
        if not task.is_durable:
            return task, (args, kwargs)
        parts = self._made.get(scheduler, scheduler.parts)
        keeper, link = parts.keeper, parts.link
        if link is not None and not isinstance(task, NativeTask):
            link.engine.check(task)
        if keeper is not None:
            probe = JobRecord(task, args, kwargs, Context(), scheduler, None)
            keeper.saver.write_call(probe)
            if not isinstance(task, NativeTask):
                args, kwargs = probe.args, probe.kwargs
        plain = copy.copy(task)
        plain.is_durable = False
        return plain, (args, kwargs)

    def _shelf_of(self, scheduler: Scheduler) -> Shelf:
        parts = parts_of(scheduler)
        shelf = self._shelves.get(id(parts.registry))
        if shelf is None:
            shelf = self._shelves.setdefault(id(parts.registry), Shelf(parts, self._store.note))
        return shelf

    def withdraw(self, ends: Ends, record: JobRecord, reason: str) -> None:
        """Withdraw a job, and record that."""
        entry = self._store.entry_of(record)
        if entry is not None:
            entry.job.is_dropped = True
        _withdraw(ends, record, reason)

    def submit(self, scheduler: Scheduler, record: JobRecord) -> bool:
        """Lay a job aside instead of starting it, unless it is to run."""
        entry = self._store.entry_of(record)
        if entry is None or entry.may_start or entry.is_over:
            return _submit(scheduler, record)
        wait = self._store.wait_of(entry)
        if self._store.runs_at_once and wait == 0:
            entry.release()
            return _submit(scheduler, record)
        self._store.hold(entry, wait)
        return False

    def leave_for_retry(self, attempts: Attempts, record: JobRecord, delay: float) -> None:
        """Let a job wait for another attempt by the clock of the test.

        The longest wait that may come is waited, as which part of it would is left to chance.
        """
        entry = self._store.entry_of(record)
        if entry is None:
            _leave_for_retry(attempts, record, delay)
            return
        options = record.task.options
        base, cap = options.retry_delay, options.retry_max_delay
        longest = backoff(record.attempt, base=base, cap=cap, draw=1.0)
        _leave_for_retry(attempts, record, longest)
        if record.timer is not None:
            record.timer.cancel()
            record.timer = None
            attempts._drain.release()
        self._store.hold(entry, longest)

    # In place of the runner's and the middleware's.

    def scheduler_of(self, runner: Runner) -> Scheduler:
        """Return the scheduler of the running loop; a new one knows neither journal nor engine."""
        is_new = asyncio.get_running_loop() not in runner.loops
        if is_new and not any(each.is_supervised for each in runner._schedulers):
            self._detach(runner)
        scheduler = _scheduler_of(runner)
        outside = self._outside.get(runner)
        if is_new and outside is not None:
            self._made[scheduler] = outside.parts
            if outside.parts.link is not None:
                scheduler.task_of = task_or_native(outside.parts.link)
        return scheduler

    def _detach(self, runner: Runner) -> None:
        if runner in self._outside:
            return
        parts = runner._parts
        self._outside[runner] = Outside(parts, runner._consumer, runner.consumes)
        runner._use(parts._replace(keeper=None, link=None))
        runner._consumer, runner.consumes = None, False

    def _attach(self, runner: Runner, outside: Outside) -> None:
        for scheduler in runner._schedulers:
            if scheduler in self._made and not scheduler.is_supervised:
                runner._schedulers.remove(scheduler)
        if len(runner._schedulers):
            return  # somebody still serves with it, without what it would have to open first
        kept = outside.parts
        runner._use(runner._parts._replace(keeper=kept.keeper, link=kept.link))
        runner._consumer, runner.consumes = outside.consumer, outside.consumes

    async def serve(
        self,
        middleware: BackgroundTaskMiddleware,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        """Serve a connection, and its jobs with it where they run at once."""
        if not self._store.runs_at_once:
            await _serve(middleware, scope, receive, send)
            return
        lanes: list[Lane] = []
        token = _lanes.set(lanes)
        try:
            await _serve(middleware, scope, receive, send)
        finally:
            _lanes.reset(token)
            await _finished(lanes)


def _as_method(replacement: AnyMethod) -> AnyMethod:
    """Return a function that can stand in a class; a bound method would not get its object."""

    def method(owner: object, *args: Any) -> Any:
        return replacement(owner, *args)

    return method


async def _finished(lanes: list[Lane]) -> None:
    """Wait for the jobs of a request, and not for whatever else its runner does."""
    deadline = time.monotonic() + AT_ONCE_TIMEOUT
    while not all(lane._is_finished for lane in lanes):
        if time.monotonic() >= deadline:
            raise TimeoutError(
                f"the jobs of a request have not ended after {AT_ONCE_TIMEOUT:g} seconds, and "
                "run_at_once() waits for them; record() and drain() do so where they are told to"
            )
        await asyncio.sleep(INTERVAL)


def start_now(scheduler: Scheduler, lane: Lane) -> None:
    """Start the jobs of a request before its call returns: a client may look then."""
    lanes = _lanes.get()
    if lanes is not None:
        lanes.append(lane)
    _soon(scheduler, lane)
    scheduler.start_now()


_ORIGINALS: tuple[tuple[type, str, AnyMethod], ...] = (
    (Scheduler, "admit", _admit),
    (Ends, "withdraw", _withdraw),
    (Scheduler, "submit", _submit),
    (Attempts, "leave_for_retry", _leave_for_retry),
    (Scheduler, "soon", _soon),
    (Runner, "scheduler", _scheduler_of),
    (BackgroundTaskMiddleware, "__call__", _serve),
)
