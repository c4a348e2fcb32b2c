"""Runs jobs on one event loop: slots, timeouts, retries, cancellation, drain."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import copy_context
from functools import partial
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from asgi_bg import events
from asgi_bg._collector import BackgroundTasks
from asgi_bg._deadlines import Deadlines
from asgi_bg._execution.coroutines import Coroutines, go_on_with
from asgi_bg._execution.functions import Functions
from asgi_bg._execution.threads import ThreadPool
from asgi_bg._intake import Intake
from asgi_bg._job import (
    Cancelled,
    Failed,
    Interrupted,
    Job,
    JobInfo,
    JobStatus,
    Outcome,
    Retry,
    Succeeded,
)
from asgi_bg._keeper import Keeper, Saving
from asgi_bg._lane import Lane, run_apart
from asgi_bg._logs import keep_logs
from asgi_bg._messages import extras, log_failure, log_unfinished, name_all
from asgi_bg._origin import Origin, Request
from asgi_bg._perform import perform
from asgi_bg._record import NO_KEYWORDS, JobRecord, failure_of
from asgi_bg._registry import Registry
from asgi_bg._retry import judge
from asgi_bg._rows import handed_over, kept_of, message_of
from asgi_bg._slots import Slots
from asgi_bg._task import Task, as_task, declared_task
from asgi_bg.engines._link import Link
from asgi_bg.engines._outbox import Outbox
from asgi_bg.engines.base import NativeTask
from asgi_bg.exceptions import EngineError, QueueFull

if TYPE_CHECKING:
    from asgi_bg._execution.processes import ProcessPool

logger = logging.getLogger("asgi_bg")

# Looking a member of an enum up takes longer than most of what is done with it here.
_RUNNING = JobStatus.running
_SUCCEEDED = JobStatus.succeeded

RETURN_TIMEOUT = 5.0
"""How many seconds after the end of a response its jobs start, returned the app or not (M4)."""

BATCH = 16
"""The jobs of how many requests are started in a row."""

CANCEL_GRACE = 1.0
"""How many seconds cancelled jobs get to clean up when a runner is closed."""


class Limits(NamedTuple):
    """What bounds the jobs of a runner; explained at `Runner`."""

    max_jobs: int
    max_processes: int | None
    max_queued: int
    timeout: float | None
    ordered: bool


class Scheduler:
    """Takes the jobs of one event loop from their admission to their end.

    All methods belong to the loop's thread, but for `admit`, `withdraw`, `cancel`, `call`
    and those of `asgi_bg._record.Home`.
    """

    def __init__(
        self,
        limits: Limits,
        registry: Registry,
        threads: ThreadPool,
        told: events.Events,
        keeper: Keeper | None,
        link: Link | None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.owner = f"pid:{os.getpid()}"
        self.is_supervised = False
        self.ordered = limits.ordered
        self.thread = threading.get_ident()
        self._limits = limits
        self._registry = registry
        self._events = told
        self._keeper = keeper
        self._link = link
        self.forwards = link is not None
        self.task_of: Callable[[Any], Task[..., Any]] = (
            as_task if link is None else self._task_or_native
        )
        self._outbox: Outbox | None = None
        self._slots = Slots(limits.max_jobs, self._start, self._resume, self.loop.call_soon)
        self._coroutines = Coroutines(self.loop, self._settle)
        self._functions = Functions(self.loop, threads, self._settle)
        self._processes: ProcessPool | None = None
        self.hears_begins = bool(told.handlers) or limits.timeout is not None
        self.returns = Deadlines(self.loop, RETURN_TIMEOUT)
        self._ready: list[Lane] = []
        self._holds = 0
        self._drained: list[asyncio.Future[None]] = []
        keep_logs()
        if link is not None:
            link.attach(self.loop)
            if keeper is not None and keeper.has_disk:
                self._outbox = Outbox(link, self, message_of)
        if keeper is not None:
            keeper.attach(Intake(self, keeper, registry, told))

    # Admission.

    def _task_or_native(self, func: Any) -> Task[..., Any]:
        """Return the task that something is, which may be one of the engine's own (E4)."""
        if type(func) is not FunctionType and not isinstance(func, Task):
            native = self.link.engine.native(func)
            if native is not None:
                return NativeTask(native)
        return as_task(cast("Callable[..., Any]", func))

    def admit(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Request | Origin | None,
    ) -> tuple[Job, JobRecord | None]:
        """Return a new job and its record, or the job that has the task's key already and None.

        Raises:
            QueueFull: ``max_queued`` jobs wait (R8); not of jobs that are kept in a journal.
            NotSerializable: The call is to be kept or made elsewhere, and cannot be.
            EngineError: The engine lacks what the task asks for (E5).
        """
        if task.is_durable and self._keeper is not None:
            return self._admit_kept(task, args, kwargs, source)
        waiting = len(self._registry.unfinished) - self._slots.used
        if self._keeper is not None:
            waiting -= len(self._keeper.held)
        if waiting >= self._limits.max_queued:
            raise QueueFull(
                f"{waiting} jobs wait already, which is the limit (max_queued="
                f"{self._limits.max_queued}), so task {task.name} was not added; answer 503, "
                "or raise the limit if there is memory for more"
            )
        record = JobRecord(task, args, kwargs or NO_KEYWORDS, copy_context(), self, source)
        if task.is_special:
            self.prepare(record)
            if task.options.key is not None:
                holder = self._registry.hold_key(task.options.key, record)
                if holder is not record:
                    return holder, None
        return self._enter(record)

    def _admit_kept(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        source: Request | Origin | None,
    ) -> tuple[Job, JobRecord | None]:
        if self._link is not None:
            self._check_for(self._link, task)
        record = JobRecord(task, args, kwargs, copy_context(), self, source)
        holder = self.keeper.keep(record, declared_task(task.name))
        if holder is not record:
            return holder, None
        try:
            if task.is_special:
                if self._link is None:
                    self.prepare(record)
                else:
                    record.run_after = _due(record)
        except BaseException:
            self.keeper.dropped(record)
            self._registry.free_key(record)
            raise
        return self._enter(record)

    def _check_for(self, link: Link, task: Task[..., Any]) -> None:
        if not isinstance(task, NativeTask):
            link.engine.check(task)
        if task.options.key is not None and self._outbox is None:
            raise EngineError(
                f"task {task.name} asks for key=, which needs a journal beside the engine "
                f"{link.engine.name}; give the runner one, with journal="
            )

    def _enter(self, record: JobRecord) -> tuple[Job, JobRecord]:
        self._registry.unfinished[record] = None
        if self._events.handlers:
            self._events.emit(events.QUEUED, record)
        return record, record

    def prepare(self, record: JobRecord) -> None:
        """Do what few tasks ask for: another process, a wait."""
        task = record.task
        if task.place == "process":
            record.packed = self._process_pool().pack(task, record.args, record.kwargs)
        record.run_after = _due(record)

    def _process_pool(self) -> ProcessPool:
        if self._processes is None:
            # Imported here, as a third of the package's import time serves few.
            from asgi_bg._execution.processes import ProcessPool

            self._processes = ProcessPool(self._limits.max_processes)
        return self._processes

    def withdraw(self, record: JobRecord, reason: str) -> None:
        """End a job that was admitted and is not to run."""
        self._registry.free_key(record)
        self._end_early(record, events.DROPPED, reason)

    def drop(self, records: list[JobRecord]) -> None:
        """End jobs that are not to run on their response, with one warning (M5)."""
        dropped = [r for r in records if r.finished_at is None and not r.is_loose]
        for record in dropped:
            self.withdraw(record, "dropped: its response did not end as its run_on asks")
        if dropped:
            logger.warning(
                "%d job(s) dropped, as their response did not end as their run_on asks: %s",
                len(dropped),
                name_all(dropped),
            )

    # The way of a job into the journal, and out of it.

    @property
    def keeper(self) -> Keeper:
        """Who keeps jobs in the journal, for those that are."""
        assert self._keeper is not None  # noqa: S101 - it has made them what they are
        return self._keeper

    @property
    def link(self) -> Link:
        """The way to the engine, for jobs that are handed over to it."""
        assert self._link is not None  # noqa: S101 - there is one, or no such job
        return self._link

    def save(self, tasks: BackgroundTasks) -> Saving:
        """Have the new jobs of a collector written, before a response goes on (J1)."""
        return self.keeper.save(tasks, self.loop)

    def save_late(self, tasks: BackgroundTasks) -> None:
        """Have the new jobs of a collector written, for which no response waits."""
        self.keeper.save_late(tasks)

    def refuse(self, saving: Saving, reason: str) -> None:
        """End jobs that could not be written (J2)."""
        for record in saving.records:
            if record.finished_at is None:
                self.withdraw(record, reason)

    def begins(self, record: JobRecord) -> None:
        """Note that an attempt of a job that is kept begins; from any thread."""
        self.keeper.begins(record)

    def returned(self, record: JobRecord, value: Any) -> None:
        """Note what the function of a job that is kept has returned, in its thread."""
        if not inspect.iscoroutine(value):  # whose end is the job's, as in `_settle`
            self.keeper.returned(record, value)

    async def result_of(self, id: str, timeout: float | None) -> Any:
        """Wait for the end of a job that is kept, whoever runs it."""
        return await self.keeper.archive.result(id, timeout)

    async def info_of(self, id: str) -> JobInfo:
        """Return what is known of a job that is kept, whoever runs it."""
        return await self.keeper.archive.info(id)

    async def forwarded(self) -> None:
        """Wait until the jobs of this loop were handed over, or the engine is away."""
        if self._outbox is not None:
            await self._outbox.settled()

    async def written(self) -> None:
        """Wait until all jobs that were added so far are kept."""
        if self._keeper is not None:
            await self._keeper.archive.written()

    def send_away(self, record: JobRecord) -> None:
        """Let a job wait in the journal, for this process or another one."""
        self.keeper.give_back(record)

    # The way of a job to an engine, and from one.

    def _forward(self, record: JobRecord) -> None:
        if self._outbox is None:
            self.handed_over([record])  # it was acknowledged before its response went on
        elif self.keeper.has_room_for(record):
            self._outbox.add(record)

    def handed_over(self, records: Sequence[JobRecord]) -> None:
        """Let go of jobs that the engine has now."""
        engine = self.link.engine.name
        records = [r for r in records if r.finished_at is None and not r.is_away]
        self.keeper.hand_over(records, engine)
        self._registry.handed_over += len(records)
        if self._events.handlers:
            for record in records:
                self._events.emit(events.HANDED_OVER, record, partial(handed_over, engine=engine))

    def refused(self, record: JobRecord, reason: str) -> None:
        """Fail a job that the engine will never take."""
        if record.finished_at is None and not record.is_away:
            engine = self.link.engine.name
            error = EngineError(f"the engine {engine} does not take the job: {reason}")
            record.fail(failure_of(error))
            self._end(record, JobStatus.failed, events.FAILED)
            logger.error(
                "task %s cannot be handed over: %s (job %s)",
                record.task_name,
                error,
                record.id,
                extra=extras(record),
            )

    async def perform(self, name: str, envelope: Mapping[str, Any], attempt: int) -> Any:
        """Run one attempt of a job that an engine brings; see `asgi_bg.engines.Performer`."""
        return await perform(self, self._registry, name, envelope, attempt)

    # The way of a job: submitted or put off, started, settled.

    def submit(self, record: JobRecord) -> bool:
        """Start a job as soon as there is room; False if it has ended, or is put off."""
        if record.finished_at is not None or record.is_away:
            return False
        if record.kept is not None and self.forwards:
            self._forward(record)
            return False
        if record.run_after is not None and record.run_after > time.time():
            if record.kept is None or self.keeper.may_wait_here(record):
                self._put_off(record)
            return False
        if record.kept is not None and not self.keeper.has_room_for(record):
            return False
        self._slots.request(record)
        return record.has_slot or record.turn > 0

    def _put_off(self, record: JobRecord) -> None:
        # Event loops promise timers of up to a day; a longer wait is waited in parts.
        wait = min((record.run_after or 0.0) - time.time(), 86_400.0)
        record.timer = self.loop.call_later(wait, self._submit_loose, record)

    def _submit_loose(self, record: JobRecord) -> None:
        """Submit a job that belongs to no lane, or has left it."""
        record.timer = None
        run_apart(self, [record])

    def _start(self, record: JobRecord) -> None:
        record.attempt += 1
        record.run += 1
        match record.task.place:
            case "loop":
                outcome = self._coroutines.start(record, JobRecord.call)
            case "thread":
                self._functions.start(record)
                return
            case "process":
                outcome = self._coroutines.start(record, self._process_pool().run)
        if outcome is not None:
            self._conclude(record, outcome)

    def _resume(self, record: JobRecord) -> None:
        """Start a job that has waited for a slot."""
        self._start(record)
        if not record.has_slot:
            self._leave(record)

    def _settle(self, record: JobRecord, outcome: Outcome) -> None:
        """Conclude an attempt that others have waited for, and tell them."""
        value: Any = outcome.value if type(outcome) is Succeeded else None
        if record.task.place == "thread" and inspect.iscoroutine(value):
            # As from `lambda: send(mail)` with an async `send`: its end is the job's.
            end = self._coroutines.start(record, go_on_with(value))
            if end is None:
                return
            outcome = end
        try:
            self._conclude(record, outcome)
        finally:
            self._leave(record)

    def _leave(self, record: JobRecord) -> None:
        """Tell the lane of a job, or else who drains, that it has ended or left."""
        lane, record.lane = record.lane, None
        if lane is not None:
            lane.job_done()
        else:
            self.release()

    def _conclude(self, record: JobRecord, outcome: Outcome) -> None:
        """Give an attempt's outcome its effect; the single place where that happens."""
        if record.timer is not None:
            record.timer.cancel()
            record.timer = None
        try:
            if type(outcome) is Succeeded:
                record.value = outcome.value
                self._end(record, _SUCCEEDED, events.SUCCEEDED)
            else:
                self._conclude_badly(record, outcome)
        finally:
            if record.has_slot:
                self._slots.release(record)

    def _conclude_badly(self, record: JobRecord, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            draw = random.random()  # noqa: S311 - jitter
            outcome = judge(outcome, record.attempt, record.task.options, draw)
        record.verdict = None
        match outcome:
            case Retry(delay, failure):
                record.fail(failure)
                record.remember(record.error, record.traceback)
                self._leave_for_retry(record, delay)
            case Failed(exception):
                record.fail(outcome)
                self._end(record, JobStatus.failed, events.FAILED)
                log_failure(record, exception)
                if isinstance(exception, KeyboardInterrupt):
                    # Not ours to keep (R3): the loop carries it out of `run`.
                    self.loop.call_soon(_raise, exception)
            case Cancelled(reason):
                self._end_early(record, events.CANCELLED, reason)
            case Interrupted(reason):
                if record.status is _RUNNING:
                    record.remember(f"cut off: {reason}", None)
                self._give_back(record)

    def _give_back(self, record: JobRecord) -> None:
        """Let the journal keep a job whose attempt was cut off, for whoever claims it."""
        if record.status is _RUNNING:
            kept_of(record).interrupted += 1
        record.status = JobStatus.queued
        is_in_thread = record.task.place == "thread" and record.is_in_thread
        self.keeper.give_back(record, is_stuck=is_in_thread and record.given_up == record.run)

    def _leave_for_retry(self, record: JobRecord, delay: float) -> None:
        record.status = JobStatus.queued
        record.run_after = time.time() + delay
        if record.brought is not None:
            self._registry.unfinished.pop(record, None)
            self._tell_bringer(record, delay)
        elif record.kept is None or self.keeper.put_off(record):
            self.hold()
            record.timer = self.loop.call_later(delay, self._retry, record)
        logger.warning(
            "task %s failed with %s; attempt %d of %d follows in %.1f seconds (job %s)",
            record.task_name,
            record.error,
            record.attempt + 1,
            record.max_attempts,
            delay,
            record.id,
            extra=extras(record),
        )
        self._events.emit(events.RETRYING, record)

    def _retry(self, record: JobRecord) -> None:
        record.timer = record.run_after = None
        run_apart(self, [record])
        self.release()

    def readmit(self, record: JobRecord) -> None:
        """Run a job again that has ended."""
        record.home = self
        record.reopen()
        self._submit_loose(record)

    def _end_early(self, record: JobRecord, event: str, reason: str) -> None:
        record.error = reason
        self._end(record, JobStatus.cancelled, event)

    def _end(self, record: JobRecord, status: JobStatus, event: str) -> None:
        record.end(status)
        self._registry.finish(record)
        if record.brought is not None:
            self._tell_bringer(record, None)
        if record.kept is not None:
            if event is events.DROPPED:
                self.keeper.dropped(record)
            else:
                self.keeper.ended(record)
        if self._events.handlers:
            self._events.emit(event, record)

    def _tell_bringer(self, record: JobRecord, delay: float | None) -> None:
        brought, record.brought = record.brought, None
        if brought is not None and not brought.done():
            brought.set_result(delay)

    # What jobs tell, from any thread.

    def began(self, record: JobRecord, run: int) -> None:
        """Tell that an attempt has begun, and give it its time."""
        if self._events.handlers:
            self._events.emit(events.STARTED, record)
        timeout = record.task.options.timeout or self._limits.timeout
        if timeout is not None:
            end = time.monotonic() + timeout
            self.call(partial(self._limit_time, record, run, timeout, end))

    def progressed(self, record: JobRecord) -> None:
        """Tell how far a job is."""
        self._events.emit(events.PROGRESSED, record)

    def named(self, record: JobRecord) -> None:
        """Make a job known by its id."""
        self._registry.name(record)

    def _limit_time(self, record: JobRecord, run: int, timeout: float, end: float) -> None:
        if record.run != run or record.status is not _RUNNING:
            return  # it was quicker than this call
        error = TimeoutError(f"task {record.task_name} took longer than {timeout} seconds")
        verdict = Failed(error, f"TimeoutError: {error}\n")
        left = max(0.0, end - time.monotonic())
        record.timer = self.loop.call_later(left, self._give_up, record, verdict)

    # Giving up, drain, close.

    def cancel(self, record: JobRecord, reason: str) -> None:
        """Cancel a job in whatever state it is; one that has ended stays as it is."""
        self.call(partial(self._cancel, record, reason))

    def _cancel(self, record: JobRecord, reason: str) -> None:
        if record.finished_at is not None:
            return
        if record.has_slot:
            self._give_up(record, Cancelled(reason))
            return
        # It waits: with its collector or in its lane's queue, which pass over it, or for its
        # instant; or else it holds up its lane or the drain, waiting for a slot or a retry.
        is_retry = record.timer is not None and record.attempt > 0
        if record.timer is not None:
            record.timer.cancel()
            record.timer = None
        self._end_early(record, events.CANCELLED, reason)
        is_held = record.lane is not None or record.turn > 0 or is_retry
        if record.turn:
            self._slots.forget(record)
        if is_held:
            self._leave(record)

    def _give_up(self, record: JobRecord, verdict: Failed | Cancelled | Interrupted) -> None:
        """End the attempt under way early, with this outcome (R5)."""
        record.verdict = verdict
        if record.handle is not None:
            record.given_up = record.run
            record.handle.cancel()
            return
        is_under_way = self._functions.give_up(record)
        if is_under_way is None:
            record.verdict = None
            return
        if is_under_way:
            logger.warning(
                "task %s was given up in a worker thread, which cannot be stopped and may go on; "
                "long tasks should look at current_job().cancelled (job %s)",
                record.task_name,
                record.id,
                extra=extras(record),
            )
        self._settle(record, verdict)

    def soon(self, lane: Lane) -> None:
        """Start the jobs of a lane, together with those of some others.

        The jobs of several requests in a row find the processor's caches warm. Of too many,
        what they hold until then would set off the garbage collector.
        """
        if not self._ready:
            self.hold()
            self.loop.call_soon(self._pump_ready)
        self._ready.append(lane)
        if len(self._ready) >= BATCH:
            self._pump_ready()

    def _pump_ready(self) -> None:
        if self._ready:
            # What has returned goes first, and all that it holds, before more comes.
            self._functions.collect()
            ready, self._ready = self._ready, []
            for lane in ready:
                try:
                    lane.pump()
                except Exception:
                    # A fault of ours must not become one of the request that comes by here.
                    logger.exception("starting the jobs of a request failed")
            self.release()

    def hold(self) -> None:
        """Keep `drain` from ending until `release`."""
        self._holds += 1

    def release(self) -> None:
        """End a `hold`."""
        self._holds -= 1
        if not self._holds and self._drained:
            drained, self._drained = self._drained, []
            for waiter in drained:
                if not waiter.done():
                    waiter.set_result(None)

    async def drain(self, timeout: float | None) -> bool:
        """Wait until nothing is ready, running or waiting for a retry; False if time is up."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._holds:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return False
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._drained.append(waiter)
            await asyncio.wait((waiter,), timeout=left)
        return True

    async def cancel_all(self, records: list[JobRecord], reason: str) -> None:
        """Cancel these jobs, and give those that run a moment to clean up.

        Those that are kept in a journal wait there for another attempt.
        """
        # Those that wait first: room that a running one leaves must not start them.
        for record in sorted(records, key=lambda record: record.has_slot):
            if record.kept is not None and not record.kept.is_told:
                continue  # its response has yet to be promised anything; `save` refuses it
            if record.kept is None:
                if record.brought is not None:
                    record.brought.cancel()  # it is the engine's to have it run again
                self._cancel(record, reason)
            elif record.has_slot:
                self._give_up(record, Interrupted(reason))
            else:
                self._leave_behind(record)
        if self._coroutines.running:
            await asyncio.wait(tuple(self._coroutines.running), timeout=CANCEL_GRACE)

    def _leave_behind(self, record: JobRecord) -> None:
        """Give a job back that waits."""
        is_retry = record.timer is not None and record.attempt > 0
        if record.timer is not None:
            record.timer.cancel()
            record.timer = None
        is_held = record.lane is not None or record.turn > 0 or is_retry
        was_in_line = record.turn > 0
        record.is_loose = True
        record.line = None
        self._give_back(record)
        if was_in_line:
            self._slots.forget(record)
        if is_held:
            self._leave(record)

    def leave_waiting_behind(self) -> None:
        """Give those jobs back that are kept and wait for long, before a shutdown."""
        if self._outbox is not None:
            self._outbox.finish()
        for record in self.unfinished():
            if record.timer is not None and not record.has_slot and record.kept is not None:
                self._leave_behind(record)

    def abandon(self) -> None:
        """End all jobs of a loop that was closed: nothing will run them any more."""
        lost = self.unfinished()
        for record in lost:
            if record.kept is not None and record.kept.is_told:
                self._give_back(record)
            else:
                self._end_early(record, events.CANCELLED, "its event loop was closed")
        if lost:
            log_unfinished(lost, "their event loop was closed")
        self.close()

    def unfinished(self) -> list[JobRecord]:
        """All jobs admitted here that have not ended, oldest first."""
        return [record for record in tuple(self._registry.unfinished) if record.home is self]

    def close(self) -> None:
        """Let go of what serves the jobs; none may be left."""
        self.is_supervised = False
        if self._outbox is not None:
            self._outbox.close()
        self._coroutines.close()
        if self._processes is not None:
            self._processes.close()

    @property
    def is_busy(self) -> bool:
        """Whether a `drain` would have to wait."""
        return self._holds > 0

    @property
    def running(self) -> int:
        """How many attempts hold a slot."""
        return self._slots.used

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the loop's thread: here and now, or soon."""
        if threading.get_ident() == self.thread:
            function()
            return
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The loop is closed, and with it ended what it was to be told about.
            logger.debug("an event loop was closed before its jobs had all returned")


def _due(record: JobRecord) -> float | None:
    """Return before when a new job may not start, in seconds since the epoch."""
    options = record.task.options
    if options.delay is not None:
        return record.queued_at + options.delay
    return None if options.run_at is None else options.run_at.timestamp()


def _raise(exception: BaseException) -> None:
    raise exception
