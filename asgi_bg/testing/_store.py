"""What was recorded, and what of it waits to be run."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping
from typing import Any

from asgi_bg._record import JobRecord
from asgi_bg._scheduling.scheduler import Scheduler
from asgi_bg._task import Task
from asgi_bg.engines.base import NativeTask, seconds_put_off
from asgi_bg.testing._clock import Clock
from asgi_bg.testing._recorded import RecordedJob
from asgi_bg.testing._shelf import Shelf

INTERVAL = 0.001
"""How many seconds lie between two looks whether a job has ended."""


class Entry:
    """A recorded job, and where it is.

    Attributes:
        job, record: The job as the test sees it, and as the runner does.
        shelf: Where it lies while it waits.
        scheduler: Who admitted it, or has run it last; None if no server has.
        due: When it may run, by the clock of the test; None as long as it does not lie here.
        released: The ``run`` of the record when it was let go; None if it was not.
        is_told: Whether the test was told how it ended.
    """

    __slots__ = ("due", "is_told", "job", "record", "released", "scheduler", "shelf")

    def __init__(
        self, job: RecordedJob, record: JobRecord, shelf: Shelf, scheduler: Scheduler | None
    ) -> None:
        self.job = job
        self.record = record
        self.shelf = shelf
        self.scheduler = scheduler
        self.due: float | None = None
        self.released: int | None = None
        self.is_told = False

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.record.finished_at is not None

    @property
    def live_scheduler(self) -> Scheduler | None:
        """Who admitted it or has run it last, if its event loop is running now."""
        scheduler = self.scheduler
        return scheduler if scheduler is not None and scheduler.loop.is_running() else None

    def is_ready(self, clock: Clock) -> bool:
        """Whether it can be run now, or runs."""
        if self.is_over:
            return False
        if self.due is not None:
            return clock.has_come_to(self.due)
        return self.released is not None and self.live_scheduler is not None

    @property
    def may_start(self) -> bool:
        """Whether it was let go, and no attempt has been started since."""
        return self.released == self.record.run

    def release(self) -> None:
        """Let it go, to be started now."""
        self.due = None
        self.released = self.record.run
        self.record.run_after = None


class Store:
    """The jobs of one recording; used from the threads of apps and of tests.

    Attributes:
        clock: By which they wait.
        runs_at_once: Whether jobs that are due run as they would without a recording.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.runs_at_once = False
        self._lock = threading.Lock()
        self._entries: dict[JobRecord, Entry] = {}

    def note(
        self,
        record: JobRecord,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        shelf: Shelf,
        scheduler: Scheduler | None,
    ) -> None:
        """Record a job that was added."""
        job = RecordedJob(record, task, args, kwargs)
        with self._lock:
            self._entries[record] = Entry(job, record, shelf, scheduler)

    def entry_of(self, record: JobRecord) -> Entry | None:
        """Return what is known of a job; None if it was not recorded."""
        return self._entries.get(record)

    def entries(self) -> list[Entry]:
        """Return all that were recorded, in the order added."""
        with self._lock:
            return list(self._entries.values())

    def wait_of(self, entry: Entry) -> float:
        """Return how many seconds a new job is put off by its options."""
        if entry.record.run:
            return 0.0  # it has run, and was queued anew by hand
        if isinstance(entry.job.task, NativeTask):
            return math.inf  # it can only be run by its engine
        now = entry.record.queued_at + self.clock.elapsed
        return max(0.0, seconds_put_off(entry.job.options, now))

    def hold(self, entry: Entry, wait: float) -> None:
        """Keep a job until it is run by the test, in so many seconds at the earliest."""
        entry.released = None
        entry.record.home = entry.shelf
        entry.due = self.clock.elapsed + wait

    def first_ready(self) -> Entry | None:
        """Return the oldest job that can be run now, or runs."""
        return next((each for each in self.entries() if each.is_ready(self.clock)), None)

    def forget(self) -> None:
        """Let go of all jobs, so that neither they nor their keys meet the next test."""
        with self._lock:
            entries, self._entries = list(self._entries.values()), {}
        for entry in entries:
            registry = entry.shelf.parts.registry
            registry.free_key(entry.record)
            if entry.due is not None:
                entry.shelf.end(entry.record, "cancelled, as its test is over")
            if entry.is_over:
                with contextlib.suppress(ValueError):  # it was forgotten already
                    registry.finished.remove(entry.record)
