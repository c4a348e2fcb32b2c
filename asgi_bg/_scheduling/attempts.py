"""The attempts of jobs: started when there is a slot, timed, given up, their outcomes judged."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from asgi_bg import events
from asgi_bg._execution.attempt import begin_and_call, go_on_with
from asgi_bg._execution.coroutines import Coroutines
from asgi_bg._execution.functions import Functions
from asgi_bg._job import Cancelled, Failed, Interrupted, JobStatus, Outcome, Retry, Succeeded
from asgi_bg._messages import extras, log_failure
from asgi_bg._record import JobRecord
from asgi_bg._retry import judge
from asgi_bg._scheduling.drain import Drain
from asgi_bg._scheduling.ends import Ends
from asgi_bg._scheduling.lane import Dispatcher, run_apart
from asgi_bg._scheduling.parts import Parts
from asgi_bg._scheduling.slots import Slots

if TYPE_CHECKING:
    from asgi_bg._execution.processes import ProcessPool

logger = logging.getLogger("asgi_bg")

# Looking a member of an enum up takes longer than most of what is done with it here.
_RUNNING = JobStatus.running
_SUCCEEDED = JobStatus.succeeded


class Attempts:
    """Carries out the attempts of the jobs of one event loop.

    All methods belong to the loop's thread, but for `began` and `pack`.

    Args:
        runs: Who takes jobs that are to be tried again.
        parts: What the runner is made of.
        drain: Waits for the jobs.
        ends: Ends the jobs.

    Attributes:
        functions: The plain functions that are being called.
        slots: Who may run.
    """

    def __init__(self, runs: Dispatcher, parts: Parts, drain: Drain, ends: Ends) -> None:
        limits = self._limits = parts.limits
        self._runs = runs
        self._drain = drain
        self._ends = ends
        self._events = parts.events
        self._keeper = parts.keeper
        loop = self._loop = runs.loop
        self.slots = Slots(limits.max_jobs, self._start, self._resume, loop.call_soon)
        self._coroutines = Coroutines(loop, self._settle)
        self.functions = Functions(loop, parts.threads, self._settle)
        self._processes: ProcessPool | None = None

    # Their begin.

    def pack(self, record: JobRecord) -> None:
        """Make the call of a job one for another process.

        Raises:
            NotSerializable: It cannot be sent there.
        """
        record.packed = self._process_pool().pack(record.task, record.args, record.kwargs)

    def _process_pool(self) -> ProcessPool:
        if self._processes is None:
            # Imported here, as a third of the package's import time serves few.
            from asgi_bg._execution.processes import ProcessPool

            self._processes = ProcessPool(self._limits.max_processes)
        return self._processes

    def _start(self, record: JobRecord) -> None:
        record.attempt += 1
        record.run += 1
        match record.task.place:
            case "loop":
                outcome = self._coroutines.start(record, begin_and_call)
            case "thread":
                self.functions.start(record)
                return
            case "process":
                outcome = self._coroutines.start(record, self._process_pool().run)
        if outcome is not None:
            self._conclude(record, outcome)

    def _resume(self, record: JobRecord) -> None:
        """Start a job that has waited for a slot."""
        self._start(record)
        if not record.has_slot:
            self.leave(record)

    def began(self, record: JobRecord, run: int) -> None:
        """Tell that an attempt has begun, and give it its time."""
        if self._events.handlers:
            self._events.emit(events.STARTED, record)
        timeout = record.task.options.timeout or self._limits.timeout
        if timeout is not None:
            end = time.monotonic() + timeout
            self._runs.call(partial(self._limit_time, record, run, timeout, end))

    def _limit_time(self, record: JobRecord, run: int, timeout: float, end: float) -> None:
        if record.run != run or record.status is not _RUNNING:
            return  # it was quicker than this call
        error = TimeoutError(f"task {record.task_name} took longer than {timeout} seconds")
        verdict = Failed(error, f"TimeoutError: {error}\n")
        left = max(0.0, end - time.monotonic())
        record.timer = self._loop.call_later(left, self.give_up, record, verdict)

    # Their end.

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
            self.leave(record)

    def leave(self, record: JobRecord) -> None:
        """Tell the lane of a job, or else who drains, that it has ended or left."""
        lane, record.lane = record.lane, None
        if lane is not None:
            lane.job_done()
        else:
            self._drain.release()

    def _conclude(self, record: JobRecord, outcome: Outcome) -> None:
        """Give an attempt's outcome its effect; the single place where that happens."""
        if record.timer is not None:
            record.timer.cancel()
            record.timer = None
        try:
            if type(outcome) is Succeeded:
                record.value = outcome.value
                self._ends.end(record, _SUCCEEDED, events.SUCCEEDED)
            else:
                self._conclude_badly(record, outcome)
        finally:
            if record.has_slot:
                self.slots.release(record)

    def _conclude_badly(self, record: JobRecord, outcome: Outcome) -> None:
        if isinstance(outcome, Failed):
            draw = random.random()  # noqa: S311 - jitter
            outcome = judge(outcome, record.attempt, record.task.options, draw)
        record.verdict = None
        match outcome:
            case Retry(delay, failure):
                record.fail(failure)
                record.remember(record.error, record.traceback)
                self.leave_for_retry(record, delay)
            case Failed(exception):
                record.fail(outcome)
                self._ends.end(record, JobStatus.failed, events.FAILED)
                log_failure(record, exception)
                if isinstance(exception, KeyboardInterrupt):
                    # Not ours to keep (R3): the loop carries it out of `run`.
                    self._loop.call_soon(_raise, exception)
            case Cancelled(reason):
                self._ends.cancel(record, reason)
            case Interrupted(reason):
                if record.status is _RUNNING:
                    record.remember(f"cut off: {reason}", None)
                self._ends.give_back(record)

    def leave_for_retry(self, record: JobRecord, delay: float) -> None:
        """Let a job wait for another attempt, here, in the journal or with its engine."""
        record.status = JobStatus.queued
        record.run_after = time.time() + delay
        if record.brought is not None:
            self._ends.leave_to_bringer(record, delay)
        elif record.kept is None or self._waits_here(record):
            self._drain.hold()
            record.timer = self._loop.call_later(delay, self._retry, record)
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

    def _waits_here(self, record: JobRecord) -> bool:
        assert self._keeper is not None  # noqa: S101 - it keeps the job
        return self._keeper.put_off(record)

    def _retry(self, record: JobRecord) -> None:
        record.timer = record.run_after = None
        run_apart(self._runs, [record])
        self._drain.release()

    def give_up(self, record: JobRecord, verdict: Failed | Cancelled | Interrupted) -> None:
        """End the attempt under way early, with this outcome (R5)."""
        record.verdict = verdict
        if record.handle is not None:
            record.given_up = record.run
            record.handle.cancel()
            return
        is_under_way = self.functions.give_up(record)
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

    # All of them.

    async def ended(self, timeout: float) -> None:
        """Wait until those on the event loop have ended, for at most so many seconds."""
        if self._coroutines.running:
            await asyncio.wait(tuple(self._coroutines.running), timeout=timeout)

    def close(self) -> None:
        """Let go of what they run in; none may be left."""
        self._coroutines.close()
        if self._processes is not None:
            self._processes.close()


def _raise(exception: BaseException) -> None:
    raise exception
