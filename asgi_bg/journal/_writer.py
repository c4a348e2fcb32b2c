"""The thread that works on a journal: group commit, and whatever else blocks.

While one commit is under way, all that is told is gathered; the next commit writes it all. So
however many requests wait at once, they share one sync of the disk, and a commit
waits for the interpreter lock a few times and not once for every job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from asgi_bg.exceptions import EngineError, JournalError
from asgi_bg.journal.base import Batch, Journal, Mark, NewJob, Unwritable

logger = logging.getLogger("asgi_bg")

TICK_INTERVAL = 0.25
"""How many seconds lie between two looks at what others do with the journal."""

Call = Callable[[], Any]


class Receipt:
    """Tells those who wait for it whether some jobs have been written (J1).

    Attributes:
        is_written: Whether they have been.
        error: Why they have not, and will not be.
    """

    __slots__ = ("_loop", "_waiters", "error", "is_written", "jobs")

    def __init__(self, jobs: list[NewJob], loop: asyncio.AbstractEventLoop) -> None:
        self.jobs = jobs
        self.is_written = False
        self.error: JournalError | EngineError | None = None
        self._loop = loop
        self._waiters: list[asyncio.Future[None]] = []

    async def written(self) -> None:
        """Wait until the jobs are on disk.

        Raises:
            JournalError, EngineError: They cannot be written, or handed over.
        """
        if not self.is_written and self.error is None:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self.error is not None:
            # A new one each time, as several may raise it.
            raise type(self.error)(str(self.error)) from self.error.__cause__

    @property
    def is_over(self) -> bool:
        """Whether there is nothing to wait for any more."""
        return self.is_written or self.error is not None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of those who wait."""
        return self._loop

    def tell(self) -> None:
        """Wake who waits, in their event loop."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


class Writer:
    """Gathers what is to be written, and writes it in a thread of its own.

    All methods may be called from any thread.

    Args:
        journal: Where to.
        tick: Called in the thread a few times a second, to look after the journal.
        lost_key: Called in the thread with the ids of a new job and of the one that had
            its key.
        refused: Called in the thread with the id of a new job that nobody waits for and that can
            never be written, and why.
    """

    def __init__(
        self,
        journal: Journal,
        tick: Callable[[], None],
        lost_key: Callable[[str, str], None],
        refused: Callable[[str, str], None],
    ) -> None:
        self._journal = journal
        self._tick = tick
        self._lost_key = lost_key
        self._refused = refused
        self._lock = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._is_rung = False
        self._receipts: list[Receipt] = []
        self._late: list[NewJob] = []
        self._marks: list[Mark] = []
        self._dropped: list[str] = []
        self._calls: list[tuple[Call, Callable[[Any, BaseException | None], None]]] = []
        # What nobody waits for and must be written, also if that takes several tries.
        self._owed = Batch()
        self._is_closing = False
        self._is_failing = False
        self._thread: threading.Thread | None = None

    @property
    def owed(self) -> Batch:
        """What nobody waits for, and could not be written so far."""
        return self._owed

    def start(self) -> None:
        """Start the thread, if it does not run."""
        if self._thread is None:
            self._is_closing = False
            self._thread = threading.Thread(target=self._run, name="asgi_bg journal", daemon=True)
            self._thread.start()

    def add(self, receipt: Receipt) -> None:
        """Have the jobs of a receipt written."""
        with self._lock:
            self._receipts.append(receipt)
        self._ring()

    def add_late(self, jobs: list[NewJob]) -> None:
        """Have jobs written for which nobody waits; until then a note of them is kept."""
        with self._lock:
            for job in jobs:
                self._journal.note(job)
            self._late += jobs
        self._ring()

    def mark(self, mark: Mark) -> None:
        """Have a mark written; until then a note of it is kept."""
        with self._lock:
            self._journal.note(mark)
            self._marks.append(mark)
        self._ring()

    def show(self, marks: Sequence[Mark]) -> None:
        """Have marks written that it does no harm to lose."""
        with self._lock:
            self._marks += marks
        self._ring()

    def drop(self, id: str) -> None:
        """Have a job removed."""
        with self._lock:
            self._dropped.append(id)
        self._ring()

    def call(self, function: Call, done: Callable[[Any, BaseException | None], None]) -> None:
        """Call a function in the thread, once all that was told before has been written.

        Args:
            function: The function.
            done: Called in the thread with what it returned or raised.
        """
        with self._lock:
            self._calls.append((function, done))
        self._ring()

    def flush(self, done: Callable[[Any, BaseException | None], None]) -> None:
        """Call a function in the thread, with nothing, once all told before has been written."""
        self.call(_nothing, done)

    def close(self) -> None:
        """Write what is left, and let the thread end; wait for that."""
        thread, self._thread = self._thread, None
        if thread is not None:
            self._is_closing = True
            self._ring()
            thread.join()

    def _ring(self) -> None:
        # One look without the lock suffices: who sees a rung bell told before it is heard.
        if not self._is_rung:
            self._is_rung = True
            with contextlib.suppress(RuntimeError):  # rung by another thread at this moment
                self._bell.release()

    def _run(self) -> None:
        next_tick = time.monotonic() + TICK_INTERVAL
        while True:
            self._bell.acquire(timeout=max(0.0, next_tick - time.monotonic()))
            self._is_rung = False
            self._work()
            if self._is_closing:
                if self._owed:
                    self._work()  # once more
                return
            if time.monotonic() >= next_tick:
                try:
                    self._tick()
                except JournalError as exc:
                    self._note_failure(exc)
                except Exception:
                    logger.exception("looking after the journal failed")
                next_tick = time.monotonic() + TICK_INTERVAL

    def _work(self) -> None:
        with self._lock:
            receipts, self._receipts = self._receipts, []
            calls, self._calls = self._calls, []
            if self._late or self._marks or self._dropped:
                if not self._owed:
                    self._journal.turn()
                self._owe(Batch(self._late, self._marks, self._dropped))
                self._late, self._marks, self._dropped = [], [], []
        if receipts or self._owed:
            self._commit(receipts)
        for function, done in calls:
            value = error = None
            try:
                value = function()
            except BaseException as exc:
                error = exc
            try:
                done(value, error)
            except Exception:
                logger.exception("an answer of the journal could not be delivered")

    def _commit(self, receipts: list[Receipt]) -> None:
        batch = Batch(
            added=[*self._owed.added, *(job for receipt in receipts for job in receipt.jobs)],
            marks=self._owed.marks,
            dropped=self._owed.dropped,
        )
        try:
            twins = self._journal.commit(batch)
        except Unwritable:
            self._commit_apart(receipts)
        except (JournalError, EngineError) as exc:
            self._note_failure(exc)
            for receipt in receipts:
                receipt.error = exc
        except Exception:
            # Something in the batch, and nobody else shall suffer from it.
            logger.exception("a batch could not be written; each part of it is tried alone")
            self._commit_apart(receipts)
        else:
            self._owed = Batch()
            self._note_success()
            self._note_written(receipts, twins)
        self._tell(receipts)

    def _commit_apart(self, receipts: list[Receipt]) -> None:
        parts = [Batch(added=[job]) for job in self._owed.added]
        parts += [Batch(marks=[mark]) for mark in self._owed.marks]
        if self._owed.dropped:
            parts.append(Batch(dropped=self._owed.dropped))
        self._owed = Batch()
        for part in parts:
            try:
                self._note_written([], self._journal.commit(part))
            except Unwritable as exc:
                for job in part.added:
                    self._refused(job.id, str(exc))
            except (JournalError, EngineError) as exc:
                self._note_failure(exc)
                self._owe(part)
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

    def _owe(self, batch: Batch) -> None:
        owed = self._owed
        self._owed = Batch(
            [*owed.added, *batch.added],
            [*owed.marks, *batch.marks],
            [*owed.dropped, *batch.dropped],
        )

    def _note_written(self, receipts: list[Receipt], twins: dict[str, str]) -> None:
        for loser, winner in twins.items():
            self._lost_key(loser, winner)
        for receipt in receipts:
            receipt.is_written = True

    def _tell(self, receipts: list[Receipt]) -> None:
        by_loop: dict[asyncio.AbstractEventLoop, list[Receipt]] = {}
        for receipt in receipts:
            by_loop.setdefault(receipt.loop, []).append(receipt)
        for loop, told in by_loop.items():
            try:
                loop.call_soon_threadsafe(_tell_all, told)
            except RuntimeError:
                logger.debug("an event loop was closed while its jobs were being written")

    def _note_failure(self, exc: JournalError | EngineError) -> None:
        if not self._is_failing:
            self._is_failing = True
            logger.error("%s", exc)

    def _note_success(self) -> None:
        if self._is_failing:
            self._is_failing = False
            logger.warning("%s can be used again", self._journal.path)


def _nothing() -> None:
    pass


def _tell_all(receipts: list[Receipt]) -> None:
    for receipt in receipts:
        receipt.tell()
