"""Who may run now, and who is next: bounds on all jobs and on the jobs of one task (R2)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from asgi_bg._record import JobRecord

TURN = 100
"""After how many jobs that were resumed in a row others have the event loop."""


class Line:
    """Jobs that wait: of higher priority first, then older."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, JobRecord]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, record: JobRecord) -> None:
        """Let a job wait."""
        heapq.heappush(self._heap, (-record.task.options.priority, record.turn, record))

    def next(self) -> JobRecord | None:
        """Return whose turn it is; None if nobody waits."""
        while self._heap:
            _, turn, record = heapq.heappop(self._heap)
            # One that was cancelled meanwhile, and perhaps queued anew, has left this line.
            if record.turn == turn and record.finished_at is None:
                return record
        return None


class _TaskSlots:
    """The slots of one task with ``concurrency``, and its jobs that wait for one."""

    def __init__(self) -> None:
        self.used = 0
        self.waiting = Line()


class Slots:
    """Hands out ``limit`` slots.

    Args:
        limit: How many.
        start: Called with a job that gets one when it asks.
        resume: Called with a job that gets one after it has waited.
        later: Called with a function that is to be called at the loop's next turn.

    Attributes:
        used: How many are taken.
    """

    def __init__(
        self,
        limit: int,
        start: Callable[[JobRecord], None],
        resume: Callable[[JobRecord], None],
        later: Callable[[Callable[[], None]], object],
    ) -> None:
        self.used = 0
        self._limit = limit
        self._start = start
        self._resume = resume
        self._later = later
        self._waiting = Line()
        self._tasks: dict[str, _TaskSlots] = {}
        self._turns = count(1)
        self._is_refilling = False

    def request(self, record: JobRecord) -> None:
        """Start the job now, or when its turn comes."""
        if self.used < self._limit and record.task.options.concurrency is None:
            self.used += 1
            record.has_slot = True
            self._start(record)
        else:
            record.turn = next(self._turns)
            self._claim(record, self._start)

    def _claim(self, record: JobRecord, start: Callable[[JobRecord], None]) -> None:
        """Take a slot of the job's task, if that is bounded, and one of all; or wait."""
        limit = record.task.options.concurrency
        bound = None
        if limit is not None:
            bound = self._tasks.setdefault(record.task_name, _TaskSlots())
            if bound.used >= limit:
                bound.waiting.add(record)
                return
        if self.used >= self._limit:
            self._waiting.add(record)
            return
        if bound is not None:
            bound.used += 1
        self.used += 1
        record.has_slot = True
        start(record)

    def release(self, record: JobRecord) -> None:
        """Take the slot of a job back, and start the next."""
        record.has_slot = False
        record.turn = 0
        self.used -= 1
        if record.task.options.concurrency is not None:
            self._tasks[record.task_name].used -= 1
            self._call_next(record.task_name)
        if len(self._waiting) and not self._is_refilling:
            self._refill()

    def forget(self, record: JobRecord) -> None:
        """Let a job go that waits and was cancelled; another of its task may be next."""
        record.turn = 0
        if record.task.options.concurrency is not None:
            self._call_next(record.task_name)
            if len(self._waiting) and not self._is_refilling:
                self._refill()

    def _call_next(self, name: str) -> None:
        """Let the next job of a task into the line for one of all slots."""
        bound = self._tasks.get(name)
        if bound is None:
            return
        waiter = bound.waiting.next()
        if waiter is not None:
            self._waiting.add(waiter)
        elif not bound.used:
            del self._tasks[name]

    def _refill(self) -> None:
        # Jobs that end while they are resumed come back here: this loop serves them too.
        self._is_refilling = True
        try:
            for _ in range(TURN):
                waiter = self._waiting.next() if self.used < self._limit else None
                if waiter is None:
                    return
                self._claim(waiter, self._resume)
            self._later(self._refill)
        finally:
            self._is_refilling = False
