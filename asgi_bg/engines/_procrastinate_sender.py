"""Sends jobs in few statements, each of them once as far as that can be known (E2)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import cast

from procrastinate.jobs import Job
from procrastinate.manager import QUEUEING_LOCK_CONSTRAINT, JobManager
from psycopg import DataError, IntegrityError

from asgi_bg.engines._procrastinate_jobs import job_of
from asgi_bg.engines._procrastinate_line import Line
from asgi_bg.engines._procrastinate_numbers import Numbers
from asgi_bg.engines._procrastinate_sql import KNOWN_AMONG
from asgi_bg.engines.base import Message

__all__ = ["Sender"]

FRESH = 0.25
"""For how many seconds after it was added a job is sure not to have been sent by a process that
has died since."""

LAST = 10_000
"""Among how many of the jobs deferred last it is seen that one sent again has ended already."""


class Sender:
    """Defers jobs.

    Args:
        line: The way to the tables.
        numbers: Told by which numbers the jobs are known.

    Attributes:
        broken_at: When the line was cut, in seconds since the epoch: of what was sent before
            nobody knows whether it arrived.
    """

    def __init__(self, line: Line, numbers: Numbers) -> None:
        self._line = line
        self._numbers = numbers
        self.broken_at = time.time()

    async def send(self, messages: Sequence[Message]) -> list[str | None]:
        """Send jobs; see `asgi_bg.engines.Engine.send`."""
        answers: dict[str, str | None] = {}
        doubted = [message.id for message in messages if self._is_doubted(message)]
        if doubted:
            found = await self._line.execute_query_all_async(KNOWN_AMONG, locks=doubted, last=LAST)
            answers.update((row["lock"], None) for row in found)
        new = [(message, job_of(message)) for message in messages if message.id not in answers]
        await self._defer(new, answers)
        return [answers[message.id] for message in messages]

    def _is_doubted(self, message: Message) -> bool:
        """Whether it may have been sent before, and nobody heard of the acknowledgement."""
        return message.queued_at < max(self.broken_at, time.time() - FRESH)

    async def _defer(
        self, entries: Sequence[tuple[Message, Job]], answers: dict[str, str | None]
    ) -> None:
        """Defer jobs with one statement; halve them to find one that cannot be."""
        if not entries:
            return
        jobs = [job for _, job in entries]
        try:
            deferred = await JobManager(self._line).batch_defer_jobs_async(jobs)
        except (DataError, IntegrityError) as exc:
            if len(entries) == 1:
                ((message, job),) = entries
                answers[message.id] = await self._reason(exc, message, job)
                return
        else:
            for (message, _), job in zip(entries, deferred, strict=True):
                answers[message.id] = None
                self._numbers.remember(message.id, cast("int", job.id))
            return
        middle = len(entries) // 2
        await self._defer(entries[:middle], answers)
        await self._defer(entries[middle:], answers)

    async def _reason(
        self, exc: DataError | IntegrityError, message: Message, job: Job
    ) -> str | None:
        """Return why PostgreSQL will never take a job; None if it has it already."""
        if isinstance(exc, DataError):
            return f"PostgreSQL cannot keep it: {exc}"
        if exc.diag.constraint_name != QUEUEING_LOCK_CONSTRAINT:
            raise exc  # of the user's own; the next time may be better
        if job.queueing_lock == message.id:
            return None
        reason = f"a job with the queueing lock {job.queueing_lock!r} waits already"
        if not self._is_doubted(message):
            return reason
        waiting = await JobManager(self._line).list_jobs_async(
            task=job.task_name, queueing_lock=job.queueing_lock, status="todo"
        )
        is_known = any(other.task_kwargs == job.task_kwargs for other in waiting)
        return None if is_known else reason
