"""The thread that works on a journal: group commit, and whatever else blocks.

While one commit is under way, all that is told is gathered; the next commit writes it all. So
however many requests wait at once, they share one sync of the disk, and a commit
waits for the interpreter lock a few times and not once for every job.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from asgi_bg.exceptions import JournalError
from asgi_bg.journal._commits import Commits
from asgi_bg.journal._receipts import Receipt
from asgi_bg.journal.base import Batch, Journal, Mark, NewJob

logger = logging.getLogger("asgi_bg")

TICK_INTERVAL = 0.25
"""How many seconds lie between two looks at what others do with the journal."""

Call = Callable[[], Any]


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
        self._commits = Commits(journal, lost_key, refused)
        self._lock = threading.Lock()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._is_rung = False
        self._receipts: list[Receipt] = []
        self._late: list[NewJob] = []
        self._marks: list[Mark] = []
        self._dropped: list[str] = []
        self._calls: list[tuple[Call, Callable[[Any, BaseException | None], None]]] = []
        self._is_closing = False
        self._thread: threading.Thread | None = None

    @property
    def owed(self) -> Batch:
        """What nobody waits for, and could not be written so far."""
        return self._commits.owed

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
                if self.owed:
                    self._work()  # once more
                return
            if time.monotonic() >= next_tick:
                try:
                    self._tick()
                except JournalError as exc:
                    self._commits.note_failure(exc)
                except Exception:
                    logger.exception("looking after the journal failed")
                next_tick = time.monotonic() + TICK_INTERVAL

    def _work(self) -> None:
        with self._lock:
            receipts, self._receipts = self._receipts, []
            calls, self._calls = self._calls, []
            if self._late or self._marks or self._dropped:
                if not self.owed:
                    self._journal.turn()
                self._commits.owe(Batch(self._late, self._marks, self._dropped))
                self._late, self._marks, self._dropped = [], [], []
        if receipts or self.owed:
            self._commits.commit(receipts)
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


def _nothing() -> None:
    pass
