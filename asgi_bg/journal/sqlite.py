"""The journal in one SQLite file, which the processes of one host share."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import msgspec

from asgi_bg._ids import first_id
from asgi_bg._job import JobStatus
from asgi_bg._options import check_count, check_seconds
from asgi_bg.exceptions import JournalError
from asgi_bg.journal._entries import batch_of, entry_of, over
from asgi_bg.journal._file import JournalFile
from asgi_bg.journal._ownership import (
    DeadOwner,
    Ownership,
    find_dead,
    is_alive,
    remove_leftovers,
)
from asgi_bg.journal._past import past_with_last
from asgi_bg.journal._sealing import Sealer
from asgi_bg.journal._search import find_oldest, look_for
from asgi_bg.journal._text import rows, stored
from asgi_bg.journal.base import (
    Batch,
    Change,
    Handover,
    JobRow,
    Mark,
    NewJob,
    Orphan,
    Owner,
    Sample,
    Standing,
    Success,
)
from asgi_bg.journal.queries import query

CRASH_LIMIT = 3
"""Running in so many processes that died fails a job (J5)."""

PROMOTED = 1000
"""How many jobs that are due join those that wait, at a time."""

SCANNED = 10_000
"""How many waiting jobs are looked at, at a time, for some that may start."""

RETENTION: Mapping[str, float] = {
    "succeeded": 7 * 86_400.0,
    "failed": 30 * 86_400.0,
    "cancelled": 7 * 86_400.0,
    "handed_over": 7 * 86_400.0,
}
"""How long jobs that are over are kept by default, in seconds."""

_OLDEST = (3, 37, 0)

_COMMIT = query("commit")
_SEALED = ("call", "result", "message", "error", "traceback", "logs", "past")

Entry = TypeVar("Entry", bound="NewJob | Success | Change | Handover")

SEALED = "(sealed with a key that is not here)"

_LAST = 2.8e11  # seconds; what fits into an id
_POISONOUS = (
    f"the processes that ran it died {CRASH_LIMIT} times during it, so it is not run any more"
)


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
        self._retention = _check_retention(retention)
        self._ownership: Ownership | None = None
        self._owner = 0
        self._swept: dict[str, str] = {}

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
                    self._write_noted(connection, self._owner, ownership.ledger.read().marks)
                    connection.execute(query("release_own"), {"owner": self._owner})
                    connection.execute(query("remove_owner"), {"owner": self._owner})
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

    def _become_owner(self, connection: sqlite3.Connection) -> None:
        ownership: Ownership | None = None
        try:
            with self._file.transaction(connection):
                ownership = Ownership(self.path)
                (self._owner,) = connection.execute(
                    query("add_owner"), {"token": ownership.token, "pid": os.getpid()}
                ).fetchone()
                known = {token for (token,) in connection.execute(query("tokens"))}
                remove_leftovers(self.path, known)
        except BaseException:
            if ownership is not None:
                ownership.end()
            raise
        self._ownership = ownership

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
                self._become_owner(connection)
            yield connection

    def _look_at_owner(self, connection: sqlite3.Connection) -> None:
        """Raise once where the file that was opened anew is not the one it was."""
        ownership = self._ownership
        if ownership is not None and not self._is_owner(connection, self._owner, ownership.token):
            self._lose_file()

    def _is_owner(self, connection: sqlite3.Connection, owner: int, token: str) -> bool:
        values = {"owner": owner, "token": token}
        return bool(connection.execute(query("is_owner"), values).fetchone()[0])

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
        if self._sealer.is_active:
            batch = Batch(
                [self._sealed(job) for job in batch.added],
                [self._sealed(mark) for mark in batch.marks],
                batch.dropped,
            )
        keyed = [job.id for job in batch.added if job.key is not None]
        twins: dict[str, str] = {}
        with self._writing() as connection:
            if batch.dropped:
                self._note_over(batch.dropped)
            if keyed:
                with self._file.transaction(connection):
                    self._write(connection, self._owner, batch)
                    twins = dict(connection.execute(query("twins"), {"ids": rows(keyed)}))
            else:
                with self._file.gate:
                    self._write(connection, self._owner, batch)
        if self._ownership is not None:
            self._ownership.ledger.forget()
        return twins

    def _write(self, connection: sqlite3.Connection, owner: int, batch: Batch) -> None:
        last: dict[str, Mark] = {}
        for mark in batch.marks:
            if not _is_end(last.get(mark.id)):
                last[mark.id] = mark
        added = batch.added
        if batch.dropped:
            dropped = set(batch.dropped)
            added = [job for job in added if job.id not in dropped]
        connection.execute(
            _COMMIT,
            {
                "owner": owner,
                "added": rows(added),
                "keyed": rows([(job.id, job.key) for job in added if job.key is not None]),
                "succeeded": rows([mark for mark in last.values() if type(mark) is Success]),
                "changed": rows([mark for mark in last.values() if type(mark) is Change]),
                "handed": rows([mark for mark in last.values() if type(mark) is Handover]),
                "dropped": rows(batch.dropped),
            },
        )

    def _sealed(self, entry: Entry) -> Entry:
        if not self._sealer.is_active:
            return entry
        sealed = {
            name: self._sealer.seal(getattr(entry, name))
            for name in _SEALED
            if name in entry.__struct_fields__
        }
        return msgspec.structs.replace(entry, **sealed)

    def note_start(self, id: str, attempt: int) -> None:
        """Keep that an attempt begins; see `Journal.note_start`."""
        ownership = self._ownership
        if ownership is not None:
            ownership.ledger.begin(id, attempt)

    def note(self, entry: Mark | NewJob) -> None:
        """Keep what is to be written through the death of the process; see `Journal.note`."""
        ownership = self._ownership
        if ownership is not None:
            ownership.ledger.end(entry.id, entry_of(self._sealed(entry)))

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
            others = connection.execute(
                query("other_owners"), {"token": self._ownership.token}
            ).fetchall()
            self._file.gate.is_needed = bool(others)
            for owner, token in others:
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
        now = time.time()
        begun = rows(list(dead.entries.begun.items()))
        values = {
            "owner": owner,
            "begun": begun,
            "now": now,
            "limit": CRASH_LIMIT,
            "error": self._sealer.seal(_POISONOUS),
        }
        with self._file.transaction(connection):
            if not self._is_owner(connection, owner, token):
                return []  # somebody else was quicker
            self._write_noted(connection, owner, dead.entries.marks)
            if begun is not None:
                connection.execute(query("count_crashes"), values)
            found = connection.execute(query("orphans"), {"owner": owner}).fetchall()
            if begun is not None:
                found += connection.execute(
                    query("poisonous"), {"owner": owner, "begun": begun, "now": now}
                ).fetchall()
            connection.execute(query("release_orphans"), {"owner": owner})
            connection.execute(query("remove_owner"), {"owner": owner})
        return [Orphan(job, task, bool(poisonous)) for job, task, poisonous in found]

    def _write_noted(self, connection: sqlite3.Connection, owner: int, noted: list[bytes]) -> None:
        """Write what a process noted and did not live to commit."""
        batch = batch_of(noted)
        try:
            self._write(connection, owner, batch)
        except sqlite3.IntegrityError:
            # Something in it is damaged, and nothing else shall suffer from it.
            for job in batch.added:
                with contextlib.suppress(sqlite3.IntegrityError):
                    self._write(connection, owner, Batch(added=[job]))
            for mark in batch.marks:
                with contextlib.suppress(sqlite3.IntegrityError):
                    self._write(connection, owner, Batch(marks=[mark]))

    def claim(self, limit: int, now: float) -> list[JobRow]:
        """Become the owner of waiting jobs; see `Journal.claim`."""
        claimed: dict[str, JobRow] = {}
        sealed: JournalError | None = None
        with self._writing() as connection, self._file.transaction(connection):
            connection.execute(query("promote"), {"now": now, "limit": PROMOTED})
            # Those that wait for a job of another process may stand in front of the others.
            found = connection.execute(query("claimable"), {"limit": SCANNED})
            for *values, is_blocked in found:
                if len(claimed) >= limit:
                    break
                if not is_blocked or values[8] in claimed:
                    try:
                        claimed[values[0]] = self._row(values)
                    except JournalError as exc:
                        sealed = exc  # it waits for its key, and the others not for that
            found.close()
            if claimed:
                self._note_over(list(claimed))
                connection.execute(
                    query("claim"), {"owner": self._owner, "ids": rows(list(claimed))}
                )
        if sealed is not None and not claimed:
            raise sealed
        return list(claimed.values())

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
        reason = self._sealer.seal(reason) or reason
        with self._writing(as_owner=False) as connection:
            connection.execute(query("cancel"), {"id": id, "reason": reason, "now": now})

    def retry(self, id: str) -> bool:
        """Make a failed or cancelled job a waiting one again; False if it is neither."""
        return bool(self.retry_each((id,)))

    def retry_each(self, ids: Sequence[str]) -> list[str]:
        """Make several jobs waiting ones again; see `Journal.retry_each`."""
        with self._writing(as_owner=False) as connection, self._file.transaction(connection):
            return [each for each in ids if self._retry(connection, each)]

    def _retry(self, connection: sqlite3.Connection, id: str) -> bool:
        values = connection.execute(query("get"), {"id": id}).fetchone()
        if values is None:
            return False
        row = self._shown(values)
        # What no key opens stays as it is: the job can be tried again when the key is there.
        past = values[-1] if row.call == SEALED else self._sealer.seal(past_with_last(row))
        return connection.execute(query("retry"), {"id": row.id, "past": past}).rowcount > 0

    def purge(self, status: str | None, before: float, limit: int) -> int:
        """Forget up to ``limit`` jobs that ended before that instant; count them."""
        wanted = [s.value for s in JobStatus if s.is_final and status in (None, s.value)]
        newest = first_id(min(before + 0.001, _LAST))  # ids sort by milliseconds
        gone = 0
        with self._writing(as_owner=False) as connection:
            for word in wanted:
                gone += connection.execute(
                    query("purge"),
                    {
                        "status": word,
                        "before": before,
                        "newest": newest,
                        "limit": limit - gone,
                    },
                ).rowcount
            if gone:
                connection.execute(query("purge_twins"))
        return gone

    def expire(self, now: float, limit: int) -> bool:
        """Look at up to ``limit`` old jobs of each status; see `Journal.expire`."""
        is_more = False
        for status, seconds in self._retention.items():
            if seconds is not None:
                is_more |= self._sweep(status, now - seconds, limit)
        return is_more

    def _sweep(self, status: str, before: float, limit: int) -> bool:
        """Forget those of the next old jobs that ended before that instant.

        Jobs may have been added long before they ended, so that the old ones are not always
        those to forget: each look goes on where the last one stopped.
        """
        values = {
            "status": "queued" if status == "handed_over" else status,
            "after": self._swept.get(status, ""),
            "newest": first_id(min(before + 0.001, _LAST)),
            "limit": limit,
        }
        with self._writing() as connection:
            found = connection.execute(query("old"), values).fetchall()
            doomed = [old for old, finished_at in found if finished_at <= before]
            if doomed:
                connection.execute(query("forget"), {"ids": rows(doomed)})
                connection.execute(query("purge_twins"))
        is_more = len(found) == limit
        self._swept[status] = found[-1][0] if is_more else ""
        return is_more

    # Reading.

    def get(self, id: str) -> JobRow | None:
        """Return a job, or None if there is none of that id."""
        with self._file.read() as connection:
            values = connection.execute(query("get"), {"id": id}).fetchone()
        return None if values is None else self._row(values)

    def find(
        self, status: str | None, task: str | None, after: str | None, limit: int
    ) -> list[JobRow]:
        """Return jobs, the newest first; see `Journal.find`."""
        name = "find_any"
        if status is not None:
            name = "find_ended" if JobStatus(status).is_final else "find_unfinished"
        values = {"status": status, "task": task, "after": after, "limit": limit}
        if not self._file.is_there:
            return []
        with self._file.search() as connection:
            found = connection.execute(query(name), values).fetchall()
        return [self._shown(row) for row in found]

    def get_many(self, ids: Sequence[str]) -> list[JobRow]:
        """Return those jobs that there are, in any order."""
        if not self._file.is_there:
            return []
        with self._file.search() as connection:
            found = connection.execute(query("get_many"), {"ids": rows(list(ids))}).fetchall()
        return [self._shown(row) for row in found]

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
        if not self._file.is_there:
            return [], None
        with self._file.search() as connection:
            found, going_on = look_for(connection, status, task, text, after, limit, seconds)
        return [self._shown(row) for row in found], going_on

    def sample(self, stretches: Sequence[tuple[float, float]], limit: int) -> list[list[Sample]]:
        """Return the oldest jobs of each stretch of time; see `Journal.sample`."""
        sql = query("sample")
        found: list[list[Sample]] = []
        if not self._file.is_there:
            return [[] for _ in stretches]
        with self._file.search() as connection:
            for since, until in stretches:
                values = {"first": first_id(since), "last": first_id(until), "limit": limit}
                found.append([Sample(*row) for row in connection.execute(sql, values).fetchall()])
        return found

    def standing(self, limit: int) -> Standing:
        """Return how all jobs stand; see `Journal.standing`."""
        if not self._file.is_there:
            return Standing({status.value: 0 for status in JobStatus}, 0, 0, None, [])
        with self._file.search() as connection:
            connection.execute("BEGIN")  # so that all of it is of one moment
            counts = connection.execute(query("counts")).fetchone()
            retrying, handed_over = connection.execute(query("some"), {"limit": limit}).fetchone()
            owners = connection.execute(query("owners")).fetchall()
            oldest = find_oldest(connection, None)
            oldest_of = {owner: find_oldest(connection, owner) for owner, *_ in owners}
        own = None if self._ownership is None else self._ownership.token
        return Standing(
            dict(zip((status.value for status in JobStatus), counts, strict=True)),
            retrying,
            handed_over,
            oldest,
            [
                Owner(pid, is_alive(self.path, token), held, oldest_of[owner], token == own)
                for owner, token, pid, held in owners
            ],
        )

    def holder_of(self, key: str) -> str | None:
        """Return the id of the job that has this key, or None."""
        with self._file.read() as connection:
            row = connection.execute(query("holder_of"), {"key": stored(key)}).fetchone()
        return None if row is None else str(row[0])

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are of each status, in constant time."""
        with self._file.read() as connection:
            row = connection.execute(query("counts")).fetchone()
        return dict(zip((status.value for status in JobStatus), row, strict=True))

    def has_ready(self) -> bool:
        """Whether nobody's jobs wait that may start now."""
        return self._is_so("has_ready")

    def has_retries(self) -> bool:
        """Whether nobody's jobs wait to be tried again."""
        return self._is_so("has_retries")

    def _is_so(self, name: str) -> bool:
        with self._file.read() as connection:
            return bool(connection.execute(query(name)).fetchone()[0])

    def _shown(self, values: Sequence[Any]) -> JobRow:
        """Return a row as one of several: what no key opens says so, and spoils no other."""
        try:
            return self._row(values)
        except JournalError:
            return msgspec.structs.replace(
                JobRow(*values),
                call=SEALED,
                result=None,
                message=SEALED,
                error=None,
                traceback=None,
                logs=None,
                past=None,
            )

    def _row(self, values: Iterable[Any]) -> JobRow:
        row = JobRow(*values)
        if not self._sealer.is_active and not self._sealer.is_sealed(row.call):
            return row
        unseal = self._sealer.open
        return msgspec.structs.replace(
            row,
            call=unseal(row.call),
            result=unseal(row.result),
            message=unseal(row.message),
            error=unseal(row.error),
            traceback=unseal(row.traceback),
            logs=unseal(row.logs),
            past=unseal(row.past),
        )


def _is_end(mark: Mark | None) -> bool:
    if isinstance(mark, Change):
        return mark.finished_at is not None
    return mark is not None


def _check_retention(
    retention: float | Mapping[str, float | None] | None,
) -> dict[str, float | None]:
    if retention is None:
        return dict(RETENTION)
    if not isinstance(retention, Mapping):
        check_seconds("retention", retention)
        return dict.fromkeys(RETENTION, float(retention))
    unknown = set(retention) - set(RETENTION)
    if unknown:
        raise ValueError(
            f"retention is told for {', '.join(RETENTION)}, got {sorted(map(str, unknown))[0]!r}"
        )
    for status, seconds in retention.items():
        if seconds is not None:
            check_seconds(f"retention of {status} jobs", seconds)
    return {**RETENTION, **retention}
