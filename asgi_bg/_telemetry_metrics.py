"""Metrics of jobs, through the API of OpenTelemetry."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from random import random
from threading import Lock
from typing import Final, NamedTuple, TypeAlias, TypeVar

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Meter, Observation

from asgi_bg._record import JobRecord
from asgi_bg._runner import Runner
from asgi_bg._telemetry import (
    BUCKETS,
    ENDS,
    LONG_BUCKETS,
    duration_of,
    error_type_of,
    had_attempt,
    wait_of,
)
from asgi_bg._telemetry_watch import Standing, Watch, together
from asgi_bg.events import DROPPED, FAILED, HANDED_OVER, QUEUED, STARTED, SUCCEEDED, JobEvent

SYSTEM: Final = "messaging.system"
DESTINATION: Final = "messaging.destination.name"
OPERATION: Final = "messaging.operation.name"
OPERATION_TYPE: Final = "messaging.operation.type"
MESSAGE_ID: Final = "messaging.message.id"
ERROR_TYPE: Final = "error.type"

BATCH = 128
"""How many events are noted before they are counted."""

SHARE_TIMEOUT = 0.25
"""For how many seconds a share is good; then fewer may come, and more of them be measured."""

MEASURED_BATCH = 32
"""How many attempts are noted before they are measured; few, as tasks wait meanwhile."""

Attributes: TypeAlias = dict[str, str]
Counts: TypeAlias = Counter[tuple[str, str | None]]
T = TypeVar("T")


def attributes_of(operation: str, task: str, error: str | None) -> Attributes:
    """Return the attributes of what is measured of a task; none of them is one of a job."""
    found = {OPERATION: operation, SYSTEM: "asgi_bg", DESTINATION: task}
    if error is not None:
        found[ERROR_TYPE] = error
    return found


class Attempt(NamedTuple):
    """What is measured of an attempt that is over."""

    task: str
    error: str | None
    duration: float
    wait: float | None


class JobMetrics:
    """Counts jobs and measures their attempts.

    To call an instrument costs as much as to run a small task. So events are only noted as
    they come, and are worked off some at a time, and when somebody collects. Counts are kept
    here, to be read then. The histograms have to be called, which is done for about
    ``measured`` attempts a second at most.

    Args:
        meter: Where the instruments are made.
        measured: How many; None for all.
    """

    def __init__(self, meter: Meter, measured: int | None) -> None:
        self._measured = measured
        self._share = 1.0
        self._added: deque[str] = deque()
        self._succeeded: deque[str] = deque()
        self._attempts: deque[Attempt] = deque()
        self._settling = Lock()
        self._settled_at = time.time()
        self._sent: Counts = Counter()
        self._consumed: Counts = Counter()
        self._handed_over: Counts = Counter()
        self._dropped: Counts = Counter()
        self._refused: Counts = Counter()
        self._watches: list[Watch] = []
        self._attributes: dict[tuple[str, str | None], Attributes] = {}
        # Given, as asking for the current one costs; nothing of it is wanted here.
        self._context = Context()
        self._durations = meter.create_histogram(
            "messaging.process.duration",
            unit="s",
            description="Duration of processing operation.",
            explicit_bucket_boundaries_advisory=BUCKETS,
        )
        self._waits = meter.create_histogram(
            "asgi_bg.queue.wait",
            unit="s",
            description="How long jobs were due before their first attempt began.",
            explicit_bucket_boundaries_advisory=LONG_BUCKETS,
        )
        self._make_counters(meter)
        self._make_gauges(meter)

    def _make_counters(self, meter: Meter) -> None:
        for name, counts, operation, text in (
            ("messaging.client.sent.messages", self._sent, "send", "Jobs that were added."),
            (
                "messaging.client.consumed.messages",
                self._consumed,
                "process",
                "Attempts that are over.",
            ),
            (
                "asgi_bg.jobs.handed_over",
                self._handed_over,
                "send",
                "Jobs that were handed over to an engine.",
            ),
            (
                "asgi_bg.jobs.dropped",
                self._dropped,
                "send",
                "Jobs that are not run, as their response did not end as they ask.",
            ),
            (
                "asgi_bg.jobs.refused",
                self._refused,
                "process",
                "Jobs that have failed without being run, or without being run again.",
            ),
        ):
            meter.create_observable_counter(
                name, [self._reading(counts, operation)], unit="{message}", description=text
            )

    def _make_gauges(self, meter: Meter) -> None:
        meter.create_observable_gauge(
            "asgi_bg.jobs.in_flight",
            [self._standing(lambda standing: standing.in_flight)],
            unit="{message}",
            description="Attempts under way in this process.",
        )
        meter.create_observable_gauge(
            "asgi_bg.jobs.queued",
            [self._standing(lambda standing: standing.queued)],
            unit="{message}",
            description="Jobs that wait, those of all processes that share the journal.",
        )
        meter.create_observable_gauge(
            "asgi_bg.jobs.oldest.age",
            [self._standing(lambda standing: standing.age(time.time()))],
            unit="s",
            description="For how long the oldest waiting job has waited.",
        )

    def _standing(
        self, read: Callable[[Standing], float]
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            standing = together(watch.standing for watch in self._watches)
            return () if standing is None else (Observation(read(standing)),)

        return observe

    def observe(self, runner: Runner, interval: float) -> None:
        """Look after the jobs of a runner, for the gauges."""
        watch = Watch(runner, interval)
        self._watches.append(watch)
        watch.start()

    def close(self) -> None:
        """Look after no jobs any more."""
        for watch in self._watches:
            watch.close()

    def hear(self, name: str, record: JobRecord) -> None:
        """Note what has happened to a job of this process."""
        if name == QUEUED:
            self._added.append(record.task.name)
            if len(self._added) >= BATCH:
                self._settle()
        elif name == SUCCEEDED:
            self._succeeded.append(record.task.name)
            if self._share >= 1.0 or self._is_chosen(record):
                self._measure(name, None, record)
            if len(self._succeeded) >= BATCH:
                self._settle()
        elif name != STARTED:
            self._hear_rest(name, record)

    def _is_chosen(self, record: JobRecord) -> bool:
        """Whether an attempt is of the share that is measured."""
        if (record.finished_at or 0.0) - self._settled_at > SHARE_TIMEOUT:
            self._settle()
        return random() < self._share  # noqa: S311 - a sample

    def _hear_rest(self, name: str, record: JobRecord) -> None:
        task = record.task.name
        if name == HANDED_OVER:
            self._count(self._handed_over, task)
        elif name == DROPPED:
            self._count(self._dropped, task)
        elif name in ENDS and had_attempt(record):
            error = error_type_of(name, record)
            self._count(self._consumed, task, error)
            self._measure(name, error, record)
        elif name == FAILED:
            self._count(self._refused, task)

    def _measure(self, name: str, error: str | None, record: JobRecord) -> None:
        self._attempts.append(
            Attempt(record.task.name, error, duration_of(record), wait_of(name, record))
        )
        if len(self._attempts) >= MEASURED_BATCH:
            self._settle()

    def hear_of(self, event: JobEvent) -> None:
        """Count what has happened to a job that is not in this process."""
        if event.name == HANDED_OVER:
            self._count(self._handed_over, event.task)
        elif event.name == FAILED:  # it was not run here, or it would be in this process
            self._count(self._refused, event.task)

    def _count(self, counts: Counts, task: str, error: str | None = None) -> None:
        with self._settling:
            counts[task, error] += 1

    def _settle(self) -> None:
        """Work off what was noted, unless another thread is about it."""
        if self._settling.acquire(blocking=False):
            try:
                self._work_off()
            finally:
                self._settling.release()

    def _work_off(self) -> None:
        for task, count in Counter(_drained(self._added)).items():
            self._sent[task, None] += count
        succeeded = _drained(self._succeeded)
        for task, count in Counter(succeeded).items():
            self._consumed[task, None] += count
        self._choose_share(len(succeeded))
        for task, error, duration, wait in _drained(self._attempts):
            self._durations.record(duration, self._attributes_of(task, error), self._context)
            if wait is not None:
                self._waits.record(wait, self._attributes_of(task, None), self._context)

    def _choose_share(self, succeeded: int) -> None:
        """Go by the rate since the last time, for the attempts that follow."""
        now = time.time()
        if self._measured is not None and succeeded:
            self._share = self._measured * (now - self._settled_at) / succeeded
        self._settled_at = now

    def _attributes_of(self, task: str, error: str | None) -> Attributes:
        found = self._attributes.get((task, error))
        if found is None:
            found = self._attributes[task, error] = attributes_of("process", task, error)
        return found

    def _reading(
        self, counts: Counts, operation: str
    ) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterable[Observation]:
            with self._settling:
                self._work_off()
                found = tuple(counts.items())
            return [
                Observation(count, attributes_of(operation, task, error))
                for (task, error), count in found
            ]

        return observe


def _drained(noted: deque[T]) -> list[T]:
    """Take what is there now; others may add more at the same time."""
    return [noted.popleft() for _ in range(len(noted))]
