"""The way of jobs from the journal into this process."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import Any, Protocol

from asgi_bg import events
from asgi_bg._job import JobStatus, job_extras
from asgi_bg._keeping.keeper import Keeper
from asgi_bg._origin import read as read_origin
from asgi_bg._record import NO_KEYWORDS, Home, JobRecord, Kept, kept_of
from asgi_bg._registry import Registry
from asgi_bg._rows import task_of
from asgi_bg._scheduling.lane import Dispatcher, run_apart
from asgi_bg._task import Task
from asgi_bg.exceptions import JobNotFound, JournalError
from asgi_bg.journal._past import past_in
from asgi_bg.journal.base import JobRow, Orphan
from asgi_bg.journal.codec import codec_of

logger = logging.getLogger("asgi_bg")


class Runs(Dispatcher, Home, Protocol):
    """Who runs the jobs of one event loop: a scheduler."""

    @property
    def forwards(self) -> bool:
        """Whether it hands jobs over to an engine instead of running them."""
        ...

    def pack(self, record: JobRecord) -> None:
        """Make the call of a job one for another process."""
        ...


class Intake:
    """Makes records of the rows that were claimed, and has them run.

    All methods belong to the loop's thread.
    """

    def __init__(self, runs: Runs, keeper: Keeper, registry: Registry, told: events.Events) -> None:
        self.loop = runs.loop
        self._runs = runs
        self._keeper = keeper
        self._registry = registry
        self._events = told
        self._telling: set[asyncio.Task[None]] = set()
        self._untold: set[str] = set()

    def take_up(self, rows: list[JobRow]) -> None:
        """Run jobs that were claimed from the journal, or hand them over."""
        if self._runs.forwards:
            for row in rows:
                record = self._record_of(row)
                if record is not None:
                    self._runs.submit(record)
            return
        chains: dict[str, list[JobRecord]] = {}
        for row in rows:
            record = self._record_of(row)
            if record is None:
                continue
            # Jobs of one request go one after another (R2), the others each by itself.
            chain = chains[row.id] = chains.get(row.after or "", [])
            chain.append(record)
        for chain in {id(chain): chain for chain in chains.values()}.values():
            run_apart(self._runs, chain)

    def _record_of(self, row: JobRow) -> JobRecord | None:
        """Return the record of a claimed job; None if it had to be failed (J8)."""
        record = self._registry.known(row.id)
        try:
            if record is None or record.kept is None:
                task = task_of(row)
                args, kwargs = self._arguments_of(row, task)
                record = JobRecord(
                    task, args, kwargs, Context(), self._runs, read_origin(row.origin)
                )
                record.trace = None  # that of its origin counts
                record.kept = Kept(row.call, row.options)
                record.queued_at = row.queued_at
                record.become(row.id)
            if record.task.place == "process" and not self._runs.forwards:
                self._runs.pack(record)
        except Exception as exc:
            self._fail_unfit(row, exc)
            return None
        kept = kept_of(record)
        kept.is_told = kept.is_claimed = True
        kept.is_away = False
        kept.interrupted = row.interrupted
        record.home = self._runs
        record.status = JobStatus.queued
        record.attempt = row.attempt
        record.run_after = record.finished_at = record.verdict = None
        record.error, record.traceback = row.error, row.traceback
        record.past = past_in(row)
        record.turn = 0
        self._registry.unfinished[record] = None
        self._keeper.adopt(record)
        if row.id in self._untold:  # before anything else is told of it
            self._untold.remove(row.id)
            self._events.emit(events.RECOVERED, record)
        return record

    def _arguments_of(
        self, row: JobRow, task: Task[..., Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self._runs.forwards:
            return (), NO_KEYWORDS  # they go as they are
        return codec_of(task).decode(row.call)

    def _fail_unfit(self, row: JobRow, exc: Exception) -> None:
        reason = f"{type(exc).__name__}: {exc}"
        info = self._keeper.fail_row(row, reason)
        logger.error(
            "job %s of task %s cannot be run, and has failed: %s",
            row.id,
            row.task,
            reason,
            extra=job_extras(row.id, row.task),
        )
        if self._events.handlers:
            self._events.tell(events.FAILED, info)

    def recovered(self, orphans: list[Orphan]) -> None:
        """Tell of jobs whose process died (J3, J5)."""
        poisonous = [orphan for orphan in orphans if orphan.is_poisonous]
        if len(orphans) > len(poisonous):
            logger.warning(
                "%d job(s) of a process that died are taken over", len(orphans) - len(poisonous)
            )
        for orphan in poisonous:
            logger.error(
                "job %s of task %s has failed: too many processes died while they ran it",
                orphan.id,
                orphan.task,
                extra=job_extras(orphan.id, orphan.task),
            )
        if self._events.handlers and orphans:
            self._untold.update(orphan.id for orphan in orphans if not orphan.is_poisonous)
            telling = self.loop.create_task(self._tell_of(orphans))
            self._telling.add(telling)
            telling.add_done_callback(self._telling.discard)

    async def _tell_of(self, orphans: list[Orphan]) -> None:
        """Tell of those that are not claimed here, but wait, or went to another process."""
        for orphan in orphans:
            if not orphan.is_poisonous and orphan.id not in self._untold:
                continue
            try:
                info = await self._keeper.archive.info(orphan.id)
            except (JobNotFound, JournalError) as exc:
                logger.debug("a job that was taken over cannot be told of: %s", exc)
                self._untold.discard(orphan.id)
                continue
            if orphan.is_poisonous:
                self._events.tell(events.FAILED, info)
            elif orphan.id in self._untold:
                self._untold.remove(orphan.id)
                self._events.tell(events.RECOVERED, info)
