"""Runs jobs on one event loop: slots, timeouts, retries, cancellation, drain."""

from __future__ import annotations

import asyncio
import inspect
import logging
import os
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any

from anyio.lowlevel import current_token

from asgi_bg import events
from asgi_bg._attempt import Attempt
from asgi_bg._execution.coroutines import Coroutines, call_async, go_on_with
from asgi_bg._execution.processes import ProcessPool, pack
from asgi_bg._execution.threads import ThreadPool
from asgi_bg._job import (
    Cancelled,
    Failed,
    JobRecord,
    JobStatus,
    Outcome,
    Retry,
    Succeeded,
)
from asgi_bg._logs import keep_logs
from asgi_bg._registry import Registry
from asgi_bg._retry import judge
from asgi_bg._slots import Slots
from asgi_bg._task import Task
from asgi_bg.exceptions import QueueFull

logger = logging.getLogger("asgi_bg")

CANCEL_GRACE = 1.0
"""How many seconds cancelled jobs get to clean up when a runner is closed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The numbers of a runner; explained at `Runner`."""

    max_jobs: int
    max_processes: int | None
    max_queued: int
    timeout: float | None


class Scheduler:
    """Takes the jobs of one event loop from their admission to their end.

    All methods belong to the loop's thread, but for `admit`, `withdraw`, `call` and those
    of `Supervisor`.
    """

    def __init__(
        self,
        limits: Limits,
        registry: Registry,
        threads: ThreadPool,
        told: events.Events,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.token = current_token()
        self.is_supervised = False
        self._thread = threading.get_ident()
        self._limits = limits
        self._registry = registry
        self._events = told
        self._slots: Slots[Attempt] = Slots(limits.max_jobs, self._start)
        self._coroutines = Coroutines(self.loop, self._settle)
        self._threads = threads
        self._processes = ProcessPool(limits.max_processes)
        self._lock = threading.Lock()
        self._waiting = 0
        self._holds = 0
        self._drained: list[asyncio.Future[None]] = []
        self._returned: deque[tuple[Attempt, Outcome]] = deque()
        self._is_collecting = False
        self._owner = f"pid:{os.getpid()}"
        keep_logs()

    # Admission.

    def admit(
        self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[JobRecord, bool]:
        """Return a new job, or the one that has the task's key already and False.

        Raises:
            QueueFull: ``max_queued`` jobs wait (R8).
            NotSerializable: The task runs in another process, and this call cannot.
        """
        packed = pack(task, args, kwargs) if task.place == "process" else None
        with self._lock:
            if self._waiting >= self._limits.max_queued:
                raise QueueFull(
                    f"{self._waiting} jobs wait already, which is the limit (max_queued="
                    f"{self._limits.max_queued}), so task {task.name} was not added; answer 503, "
                    "or raise the limit if there is memory for more"
                )
            self._waiting += 1
        record = JobRecord(task, args, kwargs, copy_context(), packed, self)
        holder = self._registry.add(record)
        if holder is not record:
            self._leave_queue()
            return holder, False
        options = task.options
        if options.delay is not None:
            record.run_after = record.queued_at + options.delay
        elif options.run_at is not None:
            record.run_after = options.run_at.timestamp()
        self._events.emit(events.QUEUED, record)
        return record, True

    def withdraw(self, record: JobRecord, reason: str) -> None:
        """End a job that was admitted and is not to run."""
        self._end_early(record, events.DROPPED, reason)

    def drop(self, records: list[JobRecord]) -> None:
        """End jobs that are not to run on their response, with one warning (M5)."""
        reason = "dropped: its response did not end as its run_on asks"
        for record in records:
            self.withdraw(record, reason)
        logger.warning(
            "%d job(s) dropped, as their response did not end as their run_on asks: %s",
            len(records),
            name_all(records),
        )

    def _leave_queue(self) -> None:
        with self._lock:
            self._waiting -= 1

    # The way of a job: submitted or put off, started, settled.

    def submit(self, record: JobRecord, when_done: Callable[[], None] | None) -> bool:
        """Start a job as soon as there is room; False if it is not to start now."""
        if record.status.is_final:
            return False
        if record.run_after is not None and record.run_after > time.time():
            self._wait_until_due(record, record.run_after)
            return False
        self.hold()
        self._enter(record, when_done)
        return True

    def _wait_until_due(self, record: JobRecord, due: float) -> None:
        # Event loops promise timers of up to a day; a longer wait is waited in parts.
        wait = min(due - time.time(), 86_400.0)
        timer = self.loop.call_later(wait, self.submit, record, None)

        def cancel(reason: str) -> None:
            timer.cancel()
            self._end_early(record, events.CANCELLED, reason)

        record.cancel = cancel

    def readmit(self, record: JobRecord) -> None:
        """Run a job again that has ended."""
        with self._lock:
            self._waiting += 1
        record.home = self
        record.reopen()
        self.submit(record, None)

    def _enter(self, record: JobRecord, when_done: Callable[[], None] | None = None) -> None:
        timeout = record.task.options.timeout
        if timeout is None:
            timeout = self._limits.timeout
        attempt = Attempt(record, self, timeout, when_done)
        record.cancel = attempt.abort
        self._slots.request(attempt)

    def _start(self, attempt: Attempt) -> None:
        record = attempt.record
        if not record.attempt:
            self._leave_queue()
        record.attempt += 1
        record.owner = self._owner
        attempt.attempt = record.attempt
        attempt.has_slot = True
        match record.task.place:
            case "thread":
                self._threads.submit(attempt)
            case "loop":
                self._coroutines.start(attempt, call_async)
            case "process":
                self._coroutines.start(attempt, self._processes.run)

    def _settle(self, attempt: Attempt, outcome: Outcome) -> None:
        """Decide an attempt; the single place where its outcome takes effect."""
        with self._lock:
            if attempt.settled:
                return
            attempt.settled = True
        if attempt.timer is not None:
            attempt.timer.cancel()
        record = attempt.record
        if isinstance(outcome, Failed):
            outcome = judge(outcome, record.attempt, record.task.options, random.random())  # noqa: S311 - jitter
        match outcome:
            case Succeeded(value):
                record.value = value
                self._end(record, JobStatus.succeeded, events.SUCCEEDED)
            case Retry(delay, failure):
                self._wait_for_retry(record, delay, failure)
            case Failed():
                record.fail(outcome)
                self._end(record, JobStatus.failed, events.FAILED)
                log_failure(record, outcome)
            case Cancelled(reason):
                self._end_early(record, events.CANCELLED, reason)
        if attempt.has_slot:
            self._slots.release(attempt)
        if not isinstance(outcome, Retry):
            self.release()
        if attempt.when_done is not None:
            attempt.when_done()
        if isinstance(outcome, Failed) and isinstance(outcome.exception, KeyboardInterrupt):
            raise outcome.exception

    def _wait_for_retry(self, record: JobRecord, delay: float, failure: Failed) -> None:
        record.fail(failure)
        record.status = JobStatus.queued
        record.run_after = time.time() + delay
        timer = self.loop.call_later(delay, self._enter, record)

        def cancel(reason: str) -> None:
            timer.cancel()
            self._end_early(record, events.CANCELLED, reason)
            self.release()

        record.cancel = cancel
        logger.warning(
            "task %s failed with %s; attempt %d of %d follows in %.1f seconds (job %s)",
            record.task.name,
            record.error,
            record.attempt + 1,
            record.max_attempts,
            delay,
            record.id,
            extra=extras(record),
        )
        self._events.emit(events.RETRYING, record)

    def _end_early(self, record: JobRecord, event: str, reason: str) -> None:
        record.error = reason
        if not record.attempt:
            self._leave_queue()
        self._end(record, JobStatus.cancelled, event)

    def _end(self, record: JobRecord, status: JobStatus, event: str) -> None:
        record.end(status)
        self._registry.finish(record)
        self._events.emit(event, record)

    # What attempts tell, from any thread.

    def may_begin(self, attempt: Attempt) -> bool:
        """Whether a thread may begin with it; False if it was settled in the meantime."""
        with self._lock:
            attempt.is_in_thread = not attempt.settled
            return attempt.is_in_thread

    def attempt_began(self, attempt: Attempt) -> None:
        """Tell that it was started, and give it its time."""
        self._events.emit(events.STARTED, attempt.record)
        if attempt.timeout is not None:
            self.call(partial(self._limit_time, attempt, attempt.timeout))

    def attempt_progressed(self, attempt: Attempt) -> None:
        """Tell how far it is."""
        self._events.emit(events.PROGRESSED, attempt.record)

    def attempt_returned(self, attempt: Attempt, outcome: Outcome) -> None:
        """Bring a thread's outcome to the loop; one wake-up brings all that wait."""
        self._returned.append((attempt, outcome))
        if not self._is_collecting:
            self._is_collecting = True
            self._call_soon_threadsafe(self._collect)

    def _collect(self) -> None:
        self._is_collecting = False
        while self._returned:
            attempt, outcome = self._returned.popleft()
            if attempt.settled:
                self._threads.recover()
            elif isinstance(outcome, Succeeded) and inspect.iscoroutine(outcome.value):
                self._coroutines.start(attempt, go_on_with(outcome.value))
            else:
                self._settle(attempt, outcome)

    def give_up(self, attempt: Attempt, verdict: Failed | Cancelled) -> None:
        """End an attempt early, with this outcome (R5)."""
        self.call(partial(self._give_up, attempt, verdict))

    def _give_up(self, attempt: Attempt, verdict: Failed | Cancelled) -> None:
        if attempt.settled or attempt.verdict is not None:
            return
        attempt.cancelled = True
        attempt.verdict = verdict
        if attempt.handle is not None:
            attempt.handle.cancel()
            return
        self._settle(attempt, verdict)
        if attempt.is_in_thread:
            self._threads.abandon()
            logger.warning(
                "task %s was given up in a worker thread, which cannot be stopped and may go on; "
                "long tasks should look at current_job().cancelled (job %s)",
                attempt.task_name,
                attempt.id,
                extra=extras(attempt.record),
            )

    def _limit_time(self, attempt: Attempt, timeout: float) -> None:
        if attempt.settled:
            return
        left = attempt.began + timeout - time.monotonic()
        error = TimeoutError(f"task {attempt.task_name} took longer than {timeout} seconds")
        verdict = Failed(error, f"TimeoutError: {error}\n")
        attempt.timer = self.loop.call_later(max(0.0, left), self._give_up, attempt, verdict)

    # Drain and close.

    def hold(self) -> None:
        """Keep `drain` from ending until `release`."""
        self._holds += 1

    def release(self) -> None:
        """End a `hold`."""
        self._holds -= 1
        if not self._holds:
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
        """Cancel these jobs, and give those that run a moment to clean up."""
        for record in records:
            self.cancel(record, reason)
        if self._coroutines.tasks:
            await asyncio.wait(tuple(self._coroutines.tasks), timeout=CANCEL_GRACE)

    def cancel(self, record: JobRecord, reason: str) -> None:
        """Cancel a job in whatever state it is; one that has ended stays as it is."""
        self.call(partial(self._cancel, record, reason))

    def _cancel(self, record: JobRecord, reason: str) -> None:
        if record.cancel is not None:
            record.cancel(reason)
        elif not record.status.is_final:
            # Still with its collector; the lane will pass over it.
            self._end_early(record, events.CANCELLED, reason)

    def close(self) -> None:
        """Let go of what serves the jobs; none may be left."""
        self.is_supervised = False
        self._coroutines.close()
        self._processes.close()

    @property
    def unfinished(self) -> int:
        """How many lanes and loose jobs keep `drain` from ending."""
        return self._holds

    @property
    def waiting(self) -> int:
        """How many jobs have not been started yet."""
        return self._waiting

    @property
    def running(self) -> int:
        """How many attempts hold a slot."""
        return self._slots.used

    def call(self, function: Callable[[], object]) -> None:
        """Call a function in the loop's thread: here and now, or soon."""
        if threading.get_ident() == self._thread:
            function()
        else:
            self._call_soon_threadsafe(function)

    def _call_soon_threadsafe(self, function: Callable[[], object]) -> None:
        try:
            self.loop.call_soon_threadsafe(function)
        except RuntimeError:
            # The loop is closed, and with it ended what it was to be told about.
            logger.debug("an event loop was closed before its jobs had all returned")


def extras(record: JobRecord) -> dict[str, object]:
    """The structured extras of every log record about a job."""
    return {
        "asgi_bg_job_id": record.id,
        "asgi_bg_task": record.task.name,
        "asgi_bg_attempt": record.attempt,
    }


def name_all(records: list[JobRecord]) -> str:
    """Name jobs for a log message, the first twenty of them."""
    named = ", ".join(f"{record.task.name} ({record.id})" for record in records[:20])
    more = len(records) - 20
    return f"{named} and {more} more" if more > 0 else named


def log_unfinished(records: list[JobRecord]) -> None:
    """Log which jobs a shutdown has to cancel (R6)."""
    logger.error(
        "%d job(s) were not done when the runner was closed, and are cancelled: %s",
        len(records),
        name_all(records),
    )


def log_failure(record: JobRecord, failure: Failed) -> None:
    """Log a job's failure, once and with its traceback (R3)."""
    exception = failure.exception
    logger.error(
        "task %s failed in attempt %d of %d (job %s)",
        record.task.name,
        record.attempt,
        record.max_attempts,
        record.id,
        exc_info=(type(exception), exception, exception.__traceback__),
        extra=extras(record),
    )
    # The text is kept; the frames would keep alive all that the task's variables hold.
    exception.__traceback__ = None
