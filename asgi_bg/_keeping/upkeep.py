"""What the journal is looked after with: dead processes, cancellations, old jobs, progress."""

from __future__ import annotations

import time
from collections.abc import Mapping

from asgi_bg._job import JobStatus
from asgi_bg._keeping.claims import Claims
from asgi_bg._keeping.marks import standing_of
from asgi_bg._record import JobRecord, kept_of
from asgi_bg.journal._writer import Writer
from asgi_bg.journal.base import Journal, Orphan

RECOVER_INTERVAL = 1.0
"""How many seconds lie between two looks whether other processes have died (J4)."""

EXPIRE_INTERVAL = 30.0
"""How many seconds lie between two looks for jobs whose retention is over."""

EXPIRED = 500
"""At how many old jobs is looked at a time."""

EXPIRE_TIME = 0.02
"""For how many seconds that goes on before others have their turn."""


class Upkeep:
    """Looks after a journal, now and then: half of it in the writer's thread, half in the loop.

    Args:
        journal: The journal.
        writer: Who writes to it.
        claims: Takes jobs from it.
        held: The jobs that this process holds, by id.
        running: Those of them that run.
    """

    def __init__(
        self,
        journal: Journal,
        writer: Writer,
        claims: Claims,
        held: Mapping[str, JobRecord],
        running: dict[JobRecord, None],
    ) -> None:
        self._journal = journal
        self._writer = writer
        self._claims = claims
        self._held = held
        self._running = running
        self._next_recovery = 0.0
        self._next_expiry = 0.0

    def tick(self) -> None:
        """Find what is to be done; in the writer's thread."""
        now = time.time()
        host = self._claims.host
        if host is None or self._claims.is_closing:
            return
        orphans: list[Orphan] = []
        if now >= self._next_recovery:
            self._next_recovery = now + RECOVER_INTERVAL
            orphans = self._journal.recover()
        cancelled = self._journal.cancellations()
        is_ready = self._journal.has_ready()
        due = self._journal.next_due()
        if now >= self._next_expiry:
            is_more = self._journal.expire(now, EXPIRED)
            while is_more and time.time() < now + EXPIRE_TIME:
                is_more = self._journal.expire(now, EXPIRED)
            self._next_expiry = now if is_more else now + EXPIRE_INTERVAL
        is_due = due is not None and due <= now + 1.0
        is_left = self._claims.has_brought  # by a loop that has ended since
        if orphans or cancelled or is_ready or is_due or is_left or self._running:
            try:
                host.loop.call_soon_threadsafe(
                    self._look, orphans, cancelled, is_ready, due if is_due else None
                )
            except RuntimeError:
                self._claims.detach(host.loop)

    def _look(
        self, orphans: list[Orphan], cancelled: list[str], is_ready: bool, due: float | None
    ) -> None:
        """Act on what the tick has found, in the event loop."""
        self.announce(orphans)
        for wanted in cancelled:
            record = self._held.get(wanted)
            if record is not None and self._claims.host is not None:
                record.home.cancel(record, "cancelled by request")
        self._show_progress()
        self._claims.take_brought()
        if is_ready:
            self._claims.has_backlog = True
            self._claims.claim_soon()
        if due is not None:
            self._claims.claim_at(due)

    def announce(self, orphans: list[Orphan]) -> None:
        """Tell of jobs that were taken over from processes that died."""
        if orphans and self._claims.host is not None:
            self._claims.host.recovered(orphans)

    def _show_progress(self) -> None:
        """Have it written which jobs are running, and how far they are."""
        for record in list(self._running):
            kept = kept_of(record)
            shown = (record.attempt, record.fraction, record.message)
            if record.status is JobStatus.running and kept.shown != shown and kept.is_told:
                kept.shown = shown
                self._writer.show([standing_of(record, is_held=True)])
