"""Stops jobs before their end: by request, at a shutdown, with their event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asgi_bg._job import Cancelled, Interrupted
from asgi_bg._messages import log_unfinished
from asgi_bg._record import JobRecord
from asgi_bg._scheduling.attempts import Attempts
from asgi_bg._scheduling.ends import Ends

if TYPE_CHECKING:
    from collections.abc import Iterable

CANCEL_GRACE = 1.0
"""How many seconds cancelled jobs get to clean up when a runner is closed."""


class Stopping:
    """Stops jobs of one event loop, in whatever state they are.

    All methods belong to the loop's thread.

    Args:
        attempts: Who carries them out.
        ends: Ends them.
    """

    def __init__(self, attempts: Attempts, ends: Ends) -> None:
        self._attempts = attempts
        self._ends = ends

    def cancel(self, record: JobRecord, reason: str) -> None:
        """Cancel a job; one that has ended stays as it is."""
        if record.finished_at is not None:
            return
        if record.has_slot:
            self._attempts.give_up(record, Cancelled(reason))
        else:
            is_held = _is_held(record)
            was_in_line = _stop_waiting(record)
            self._ends.cancel(record, reason)
            self._let_others_on(record, is_held=is_held, was_in_line=was_in_line)

    def leave_behind(self, record: JobRecord) -> None:
        """Give a job back to the journal that waits here."""
        is_held = _is_held(record)
        was_in_line = _stop_waiting(record)
        record.is_loose = True
        record.line = None
        self._ends.give_back(record)
        self._let_others_on(record, is_held=is_held, was_in_line=was_in_line)

    def _let_others_on(self, record: JobRecord, *, is_held: bool, was_in_line: bool) -> None:
        """Let those go on that have waited for a job, or behind it."""
        if was_in_line:
            self._attempts.slots.forget(record)
        if is_held:
            self._attempts.leave(record)

    async def cancel_all(self, records: Iterable[JobRecord], reason: str) -> None:
        """Cancel these jobs, and give those that run a moment to clean up.

        Those that are kept in a journal wait there for another attempt.
        """
        # Those that wait first: room that a running one leaves must not start them.
        for record in sorted(records, key=lambda record: record.has_slot):
            if record.kept is None:
                if record.brought is not None:
                    record.brought.cancel()  # it is the engine's to have it run again
                self.cancel(record, reason)
            elif not record.kept.is_told:
                pass  # its response has yet to be promised anything; `refuse` will end it
            elif record.has_slot:
                self._attempts.give_up(record, Interrupted(reason))
            else:
                self.leave_behind(record)
        await self._attempts.ended(CANCEL_GRACE)

    def leave_waiting_behind(self, records: Iterable[JobRecord]) -> None:
        """Give those of these jobs back that are kept and wait for long, before a shutdown."""
        for record in records:
            if record.timer is not None and not record.has_slot and record.kept is not None:
                self.leave_behind(record)

    def abandon(self, records: list[JobRecord]) -> None:
        """End the jobs of a loop that was closed: nothing will run them any more."""
        for record in records:
            if record.kept is not None and record.kept.is_told:
                self._ends.give_back(record)
            else:
                self._ends.cancel(record, "its event loop was closed")
        if records:
            log_unfinished(records, "their event loop was closed")


def _is_held(record: JobRecord) -> bool:
    """Whether others wait for a job that has no slot.

    It waits with its collector or in its lane's queue, which pass over it, or for its instant;
    or else it holds up its lane or the drain, waiting for a slot or a retry.
    """
    is_retry = record.timer is not None and record.attempt > 0
    return record.lane is not None or record.turn > 0 or is_retry


def _stop_waiting(record: JobRecord) -> bool:
    """End the wait for an instant; return whether it waits for a slot."""
    if record.timer is not None:
        record.timer.cancel()
        record.timer = None
    return record.turn > 0
