"""Keeps the jobs of declared tasks in a journal: what to tell it, and what to take from it.

A job that waits or runs in this process is *held*: the journal knows it as ours, and its
record is in memory. There is room for so many; the others are *away*, rows in the journal
that this process or another one claims when it has room. So a backlog costs no memory,
however long it is (R8).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from asgi_bg._job import JobInfo, JobStatus, as_instant, job_extras
from asgi_bg._keeping.archive import Archive
from asgi_bg._keeping.claims import Claims, Host
from asgi_bg._keeping.marks import release_of, standing_of, success_of
from asgi_bg._keeping.saving import Saver
from asgi_bg._keeping.upkeep import Upkeep
from asgi_bg._limits import Limits
from asgi_bg._record import JobRecord, kept_of
from asgi_bg._registry import Registry
from asgi_bg._rows import info_of
from asgi_bg.engines._direct import DirectJournal
from asgi_bg.engines._link import Link
from asgi_bg.exceptions import EngineError, JournalError
from asgi_bg.journal._writer import Writer
from asgi_bg.journal.base import Handover, JobRow, Journal

logger = logging.getLogger("asgi_bg")

SHORT_WAIT = 1.0
"""How many seconds a job may be put off in memory, where it keeps others out."""


class Keeper:
    """Stands between the schedulers of a runner and its journal.

    Args:
        journal: The journal.
        registry: The jobs that this process knows.
        limits: What bounds the jobs: how many are held at once follows from that.
        link: The way to the engine that the jobs are handed over to, if there is one.

    Attributes:
        held: The jobs that this process holds, by id.
        archive: Answers questions about all that are kept.
        claims: Takes jobs from the journal.
        saver: Has new jobs written.
        has_disk: Whether there is a journal; otherwise an engine stands for it (E1).
    """

    def __init__(
        self,
        journal: Journal,
        registry: Registry,
        limits: Limits,
        link: Link | None,
    ) -> None:
        # What runs, and as much again in line, so that no slot waits for the disk.
        window = min(2 * limits.max_jobs, max(limits.max_queued, 2))
        self._journal = journal
        self.has_disk = not isinstance(journal, DirectJournal)
        self._registry = registry
        self._writer = Writer(journal, self._tick, self._lost_key, self._refused)
        self.held: dict[str, JobRecord] = {}
        self._running: dict[JobRecord, None] = {}
        self.archive = Archive(journal, self._writer, registry, self.held, link)
        self.claims = Claims(journal, self._writer, self.held, window, is_strict=link is not None)
        self._has_stuck = False
        self.saver = Saver(
            journal,
            self._writer,
            registry,
            self.archive,
            self.claims,
            self.held,
            ordered=limits.ordered,
            link=link,
        )
        self._upkeep = Upkeep(journal, self._writer, self.claims, self.held, self._running)

    # Its lifetime.

    def attach(self, host: Host) -> None:
        """Begin to work, and let this one run what is claimed."""
        self.claims.attach(host)
        self._writer.start()
        if not self.archive.is_open.is_set():
            self._writer.call(self._journal.open, self._opened)
        self.claims.claim_soon()

    def _opened(self, _: object, error: BaseException | None) -> None:
        # An error is told by the next call, and by every job that cannot be written.
        self.archive.is_open.set()

    async def open(self) -> None:
        """Wait until the journal is open, and the jobs of dead processes are waiting again.

        Raises:
            JournalError: It cannot be opened.
        """
        await self.archive.call(self._journal.open)
        self._upkeep.announce(await self.archive.call(self._journal.recover))
        self.claims.claim_soon()
        # And until the first of them are here: a life of one request (AWS Lambda) gets on, too.
        await self.archive.written()

    async def close(self) -> None:
        """Write what is left, and give back what is held."""
        self.claims.stop_claiming()
        try:
            await self.archive.written()  # a claim under way is given back before
            for job in () if self.has_disk else self._writer.owed.added:
                logger.error(
                    "job %s of task %s is lost: no engine has it",
                    job.id,
                    job.task,
                    extra=job_extras(job.id, job.task),
                )
            if not self._has_stuck:
                # A thread that cannot be stopped is at its job as long as the process lives.
                await self.archive.call(self._journal.close)
        except (JournalError, EngineError) as exc:
            logger.error("the journal could not be closed, its lock will tell: %s", exc)
        self.claims.clear()
        self._writer.close()
        self.archive.close()

    # What the writer's thread tells.

    def _tick(self) -> None:
        self._upkeep.tick()

    def _lost_key(self, loser: str, winner: str) -> None:
        """Let a job be the one that another process has given its key to (J6)."""
        record = self.held.get(loser)
        if record is not None and self.claims.host is not None:
            with contextlib.suppress(RuntimeError):  # the loop was closed
                self.claims.host.loop.call_soon_threadsafe(self._follow, record, winner)

    def _refused(self, id: str, reason: str) -> None:
        """Tell of a job that the engine will never take, and for which no response waits."""
        logger.error(
            "job %s is lost, as it cannot be handed over: %s", id, reason, extra=job_extras(id)
        )

    def _follow(self, record: JobRecord, winner: str) -> None:
        if record.finished_at is None:
            self._let_go(record)
            record.become(winner)
            self._registry.name(record)

    # Jobs on their way through this process.

    def begins(self, record: JobRecord) -> None:
        """Note that an attempt begins; from any thread."""
        self._journal.note_start(record.id, record.attempt)
        self._running[record] = None

    def returned(self, record: JobRecord, value: Any) -> None:
        """Have it written that a function has returned, in its thread.

        Its event loop may be busy for long before it hears of that.
        """
        kept = kept_of(record)
        if kept.is_told:
            kept.returned = record.run
            limit = self._journal.max_payload
            self._writer.mark(success_of(record, value, time.time(), limit))

    def ended(self, record: JobRecord) -> None:
        """Have it written how a job has ended."""
        kept = kept_of(record)
        self._forget(record)
        if not kept.is_told:
            return
        if record.status is not JobStatus.succeeded:
            self._registry.name(record)  # it may be retried, and somebody hold it
        if record.task.options.key is not None:
            # Until the row is written, nothing but the record tells who has the key.
            self._writer.flush(partial(_let_go_of, record))
        assert record.finished_at is not None  # noqa: S101 - it has ended
        if record.status is not JobStatus.succeeded:
            self._writer.mark(standing_of(record, is_held=False))
        elif kept.returned != record.run:
            limit = self._journal.max_payload
            self._writer.mark(success_of(record, record.value, record.finished_at, limit))
        self.claims.claim_if_room()

    def hand_over(self, records: Sequence[JobRecord], engine: str) -> None:
        """Have it written that an engine has these jobs now."""
        if self.has_disk:
            # No note is kept until then: a crash before the next commit sends them again (E2).
            now = time.time()
            self._writer.show([Handover(record.id, engine, now) for record in records])
        for record in records:
            self._let_go(record)
        self.claims.claim_if_room()

    def dropped(self, record: JobRecord) -> None:
        """Have a job leave no row behind (M5)."""
        self._forget(record)
        if kept_of(record).is_told:
            self._writer.drop(record.id)

    def put_off(self, record: JobRecord) -> bool:
        """Have it written that a job waits; return whether it does that in this process."""
        self._running.pop(record, None)
        if not self.try_to_wait(record):
            return False
        self._writer.mark(standing_of(record, is_held=True))
        return True

    def try_to_wait(self, record: JobRecord) -> bool:
        """Let a job that is put off wait in memory, or else give it back; return which.

        In memory it waits for a moment only, as it takes up room.
        """
        wait = (record.run_after or 0.0) - time.time()
        if wait <= SHORT_WAIT and len(self.held) <= self.claims.limit:
            return True
        self.give_back(record)
        return False

    def try_to_hold(self, record: JobRecord) -> bool:
        """Let a job that may start now wait in memory, or else give it back; return which."""
        if kept_of(record).is_claimed or len(self.held) <= self.claims.limit:
            return True
        self.give_back(record)
        return False

    def give_back(self, record: JobRecord, *, is_stuck: bool = False) -> None:
        """Let a job wait in the journal, for this process or another one.

        Args:
            record: The job.
            is_stuck: Whether a thread is still at it, so that nobody may have it while this
                process lives.
        """
        kept_of(record).is_away = True
        if is_stuck:
            self._has_stuck = True
        self._writer.mark(standing_of(record, is_held=is_stuck))
        self._let_go(record)
        self.claims.has_backlog = True

    def _let_go(self, record: JobRecord) -> None:
        kept_of(record).is_away = True
        self._forget(record)
        self._registry.unfinished.pop(record, None)
        self._registry.name(record)  # whoever has it finds it again when it is claimed
        record.wake()

    def _forget(self, record: JobRecord) -> None:
        self.held.pop(record.id, None)
        self._running.pop(record, None)

    def adopt(self, record: JobRecord) -> None:
        """Hold a job that was claimed."""
        self.held[record.id] = record

    def fail_row(self, row: JobRow, reason: str) -> JobInfo:
        """Fail a job that was claimed and cannot be run (J8)."""
        mark = release_of(row, "failed", reason)
        self._writer.mark(mark)
        self._registry.ended[JobStatus.failed] += 1
        return msgspec.structs.replace(
            info_of(row),
            status=JobStatus.failed,
            error=reason,
            finished_at=None if mark.finished_at is None else as_instant(mark.finished_at),
        )


def _let_go_of(record: JobRecord, value: object, error: BaseException | None) -> None:
    """Do nothing: as long as this was to be called, the record was there."""
