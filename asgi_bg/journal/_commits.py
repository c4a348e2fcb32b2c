"""Committing, and what becomes of a batch that cannot be committed (J2)."""

from __future__ import annotations

import logging
from collections.abc import Callable

from asgi_bg.exceptions import EngineError, JournalError
from asgi_bg.journal._receipts import Receipt, tell_all
from asgi_bg.journal.base import Batch, Journal, Unwritable

logger = logging.getLogger("asgi_bg")


class Commits:
    """Commits what is told, in one thread, and keeps what must be tried again.

    Args:
        journal: Where to.
        lost_key: Called with the ids of a new job and of the one that had its key.
        refused: Called with the id of a new job that nobody waits for and that can never be
            written, and why.

    Attributes:
        owed: What nobody waits for and must be written, also if that takes several tries.
    """

    def __init__(
        self,
        journal: Journal,
        lost_key: Callable[[str, str], None],
        refused: Callable[[str, str], None],
    ) -> None:
        self.owed = Batch()
        self._journal = journal
        self._lost_key = lost_key
        self._refused = refused
        self._is_failing = False

    def commit(self, receipts: list[Receipt]) -> None:
        """Write the jobs of receipts and what is owed, and tell who waits for them."""
        batch = Batch(
            added=[*self.owed.added, *(job for receipt in receipts for job in receipt.jobs)],
            marks=self.owed.marks,
            dropped=self.owed.dropped,
        )
        try:
            twins = self._journal.commit(batch)
        except Unwritable:
            self._commit_apart(receipts)
        except (JournalError, EngineError) as exc:
            self.note_failure(exc)
            for receipt in receipts:
                receipt.error = exc
        except Exception:
            # Something in the batch, and nobody else shall suffer from it.
            logger.exception("a batch could not be written; each part of it is tried alone")
            self._commit_apart(receipts)
        else:
            self.owed = Batch()
            self._note_success()
            self._note_written(receipts, twins)
        tell_all(receipts)

    def _commit_apart(self, receipts: list[Receipt]) -> None:
        parts = [Batch(added=[job]) for job in self.owed.added]
        parts += [Batch(marks=[mark]) for mark in self.owed.marks]
        if self.owed.dropped:
            parts.append(Batch(dropped=self.owed.dropped))
        self.owed = Batch()
        for part in parts:
            try:
                self._note_written([], self._journal.commit(part))
            except Unwritable as exc:
                for job in part.added:
                    self._refused(job.id, str(exc))
            except (JournalError, EngineError) as exc:
                self.note_failure(exc)
                self.owe(part)
            except Exception:
                logger.exception("a part of a batch cannot be written, and is given up")
        for receipt in receipts:
            try:
                twins = self._journal.commit(Batch(added=receipt.jobs))
            except (JournalError, EngineError) as exc:
                receipt.error = exc
            except Exception as exc:
                receipt.error = JournalError(f"the journal refuses the job: {exc}")
            else:
                self._note_written([receipt], twins)

    def _note_written(self, receipts: list[Receipt], twins: dict[str, str]) -> None:
        for loser, winner in twins.items():
            self._lost_key(loser, winner)
        for receipt in receipts:
            receipt.is_written = True

    def owe(self, batch: Batch) -> None:
        """Have this written with the next commit, and with those after it until one succeeds."""
        owed = self.owed
        self.owed = Batch(
            [*owed.added, *batch.added],
            [*owed.marks, *batch.marks],
            [*owed.dropped, *batch.dropped],
        )

    def note_failure(self, exc: JournalError | EngineError) -> None:
        """Log that the journal cannot be used, once until it can be again."""
        if not self._is_failing:
            self._is_failing = True
            logger.error("%s", exc)

    def _note_success(self) -> None:
        if self._is_failing:
            self._is_failing = False
            logger.warning("%s can be used again", self._journal.path)
