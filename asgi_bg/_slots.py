"""Who may run now, and who is next: bounds on all jobs and on the jobs of one task (R2)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count

from asgi_bg._record import JobRecord


class _Bound:
    """A number of slots, and the jobs that wait for one: higher priority first, then older."""

    __slots__ = ("limit", "used", "waiting")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.waiting: list[tuple[int, int, JobRecord]] = []

    def wait(self, record: JobRecord) -> None:
        heapq.heappush(self.waiting, (-record.task.options.priority, record.turn, record))

    def next(self) -> JobRecord | None:
        while self.waiting:
            _, turn, record = heapq.heappop(self.waiting)
            # One that was cancelled meanwhile, and perhaps queued anew, has left this line.
            if record.turn == turn and record.finished_at is None:
                return record
        return None


class Slots:
    """Hands out ``limit`` slots.

    Args:
        limit: How many.
        start: Called with a job that gets one when it asks.
        resume: Called with a job that gets one after it has waited.
    """

    def __init__(
        self,
        limit: int,
        start: Callable[[JobRecord], None],
        resume: Callable[[JobRecord], None],
    ) -> None:
        self._start = start
        self._resume = resume
        self._is_refilling = False
        self._all = _Bound(limit)
        self._tasks: dict[str, _Bound] = {}
        self._turns = count(1)

    @property
    def used(self) -> int:
        """How many slots are taken."""
        return self._all.used

    def request(self, record: JobRecord) -> None:
        """Start the job now, or when its turn comes."""
        record.turn = next(self._turns)
        self._claim(record, self._start)

    def _claim(self, record: JobRecord, start: Callable[[JobRecord], None]) -> None:
        limit = record.task.options.concurrency
        if limit is not None and not self._has_task_slot(record, limit):
            return
        if self._all.used >= self._all.limit:
            self._all.wait(record)
            return
        if limit is not None:
            self._tasks[record.task_name].used += 1
        self._all.used += 1
        record.has_slot = True
        start(record)

    def _has_task_slot(self, record: JobRecord, limit: int) -> bool:
        """Whether its task has a slot for it; if not, it waits there for one."""
        bound = self._tasks.get(record.task_name)
        if bound is None:
            bound = self._tasks[record.task_name] = _Bound(limit)
        if bound.used < bound.limit:
            return True
        bound.wait(record)
        return False

    def release(self, record: JobRecord) -> None:
        """Take the slot of a job back, if it has one, and start the next."""
        if not record.has_slot:
            return
        record.has_slot = False
        record.turn = 0
        self._all.used -= 1
        if record.task.options.concurrency is not None:
            self._release_task(record)
        if self._is_refilling:
            return  # a job that ended while it was resumed; the loop below goes on
        self._is_refilling = True
        while self._all.waiting and self._all.used < self._all.limit:
            waiter = self._all.next()
            if waiter is not None:
                self._claim(waiter, self._resume)
        self._is_refilling = False

    def _release_task(self, record: JobRecord) -> None:
        bound = self._tasks[record.task_name]
        bound.used -= 1
        waiter = bound.next()
        if waiter is not None:
            self._all.wait(waiter)
        elif not bound.used:
            del self._tasks[record.task_name]
