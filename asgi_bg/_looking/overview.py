"""All jobs at a glance: how many stand how, and rates and durations of the last while.

Nothing is counted along the way, so that this costs nothing while nobody looks. Jobs sort by
the time they were added, and of a time with many of them a sample is taken: of each
stretch a few, from whose distance in time follows how many there are.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

import msgspec

from asgi_bg._job import as_instant
from asgi_bg.journal.base import Sample, Standing
from asgi_bg.views import Bucket, Counts, Overview, Percentiles, ProcessInfo, TaskSummary

FULL = 200
"""Up to how many jobs of a bucket all are looked at."""

STRETCHES = 16
"""Into how many stretches a bucket with more jobs is cut."""

LOOKED = 10
"""How many jobs of each of them are looked at."""


class Situation(msgspec.Struct, kw_only=True):
    """What is known of the present, to be put together from several sources.

    Attributes:
        counts: How many jobs stand how.
        oldest: When the oldest one that waits was added, in seconds since the epoch, or None.
        processes: The processes that run jobs.
    """

    counts: Counts
    oldest: float | None
    processes: tuple[ProcessInfo, ...]


def situation_of(standing: Standing) -> Situation:
    """Return how the jobs of a journal stand, but for what this process itself has."""
    others = [owner.oldest for owner in standing.owners if not owner.is_own]
    return Situation(
        counts=Counts(
            **standing.counts, retrying=standing.retrying, handed_over=standing.handed_over
        ),
        oldest=earliest(standing.oldest, *others),
        processes=tuple(
            ProcessInfo(owner.pid, owner.is_alive, owner.held) for owner in standing.owners
        ),
    )


def earliest(*instants: float | None) -> float | None:
    """Return the earliest of those instants that there are."""
    return min((at for at in instants if at is not None), default=None)


class Part(msgspec.Struct, frozen=True):
    """Jobs that were looked at, and for how many they stand.

    Attributes:
        bucket: The number of their bucket.
        samples: The jobs.
        weight: How many jobs each one stands for.
    """

    bucket: int
    samples: Sequence[Sample]
    weight: float = 1.0


class Window:
    """The last while, cut into buckets.

    Args:
        seconds: How far it goes back.
        buckets: How many there are.
        now: Its end, in seconds since the epoch.
    """

    def __init__(self, seconds: float, buckets: int, now: float) -> None:
        self.seconds = seconds
        self.number = buckets
        self.length = seconds / buckets
        self.now = now
        self.start = now - seconds

    def buckets(self) -> list[tuple[float, float]]:
        """Return from when to when each of them goes, in seconds since the epoch."""
        starts = [self.start + number * self.length for number in range(self.number)]
        # The last one takes in what is added while this is being found out.
        ends = [*starts[1:], self.now + self.length]
        return list(zip(starts, ends, strict=True))

    def stretches(self, bucket: int) -> list[tuple[float, float]]:
        """Return from when to when the stretches of a bucket go."""
        start = self.start + bucket * self.length
        length = self.length / STRETCHES
        return [(start + n * length, start + (n + 1) * length) for n in range(STRETCHES)]

    def bucket_of(self, instant: float) -> int | None:
        """Return the number of the bucket of an instant; None if it is before all of them."""
        number = int((instant - self.start) // self.length)
        return None if number < 0 else min(number, self.number - 1)


def weigh(samples: Sequence[Sample], stretch: tuple[float, float]) -> float:
    """Return for how many jobs each one of a stretch stands, by their distance in time."""
    if len(samples) < LOOKED:
        return 1.0
    start, end = stretch
    taken = max(samples[-1].queued_at - start, 1e-6)
    # Of n arrivals at random, (n - 1) / time tells their rate; n / time would tell too much.
    return max(1.0, (end - start) / taken * (LOOKED - 1) / LOOKED)


def summarise(window: Window, situation: Situation, parts: Sequence[Part]) -> Overview:
    """Return the overview."""
    by_bucket: dict[int, list[Part]] = defaultdict(list)
    by_task: dict[str, list[tuple[Sample, float]]] = defaultdict(list)
    for part in parts:
        by_bucket[part.bucket].append(part)
        for sample in part.samples:
            by_task[sample.task].append((sample, part.weight))
    buckets = tuple(
        _bucket(as_instant(window.start + number * window.length), window.length, by_bucket[number])
        for number in range(window.number)
    )
    tasks = [_task(name, seen) for name, seen in by_task.items()]
    tasks.sort(key=lambda each: (-_all_of(each), each.task))
    return Overview(
        at=as_instant(window.now),
        counts=situation.counts,
        oldest=None if situation.oldest is None else as_instant(situation.oldest),
        processes=situation.processes,
        seconds=window.seconds,
        buckets=buckets,
        tasks=tuple(tasks),
        is_estimate=any(bucket.is_estimate for bucket in buckets),
    )


def _bucket(start: datetime, seconds: float, parts: Sequence[Part]) -> Bucket:
    seen = [(sample, part.weight) for part in parts for sample in part.samples]
    counts = _count(seen)
    return Bucket(
        start=start,
        seconds=seconds,
        added=round(sum(weight for _, weight in seen)),
        succeeded=counts["succeeded"],
        failed=counts["failed"],
        cancelled=counts["cancelled"],
        durations=percentiles_of([_duration(sample) for sample, _ in seen]),
        waits=percentiles_of([_wait(sample) for sample, _ in seen]),
        is_estimate=any(part.weight > 1.0 for part in parts),
    )


def _task(name: str, seen: Sequence[tuple[Sample, float]]) -> TaskSummary:
    counts = _count(seen)
    return TaskSummary(
        task=name,
        queued=counts["queued"],
        running=counts["running"],
        succeeded=counts["succeeded"],
        failed=counts["failed"],
        cancelled=counts["cancelled"],
        handed_over=counts["handed_over"],
        durations=percentiles_of([_duration(sample) for sample, _ in seen]),
    )


def _all_of(task: TaskSummary) -> int:
    ended = task.succeeded + task.failed + task.cancelled
    return task.queued + task.running + task.handed_over + ended


def _count(seen: Sequence[tuple[Sample, float]]) -> dict[str, int]:
    totals: dict[str, float] = defaultdict(float)
    for sample, weight in seen:
        totals["handed_over" if sample.is_handed_over else sample.status] += weight
    return defaultdict(int, {status: round(total) for status, total in totals.items()})


def _duration(sample: Sample) -> float | None:
    if sample.is_handed_over or sample.finished_at is None or sample.started_at is None:
        return None
    return max(0.0, sample.finished_at - sample.started_at)


def _wait(sample: Sample) -> float | None:
    if sample.started_at is None:
        return None
    return max(0.0, sample.started_at - sample.queued_at)


def percentiles_of(values: Sequence[float | None]) -> Percentiles | None:
    """Return the percentiles of those values that are known; None if none is.

    By the nearest rank: the smallest value that so many percent do not exceed.
    """
    known = sorted(value for value in values if value is not None)
    if not known:
        return None

    def at(percent: int) -> float:
        return known[max(0, -(-len(known) * percent // 100) - 1)]

    return Percentiles(at(50), at(95), at(99))


def window_until_now(seconds: float, buckets: int) -> Window:
    """Return the window of so many seconds that ends now."""
    return Window(seconds, buckets, time.time())
