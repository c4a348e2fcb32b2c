"""The journal in one SQLite file, which the processes of one host share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Literal

from asgi_bg._options import check_count, check_seconds
from asgi_bg.exceptions import JournalError
from asgi_bg.journal import _requests
from asgi_bg.journal._batches import write, write_noted
from asgi_bg.journal._claiming import pick
from asgi_bg.journal._confidential import sealed, sealed_batch
from asgi_bg.journal._entries import entry_of, over
from asgi_bg.journal._file import JournalFile
from asgi_bg.journal._owners import inherit, is_known, join, leave, others
from asgi_bg.journal._ownership import DeadOwner, Ownership, find_dead
from asgi_bg.journal._reader import Reader
from asgi_bg.journal._retention import Retention, purge
from asgi_bg.journal._sealing import Sealer
from asgi_bg.journal._search import Wanted
from asgi_bg.journal._text import rows
from asgi_bg.journal.base import Batch, JobRow, Mark, NewJob, Orphan, Sample, Standing
from asgi_bg.journal.queries import query

_OLDEST = (3, 37, 0)


class SQLiteJournal:
    """Keeps jobs in a SQLite file, in WAL mode.

    Guarantees: what `commit` has returned from survives the death of the process, and with
    ``durability="full"`` the loss of power (``synchronous=FULL`` syncs the file in every
    commit; source: sqlite.org/pragma.html#pragma_synchronous). A job has one owner at a
    time, by a lock of the operating system.

    Several processes of one host may share the file, not several hosts: neither SQLite's
    shared memory nor the locks work over a network file system.

    Args:
        path: The file; it is made if it is not there. Beside it appear ``-wal`` and ``-shm``
            files, SQLite's, one ``-owner-`` file for each process, and a ``-gate`` file at
            which they wait for their turn to write.
        durability: ``"full"``, or ``"normal"``: faster, and a loss of power (not the death
            of a process) may undo the last commits, acknowledged or not.
        busy_timeout: How long to wait for another program that locks the file, in seconds.
        keys: Keys of 16, 24 or 32 bytes, to encrypt arguments, results and errors with
            (AES-GCM, through the package ``cryptography``); the first writes, all read (J10).
        retention: How long finished jobs are kept, in seconds: one number for all, or a
            mapping from ``"succeeded"``, ``"failed"``, ``"cancelled"``, ``"handed_over"`` (to an
            engine) to numbers or None, which is for ever. Not given, that is 30 days for
            failed jobs and 7 for the others.
        max_payload: How many bytes the arguments or the result of one job may take as JSON.

    Raises:
        TypeError, ValueError: An argument does not fit.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["full", "normal"] = "full",
        busy_timeout: float = 5.0,
        keys: Iterable[bytes] = (),
        retention: float | Mapping[str, float | None] | None = None,
        max_payload: int = 16 * 1024 * 1024,
    ) -> None:
        if durability not in ("full", "normal"):
            raise ValueError(f"durability must be 'full' or 'normal', got {durability!r}")
        check_seconds("busy_timeout", busy_timeout)
        check_count("max_payload", max_payload, least=1)
        if sqlite3.sqlite_version_info < _OLDEST:
            raise JournalError(
                f"the journal needs SQLite 3.37 or newer, and this Python has "
                f"{sqlite3.sqlite_version}"
            )
        self.path = os.path.abspath(os.fsdecode(path))
        self.max_payload = max_payload
        self._file = JournalFile(self.path, durability, float(busy_timeout))
        self._sealer = Sealer(keys)
        self._reader = Reader(self._file, self._sealer)
        self._retention = Retention(retention)
        self._ownership: Ownership | None = None
        self._owner = 0

    def __repr__(self) -> str:
        return f"SQLiteJournal({self.path!r})"

    # Its lifetime.

    def open(self) -> None:
        """Open or make the file, bring its schema up to date, and become an owner."""
        with self._writing():
            pass

    def close(self) -> None:
        """Give all jobs of this process back, and let go."""
        ownership = self._ownership
        try:
            if ownership is not None:
                with self._writing() as connection, self._file.transaction(connection):
                    write_noted(connection, self._owner, ownership.ledger.read().marks)
                    leave(connection, self._owner)
        except BaseException:
            # Whoever opens the file next finds that this owner has gone.
            if self._ownership is not None:
                self._ownership.end(keep=True)
            raise
        else:
            if ownership is not None:
                ownership.end()
        finally:
            self._ownership = None
            self._file.disconnect()

    @contextlib.contextmanager
    def _writing(self, *, as_owner: bool = True) -> Generator[sqlite3.Connection]:
        """The connection to write with; made anew where something has happened to it."""
        with self._file.explained():
            if self._file.is_replaced:
                self._lose_file()
            connection = self._file.connection
            if connection is None:
                connection = self._file.connect()
                self._look_at_owner(connection)
            if as_owner and self._ownership is None:
                self._owner, self._ownership = join(self._file, connection)
            yield connection

    def _look_at_owner(self, connection: sqlite3.Connection) -> None:
        """Raise once where the file that was opened anew is not the one it was."""
        ownership = self._ownership
        if ownership is not None and not is_known(connection, self._owner, ownership.token):
            self._lose_file()

    def _lose_file(self) -> None:
        self._file.disconnect()
        ownership, self._ownership = self._ownership, None
        if ownership is not None:
            ownership.end()
        raise JournalError(
            f"the journal {self.path} was deleted or replaced while it was open; what is written "
            "from now on goes to the file that is there, or to a new one"
        )

    # Writing.

    def commit(self, batch: Batch) -> dict[str, str]:
        """Write a batch in one commit; see `Journal.commit`."""
        batch = sealed_batch(self._sealer, batch)
        keyed = [job.id for job in batch.added if job.key is not None]
        twins: dict[str, str] = {}
        with self._writing() as connection:
            if batch.dropped:
                self._note_over(batch.dropped)
            if keyed:
                with self._file.transaction(connection):
                    write(connection, self._owner, batch)
                    twins = dict(connection.execute(query("twins"), {"ids": rows(keyed)}))
            else:
                with self._file.gate:
                    write(connection, self._owner, batch)
        if self._ownership is not None:
            self._ownership.ledger.forget()
        return twins

    def note_start(self, id: str, attempt: int) -> None:
        """Keep that an attempt begins; see `Journal.note_start`."""
        ownership = self._ownership
        if ownership is not None:
            ownership.ledger.begin(id, attempt)

    def note(self, entry: Mark | NewJob) -> None:
        """Keep what is to be written through the death of the process; see `Journal.note`."""
        ownership = self._ownership
        if ownership is not None:
            ownership.ledger.end(entry.id, entry_of(sealed(self._sealer, entry)))

    def _note_over(self, ids: list[str]) -> None:
        """Note that nothing noted of these jobs so far counts any more.

        For a job that is claimed again, or dropped, what was noted of it is over, and may
        still be found after a crash.
        """
        if self._ownership is not None:
            self._ownership.ledger.note(over(ids))

    def turn(self) -> None:
        """Note the marks of the next commit apart; see `Journal.turn`."""
        ownership = self._ownership
        if ownership is not None:
            ownership.ledger.turn()

    # Taking jobs over.

    def recover(self) -> list[Orphan]:
        """Take the jobs of owners that died from them; see `Journal.recover`."""
        orphans: list[Orphan] = []
        with self._writing() as connection:
            assert self._ownership is not None  # noqa: S101 - `_writing` sees to it
            known = others(connection, self._ownership.token)
            self._file.gate.is_needed = bool(known)
            for owner, token in known:
                dead = find_dead(self.path, token)
                if dead is not None:
                    try:
                        orphans += self._take_from(connection, owner, token, dead)
                        dead.bury()
                    finally:
                        dead.close()
        return orphans

    def _take_from(
        self, connection: sqlite3.Connection, owner: int, token: str, dead: DeadOwner
    ) -> list[Orphan]:
        with self._file.transaction(connection):
            if not is_known(connection, owner, token):
                return []  # somebody else was quicker
            return inherit(connection, owner, dead, self._sealer)

    def claim(self, limit: int, now: float) -> list[JobRow]:
        """Become the owner of waiting jobs; see `Journal.claim`."""
        with self._writing() as connection, self._file.transaction(connection):
            picked, sealed_one = pick(connection, self._sealer, limit, now)
            if picked:
                self._note_over(list(picked))
                values = {"owner": self._owner, "ids": rows(list(picked))}
                connection.execute(query("claim"), values)
        if sealed_one is not None and not picked:
            raise sealed_one
        return list(picked.values())

    def next_due(self) -> float | None:
        """Return when the next job may start that is put off; see `Journal.next_due`."""
        with self._writing() as connection:
            (due,) = connection.execute(query("next_due")).fetchone()
        return None if due is None else float(due)

    # By request of users.

    def cancellations(self) -> list[str]:
        """Return which jobs of this process others want to be cancelled."""
        with self._writing() as connection:
            found = connection.execute(query("cancellations"), {"owner": self._owner})
            return [row[0] for row in found]

    def cancel(self, id: str, reason: str, now: float) -> None:
        """Cancel a job that nobody owns, or ask its owner to."""
        with self._writing(as_owner=False) as connection:
            _requests.cancel(connection, self._sealer, id, reason, now)

    def retry(self, id: str) -> bool:
        """Make a failed or cancelled job a waiting one again; False if it is neither."""
        return bool(self.retry_each((id,)))

    def retry_each(self, ids: Sequence[str]) -> list[str]:
        """Make several jobs waiting ones again; see `Journal.retry_each`."""
        with self._writing(as_owner=False) as connection, self._file.transaction(connection):
            return [each for each in ids if _requests.retry(connection, self._sealer, each)]

    def purge(self, status: str | None, before: float, limit: int) -> int:
        """Forget up to ``limit`` jobs that ended before that instant; count them."""
        with self._writing(as_owner=False) as connection:
            return purge(connection, status, before, limit)

    def expire(self, now: float, limit: int) -> bool:
        """Look at up to ``limit`` old jobs of each status; see `Journal.expire`."""
        is_more = False
        for status, before in self._retention.ends(now):
            with self._writing() as connection:
                is_more |= self._retention.sweep(connection, status, before, limit)
        return is_more

    # Reading.

    def get(self, id: str) -> JobRow | None:
        """Return a job, or None if there is none of that id."""
        return self._reader.get(id)

    def find(
        self, status: str | None, task: str | None, after: str | None, limit: int
    ) -> list[JobRow]:
        """Return jobs, the newest first; see `Journal.find`."""
        return self._reader.find(status, task, after, limit)

    def get_many(self, ids: Sequence[str]) -> list[JobRow]:
        """Return those jobs that there are, in any order."""
        return self._reader.get_many(ids)

    def search(
        self,
        status: str | None,
        task: str | None,
        text: str | None,
        after: str | None,
        limit: int,
        seconds: float,
    ) -> tuple[list[JobRow], str | None]:
        """Return jobs, the newest first, and where to go on; see `Journal.search`."""
        return self._reader.search(Wanted(status, task, text), after, limit, seconds)

    def sample(self, stretches: Sequence[tuple[float, float]], limit: int) -> list[list[Sample]]:
        """Return the oldest jobs of each stretch of time; see `Journal.sample`."""
        return self._reader.sample(stretches, limit)

    def standing(self, limit: int) -> Standing:
        """Return how all jobs stand; see `Journal.standing`."""
        ownership = self._ownership
        return self._reader.standing(limit, None if ownership is None else ownership.token)

    def holder_of(self, key: str) -> str | None:
        """Return the id of the job that has this key, or None."""
        return self._reader.holder_of(key)

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are of each status, in constant time."""
        return self._reader.counts()

    def has_ready(self) -> bool:
        """Whether nobody's jobs wait that may start now."""
        return self._reader.has_ready()

    def has_retries(self) -> bool:
        """Whether nobody's jobs wait to be tried again."""
        return self._reader.has_retries()
