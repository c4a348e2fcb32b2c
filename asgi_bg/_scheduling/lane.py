"""A lane: the jobs of one request on their way, one after another or all at once (R2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Protocol, TypeAlias

from asgi_bg._collector import BackgroundTasks, JobQueue, collecting
from asgi_bg._record import JobRecord
from asgi_bg._types import RunOn

TURN = 100
"""After how many jobs a lane lets others have the event loop, should none of them wait."""


class Dispatcher(JobQueue, Protocol):
    """Who takes and starts the jobs of a lane."""

    loop: asyncio.AbstractEventLoop
    ordered: bool
    """Whether the jobs of one request run one after another (R2)."""

    def submit(self, record: JobRecord) -> bool:
        """Start a job as soon as there is room; False if it has left its lane by now."""
        ...

    def send_away(self, record: JobRecord) -> None:
        """Let a job wait in the journal."""
        ...

    def drop(self, records: list[JobRecord]) -> None:
        """End jobs that are not to run on this response (M5)."""
        ...

    def save_late(self, tasks: BackgroundTasks) -> None:
        """Have jobs kept for which no response waits."""
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


Gate: TypeAlias = "tuple[frozenset[RunOn], RunOn]"
"""Which jobs may enter: for which values of ``run_on``, and what it is where none is set."""


class Lane:
    """Runs what a collector gathers until the app has returned and nothing is left.

    A job that is put off, or waits for a retry, leaves the lane: it stops nothing (R3).

    Attributes:
        is_complete: Whether the app has returned, so that no more jobs can come once all
            that there are have been run.
    """

    __slots__ = (
        "_dispatcher",
        "_gate",
        "_is_away",
        "_is_finished",
        "_is_held",
        "_is_pumping",
        "_open",
        "_queue",
        "_tasks",
        "_waiter",
        "is_complete",
    )

    def __init__(
        self, dispatcher: Dispatcher, tasks: BackgroundTasks, gate: Gate | None = None
    ) -> None:
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._gate = gate
        self._queue: list[JobRecord] | None = None  # the next one is last
        self._open = 0
        self.is_complete = False
        self._is_finished = False
        self._is_held = False
        self._is_away = False
        self._is_pumping = False
        self._waiter: asyncio.Future[None] | None = None

    async def finished(self) -> None:
        """Wait until all jobs that were added have left the lane (R7).

        The wait outlasts the cancellation of the request's own call, which is raised
        only when the jobs are done.
        """
        cancellation: asyncio.CancelledError | None = None
        while not self._is_finished:
            self._waiter = self._dispatcher.loop.create_future()
            try:
                await self._waiter
            except asyncio.CancelledError as exc:
                cancellation = exc
        if cancellation is not None:
            raise cancellation

    def job_added(self) -> None:
        """Note that the collector has got another job; from any thread."""
        if self._tasks.unsaved is not None:
            # At once: a job that adds another must not have ended before that is kept.
            self._dispatcher.save_late(self._tasks)
        self._dispatcher.call(self.pump)

    def request(self) -> None:
        """Return nothing: the request is over, and the collector knows what it was."""

    def job_done(self) -> None:
        """Note that a job has ended, or left to be tried again later."""
        self._open -= 1
        self.pump()

    def pump(self) -> None:
        """Start what may start; called whenever something has changed."""
        if self._is_pumping:
            return  # from within a job that is being started; the loop below goes on
        self._is_pumping = True
        # Before anything starts, as already the first step of a job may add another.
        self._tasks.listener = self
        try:
            self._start_jobs()
        finally:
            self._is_pumping = False
        is_busy = self._open > 0 or bool(self._queue)
        if self.is_complete and not is_busy and self._tasks.seal():
            self._finish()
        else:
            self._stay(is_busy)

    def _start_jobs(self) -> None:
        turn = TURN
        while not (self._open and self._dispatcher.ordered):
            if not self._queue:
                if self._tasks.pending is None:
                    break
                self._queue = self._take()
                if not self._queue:
                    break
            if not turn:
                self._dispatcher.loop.call_soon(self.pump)
                break
            turn -= 1
            record = self._queue.pop()
            if record.line is not self._tasks:
                continue  # cancelled while it waited here, and queued anew elsewhere
            if self._is_away and record.kept is not None and record.finished_at is None:
                self._dispatcher.send_away(record)  # not before the one that was (R2)
            elif self._dispatcher.submit(record):
                record.lane = self
                self._open += 1
            elif record.is_away and self._dispatcher.ordered and record.run_after is None:
                self._is_away = True

    def _stay(self, is_busy: bool) -> None:
        """Make sure of not being drained while busy."""
        if is_busy and not self._is_held:
            self._is_held = True
            self._dispatcher.hold()
        elif self._is_held and not is_busy:
            self._is_held = False
            self._dispatcher.release()

    def _take(self) -> list[JobRecord] | None:
        """Take up what has been gathered and is to run, the first one last."""
        taken = self._tasks.take()
        if taken is None:
            return None
        unwanted: list[JobRecord] = []
        if self._gate is not None:
            permitted, default = self._gate
            unwanted = [r for r in taken if (r.task.options.run_on or default) not in permitted]
        if unwanted:
            gone = set(unwanted)
            taken = [record for record in taken if record not in gone]
            self._dispatcher.drop(unwanted)
        if self._tasks.unsaved is not None:
            self._dispatcher.save_late(self._tasks)
        return self._list([record for record in taken if not record.is_loose])

    def _list(self, records: list[JobRecord]) -> list[JobRecord]:
        """Return jobs in the order they are popped, listed here and nowhere else."""
        for record in records:
            record.line = self._tasks
        records.reverse()
        return records

    def run(self, records: list[JobRecord]) -> None:
        """Run these jobs, and whatever they add."""
        self._queue = self._list(records)
        self.is_complete = True
        self.pump()

    def _finish(self) -> None:
        self._is_finished = True
        self._tasks.listener = None
        if self._is_held:
            self._is_held = False
            self._dispatcher.release()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def run_apart(dispatcher: Dispatcher, records: list[JobRecord]) -> BackgroundTasks:
    """Run jobs that have left their request, or never had one here, as those of one.

    They get a collector of their own, so that they can add more as any running job can (M8).

    Returns:
        That collector.
    """
    tasks = BackgroundTasks(dispatcher)
    tasks.source = records[-1].source
    for record in records:
        context = Context() if record.context is None else record.context.copy()
        context.run(collecting.set, tasks)
        record.context = context
    if records[-1].kept is not None and dispatcher.ordered:
        tasks.former = (records[-1].id, records[-1].task.options.priority)
    Lane(dispatcher, tasks).run(records)
    return tasks
