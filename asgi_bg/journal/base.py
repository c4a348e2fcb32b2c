"""What a journal is: the protocol, and the values that go in and come out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

import msgspec

__all__ = [
    "Batch",
    "Change",
    "Handover",
    "JobRow",
    "Journal",
    "Mark",
    "NewJob",
    "Orphan",
    "Owner",
    "Sample",
    "Standing",
    "Success",
    "Unwritable",
]


class NewJob(msgspec.Struct, frozen=True, array_like=True):
    """A job to be written.

    Attributes:
        id, task: Its id and the name of its task.
        call: Its arguments, as JSON text.
        options: The options that differ from the declared ones, as JSON text; or None.
        queued_at: When it was added, in seconds since the epoch.
        run_after: Before when it may not start, or None.
        priority: Of waiting jobs, the higher goes first; not higher than that of ``after``.
        key: At most one job that is still known may have it; or None.
        after: The id of the job of the same request that goes before it, or None.
        is_held: Whether this process runs it; otherwise whoever claims it.
        origin: The request that added it, as JSON text, or None.
    """

    id: str
    task: str
    call: str
    options: str | None
    queued_at: float
    run_after: float | None
    priority: int
    key: str | None
    after: str | None
    is_held: bool
    origin: str | None = None


class Success(msgspec.Struct, frozen=True, array_like=True):
    """A job of this process has succeeded, and nothing else is to be told of it.

    Attributes:
        id, attempt: The job, and the number of its attempt.
        started_at, finished_at: In seconds since the epoch.
        result: What its task returned, as JSON text; None if that is not kept.
    """

    id: str
    attempt: int
    started_at: float | None
    finished_at: float
    result: str | None


class Change(msgspec.Struct, frozen=True, array_like=True):
    """How a job of this process stands now: all that changes about a job.

    The attributes are those of `JobRow`, and:

    Attributes:
        is_held: Whether the process keeps it, to go on with it.
        past: Its attempts before the last one, as JSON text, or None where there are no more
            than the journal has.
    """

    id: str
    status: str
    attempt: int
    interrupted: int
    run_after: float | None
    started_at: float | None
    finished_at: float | None
    progress: float | None
    message: str
    result: str | None
    error: str | None
    traceback: str | None
    logs: str | None
    is_held: bool
    past: str | None = None


class Handover(msgspec.Struct, frozen=True, array_like=True):
    """A job of this process has been handed over to an engine, which runs it (E1).

    Attributes:
        id: The job.
        engine: The engine's name.
        at: When, in seconds since the epoch.
    """

    id: str
    engine: str
    at: float


Mark: TypeAlias = "Success | Change | Handover"
"""What a process tells of a job that it holds."""


class Batch(msgspec.Struct):
    """What is written in one commit: all of it or, if that fails, nothing.

    Attributes:
        added: New jobs.
        marks: How jobs of this process stand, in the order told.
        dropped: The ids of jobs of this process that are to leave no row (M5).
    """

    added: list[NewJob] = []
    marks: list[Mark] = []
    dropped: list[str] = []

    def __bool__(self) -> bool:
        return bool(self.added or self.marks or self.dropped)


class JobRow(msgspec.Struct, frozen=True):
    """A job as the journal has it.

    Attributes:
        id, task, call, options, queued_at, run_after, priority, key, after: As in `NewJob`.
        status: A word of `JobStatus`.
        attempt: How often it has been started.
        interrupted: How many of these attempts were cut off, by a crash or a shutdown.
        crashes: During how many of them their process died (J5).
        started_at, finished_at: In seconds since the epoch, or None.
        owner: The process that holds it, as ``pid:12345``, or None.
        progress, message: What its task last told.
        result: What it returned, as JSON text, or None.
        error, traceback: What it failed with last, or None.
        logs: Its last log records, as JSON text, or None.
        is_recovered: Whether the process that held it died, and nobody has had it since.
        engine: The engine that it was handed over to, at ``finished_at``; or None.
        origin: As in `NewJob`.
        past: Its attempts before the last one, as JSON text, or None.
    """

    id: str
    task: str
    call: str
    options: str | None
    queued_at: float
    run_after: float | None
    priority: int
    key: str | None
    after: str | None
    status: str
    attempt: int
    interrupted: int
    crashes: int
    started_at: float | None
    finished_at: float | None
    owner: str | None
    progress: float | None
    message: str
    result: str | None
    error: str | None
    traceback: str | None
    logs: str | None
    is_recovered: bool
    engine: str | None = None
    origin: str | None = None
    past: str | None = None


class Orphan(msgspec.Struct, frozen=True):
    """A job whose process died.

    Attributes:
        id, task: Its id and the name of its task.
        is_poisonous: Whether it has been failed, as too many processes died running it (J5).
    """

    id: str
    task: str
    is_poisonous: bool


class Owner(msgspec.Struct, frozen=True):
    """A process that owns jobs.

    Attributes:
        pid: Its number.
        is_alive: Whether it lives.
        held: How many jobs it owns.
        oldest: When the oldest one of them was added that waits, as far as the journal has been
            told, in seconds since the epoch; or None.
        is_own: Whether it is this process, by this journal.
    """

    pid: int
    is_alive: bool
    held: int
    oldest: float | None
    is_own: bool


class Standing(msgspec.Struct, frozen=True):
    """How all jobs stand at one moment.

    Attributes:
        counts: As `Journal.counts` says.
        retrying: How many of the queued ones wait for another attempt, up to the limit asked.
        handed_over: How many an engine has, up to the limit asked.
        oldest: When the oldest one was added that waits and is nobody's, in seconds since the
            epoch, or None.
        owners: The processes that own jobs.
    """

    counts: dict[str, int]
    retrying: int
    handed_over: int
    oldest: float | None
    owners: list[Owner]


class Sample(msgspec.Struct, frozen=True):
    """What is looked at of a job to tell rates and durations.

    Attributes:
        task, status, queued_at, started_at, finished_at: As in `JobRow`.
        is_handed_over: Whether an engine has it.
    """

    task: str
    status: str
    queued_at: float
    started_at: float | None
    finished_at: float | None
    is_handed_over: bool


class Unwritable(Exception):
    """Something in a batch can never be written, whatever else can; raised by `Journal.commit`."""


class Journal(Protocol):
    """Keeps jobs through a crash.

    Every method blocks, and none is called in an event loop, but for `note`, `counts` and
    `holder_of`, which must be quick. One thread calls those that write; those that read
    (`get`, `get_many`, `find`, `search`, `sample`, `standing`, `holder_of`, `counts`,
    `has_ready`, `has_retries`) are called from any thread, and no other call waits for `find`,
    `search`, `sample` and `standing`, which may take their time.

    Those that read, and `cancel`, `retry` and `purge`, also work in a process that has not
    called `open`, and do not make it an owner.

    **Ownership.** Between `open` and `close` the journal knows this process as an owner. It
    owns the jobs that it adds with ``is_held`` and those that it claims, until it marks them
    otherwise. Nobody else gets a job that a living process owns, however silent that is (J4).

    A job that was handed over to an engine is queued and nobody's, is over for the journal, and
    is not counted by `counts`; it is forgotten after a while, as finished ones are.

    All methods raise `JournalError` where the journal cannot do its work; the next call may
    well succeed again.
    """

    path: str
    """Where it is, for messages."""

    max_payload: int
    """How many bytes of JSON the arguments or the result of one job may take."""

    def open(self) -> None:
        """Open or make the journal, and become an owner."""
        ...

    def close(self) -> None:
        """Give all jobs of this process back, waiting for whoever claims them; let go."""
        ...

    def commit(self, batch: Batch) -> dict[str, str]:
        """Write a batch; all of it is on disk when this returns, or nothing if it raises.

        A mark changes a job only while this process owns it, and it has not ended. Of
        several marks of one job the last one counts, but none after one that ends it.

        Returns:
            For each new job whose key another job has, the id of that one; the new job was
            not written, and its id leads there from now on.
        """
        ...

    def note_start(self, id: str, attempt: int) -> None:
        """Keep that an attempt begins, at least through the death of the process alone.

        Called from any thread, before the task is.
        """
        ...

    def note(self, entry: Mark | NewJob) -> None:
        """Keep what is to be written through the death of the process, until it is committed.

        With a mark, the attempt whose start was noted is over.
        """
        ...

    def turn(self) -> None:
        """Know that the marks noted from now on are not of the commit that comes next."""
        ...

    def recover(self) -> list[Orphan]:
        """Take the jobs of owners that died from them, for whoever claims them (J3, J4).

        Jobs that were running are counted a crash; at the third they have failed (J5).
        """
        ...

    def claim(self, limit: int, now: float) -> list[JobRow]:
        """Become the owner of waiting jobs that may start, and return them.

        Of higher priority first, then older. One whose `JobRow.after` has not ended
        or left its turn is passed over, unless that is claimed along with it.
        """
        ...

    def next_due(self) -> float | None:
        """Return when the next job may start that is put off and nobody's, or None."""
        ...

    def cancellations(self) -> list[str]:
        """Return which jobs of this process others want to be cancelled."""
        ...

    def cancel(self, id: str, reason: str, now: float) -> None:
        """Cancel a job that nobody owns, or ask its owner to."""
        ...

    def retry(self, id: str) -> bool:
        """Make a failed or cancelled job a waiting one again; False if it is neither."""
        ...

    def retry_each(self, ids: Sequence[str]) -> list[str]:
        """Make those failed or cancelled jobs waiting ones again, all in one commit.

        Returns:
            The ids of those that are; the others are neither failed nor cancelled.
        """
        ...

    def purge(self, status: str | None, before: float, limit: int) -> int:
        """Forget up to ``limit`` jobs that ended (so) before that instant; count them."""
        ...

    def expire(self, now: float, limit: int) -> bool:
        """Look at up to ``limit`` old jobs, and forget those whose retention is over (J9).

        Returns:
            Whether there are more to look at.
        """
        ...

    def get(self, id: str) -> JobRow | None:
        """Return a job, or None if there is none of that id."""
        ...

    def find(
        self, status: str | None, task: str | None, after: str | None, limit: int
    ) -> list[JobRow]:
        """Return jobs, the newest first; ``after`` is the id of the last one known."""
        ...

    def get_many(self, ids: Sequence[str]) -> list[JobRow]:
        """Return those jobs that there are, in any order."""
        ...

    def search(
        self,
        status: str | None,
        task: str | None,
        text: str | None,
        after: str | None,
        limit: int,
        seconds: float,
    ) -> tuple[list[JobRow], str | None]:
        """Return jobs, the newest first, and where to go on.

        Args:
            status: Only those that stand so.
            task: Only those of the task of this name.
            text: Only those that have this in what can be searched, in upper or lower case.
            after: The id to go on after.
            limit: At most so many.
            seconds: For how long to look.

        Returns:
            The jobs, and the ``after`` for the next ones; None where there are no more.
        """
        ...

    def sample(self, stretches: Sequence[tuple[float, float]], limit: int) -> list[list[Sample]]:
        """Return the oldest jobs of each stretch of time, by when they were added.

        Args:
            stretches: From when to when each goes, in seconds since the epoch; what was added
                at the end itself is not of it.
            limit: Of each at most so many.
        """
        ...

    def standing(self, limit: int) -> Standing:
        """Return how all jobs stand; what has to be counted one by one, up to ``limit``."""
        ...

    def holder_of(self, key: str) -> str | None:
        """Return the id of the job that has this key, or None (J6)."""
        ...

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are of each status, in constant time."""
        ...

    def has_ready(self) -> bool:
        """Whether nobody's jobs wait that may start now."""
        ...

    def has_retries(self) -> bool:
        """Whether nobody's jobs wait to be tried again."""
        ...
