"""What is shown of jobs to people: pages of them, one in detail, and an overview of all.

Values only: what the methods of `Runner` return, and the dashboard and the command line show.
"""

from __future__ import annotations

from datetime import datetime
from typing import TypedDict

import msgspec

from asgi_bg._job import JobInfo
from asgi_bg._origin import Origin

__all__ = [
    "Argument",
    "AttemptInfo",
    "Bucket",
    "Counts",
    "JobDetails",
    "JobPage",
    "Origin",
    "Overview",
    "Percentiles",
    "ProcessInfo",
    "RunnerStats",
    "TaskSummary",
]


class AttemptInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a job.

    Attributes:
        number: Which one, from 1.
        started_at, finished_at: When, in UTC; None where that is not known, or not yet.
        error: What it failed with, in one line; None if it did not, or has not ended.
        traceback: That error's traceback.
    """

    number: int
    started_at: datetime | None
    finished_at: datetime | None
    error: str | None
    traceback: str | None


class Argument(msgspec.Struct, frozen=True):
    """One argument of a job, as it is shown.

    Attributes:
        name: The parameter's name, or its place from 1 where the task is not declared here.
        value: It as JSON text, or as `repr` for jobs that are not kept in a journal;
            shortened to 10,000 characters.
        is_redacted: Whether ``redact=`` hides it; ``value`` is empty then.
    """

    name: str
    value: str
    is_redacted: bool = False


class JobDetails(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one job.

    Attributes:
        job: What `Runner.info` says of it.
        arguments: Its arguments; None where they are no longer known.
        attempts: Its attempts, oldest first, the last twenty.
        origin: The request that added it; None if there was none, or nobody knows.
        key, priority, queue, tags: Its options of these names.
    """

    job: JobInfo
    arguments: tuple[Argument, ...] | None
    attempts: tuple[AttemptInfo, ...]
    origin: Origin | None
    key: str | None
    priority: int
    queue: str | None
    tags: tuple[str, ...]


class JobPage(msgspec.Struct, frozen=True):
    """Some jobs of a search, the newest first.

    Attributes:
        jobs: What was found.
        next: Where to go on, as the ``after`` of the next search; None if all has been seen.
        is_cut: Whether the search stopped because its time was up, so that fewer than asked
            for were found though there may be more.
    """

    jobs: tuple[JobInfo, ...]
    next: str | None
    is_cut: bool


class Percentiles(msgspec.Struct, frozen=True):
    """How long attempts took, in seconds: half of them no longer than ``p50``, and so on."""

    p50: float
    p95: float
    p99: float


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many jobs stand how. Counts of ``retrying`` and ``handed_over`` end at `CAP`.

    Attributes:
        queued: Those that wait, for their turn, an instant or another attempt.
        running, succeeded, failed, cancelled: Those that stand so.
        retrying: Those of the queued ones that have failed and are to be tried again.
        handed_over: Those that an engine has; not among the queued ones.
    """

    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    retrying: int
    handed_over: int


CAP = 10_000
"""How far jobs are counted where that takes a look at each."""


class ProcessInfo(msgspec.Struct, frozen=True):
    """A process that runs jobs.

    Attributes:
        pid: Its number.
        is_alive: Whether it lives; the jobs of one that does not are about to be taken over.
        held: How many jobs it holds, waiting or running.
    """

    pid: int
    is_alive: bool
    held: int


class Bucket(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs that were added within one stretch of time.

    Attributes:
        start: Its beginning, in UTC.
        seconds: Its length.
        added: How many jobs were added in it.
        succeeded, failed, cancelled: How many of them have ended so.
        durations: How long their last attempts took; None where none has ended.
        waits: How long they waited for their last attempt.
        is_estimate: Whether there were so many that only a sample was looked at.
    """

    start: datetime
    seconds: float
    added: int
    succeeded: int
    failed: int
    cancelled: int
    durations: Percentiles | None
    waits: Percentiles | None
    is_estimate: bool


class TaskSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of one task that were added within the overview's time.

    Attributes:
        task: The task's name.
        queued, running, succeeded, failed, cancelled, handed_over: How many stand so.
        durations: How long their last attempts took; None where none has ended.
    """

    task: str
    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    handed_over: int
    durations: Percentiles | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """All jobs at one moment, and what has come of those of the last while.

    Attributes:
        at: The moment, in UTC.
        counts: How many jobs stand how, now.
        oldest: When the job was added that waits for longest; None if none does.
        processes: The processes that run jobs.
        seconds: How far back ``buckets`` and ``tasks`` go.
        buckets: Stretches of that time, oldest first.
        tasks: The tasks of that time, those with most jobs first.
        is_estimate: Whether ``tasks`` and some buckets are from a sample.
    """

    at: datetime
    counts: Counts
    oldest: datetime | None
    processes: tuple[ProcessInfo, ...]
    seconds: float
    buckets: tuple[Bucket, ...]
    tasks: tuple[TaskSummary, ...]
    is_estimate: bool


class RunnerStats(TypedDict):
    """What `Runner.stats` counts.

    Attributes:
        queued: Jobs that have not ended and are not being run by this process; those in the
            journal included.
        running: Attempts under way in this process.
        succeeded, failed, cancelled: Jobs that have ended so since the runner was made.
        threads: Worker threads alive, busy and idle.
        handed_over: Jobs that were handed over to the engine since the runner was made.
    """

    queued: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    threads: int
    handed_over: int
