"""The journal in one SQLite file, which the processes of one host share."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Generator, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import msgspec

from asgi_bg._ids import first_id
from asgi_bg._job import JobStatus
from asgi_bg._options import check_count, check_seconds
from asgi_bg.exceptions import JournalError
from asgi_bg.journal._gate import Gate
from asgi_bg.journal._ownership import DeadOwner, Ownership, find_dead, remove_leftovers
from asgi_bg.journal._sealing import Sealer
from asgi_bg.journal.base import Batch, Change, JobRow, Mark, NewJob, Orphan, Success
from asgi_bg.journal.queries import query
from asgi_bg.journal.schema import migrate, version_of

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
}
"""How long finished jobs are kept by default, in seconds."""

_OLDEST = (3, 37, 0)

_COMMIT = query("commit")
_SEALED = ("call", "result", "message", "error", "traceback", "logs")
_SIZE_OF = {kind: len(kind.__struct_fields__) for kind in (NewJob, Success, Change)}

Entry = TypeVar("Entry", bound="NewJob | Success | Change")

_encode = msgspec.json.Encoder().encode
_LAST = 2.8e11  # seconds; what fits into an id
_NUL = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
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
            mapping from ``"succeeded"``, ``"failed"``, ``"cancelled"`` to numbers or None,
            which is for ever. Not given, that is 7, 30 and 7 days.
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
        self._durability = durability
        self._busy_timeout = float(busy_timeout)
        self._sealer = Sealer(keys)
        self._retention = _check_retention(retention)
        self._ownership: Ownership | None = None
        self._owner = 0
        self._connection: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._identity: tuple[int, int] | None = None
        self._gate = Gate(self.path, self._busy_timeout)
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
                with self._writing() as connection, self._transaction(connection):
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
            self._disconnect()

    def _connect(self) -> sqlite3.Connection:
        parent = Path(self.path).parent
        if not parent.is_dir():
            raise JournalError(
                f"the directory {parent} of the journal does not exist; make it, or give "
                "another path"
            )
        self._refuse_others()
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )
        try:
            version_of(connection, self.path)  # before anything is written
            self._use_wal(connection)
            connection.execute(f"PRAGMA synchronous = {self._durability}")
            connection.execute("PRAGMA journal_size_limit = 67108864")
            connection.execute("PRAGMA cache_size = -8192")  # kibibytes
            migrate(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as exc:
                # SQLite does not wait by itself while another process does the same.
                if "locked" not in str(exc) or time.monotonic() >= deadline:
                    raise
                time.sleep(0.005)
            else:
                return

    def _refuse_others(self) -> None:
        """Raise where the file is no journal for this code.

        Read only, as otherwise even a look may write: the last one to close a database
        moves into its file what its WAL holds.
        """
        if not os.path.exists(self.path):
            return
        if not os.access(self.path, os.R_OK | os.W_OK):
            # SQLite would make its other files as this one is, and so leave them.
            raise JournalError(
                f"the journal {self.path} cannot be used: this process may not read and write it"
            )
        try:
            with contextlib.closing(self._connect_to("ro")) as connection:
                version_of(connection, self.path)
        except sqlite3.OperationalError:
            pass  # whoever opens it to write is told why

    def _connect_to(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{_as_uri(self.path)}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )

    def _disconnect(self) -> None:
        with self._reading:
            for connection in (self._connection, self._reader):
                if connection is not None:
                    connection.close()
            self._connection = self._reader = None
        self._gate.close()

    def _become_owner(self, connection: sqlite3.Connection) -> None:
        ownership: Ownership | None = None
        try:
            with self._transaction(connection):
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
    def _writing(self) -> Generator[sqlite3.Connection]:
        """The connection to write with; made anew where something has happened to it."""
        with self._explained():
            self._look_at_file()
            if self._connection is None:
                self._connection = self._connect()
                self._identity = _identity_of(self.path)
                self._look_at_owner(self._connection)
            if self._ownership is None:
                self._become_owner(self._connection)
            yield self._connection

    def _look_at_file(self) -> None:
        """Raise once where the file was deleted or replaced; then it is opened anew."""
        if self._connection is not None and _identity_of(self.path) != self._identity:
            self._lose_file()

    def _look_at_owner(self, connection: sqlite3.Connection) -> None:
        """Raise once where the file that was opened anew is not the one it was."""
        ownership = self._ownership
        if ownership is not None and not self._is_owner(connection, self._owner, ownership.token):
            self._lose_file()

    def _is_owner(self, connection: sqlite3.Connection, owner: int, token: str) -> bool:
        values = {"owner": owner, "token": token}
        return bool(connection.execute(query("is_owner"), values).fetchone()[0])

    def _lose_file(self) -> None:
        self._disconnect()
        ownership, self._ownership = self._ownership, None
        if ownership is not None:
            ownership.end()
        raise JournalError(
            f"the journal {self.path} was deleted or replaced while it was open; what is written "
            "from now on goes to the file that is there, or to a new one"
        )

    @contextlib.contextmanager
    def _explained(self) -> Generator[None]:
        """Turn what SQLite and the system raise into `JournalError`."""
        try:
            yield
        except sqlite3.OperationalError as exc:
            text = str(exc)
            if "locked" in text or "busy" in text:
                reason = f"{text}, for longer than busy_timeout={self._busy_timeout:g} seconds"
            else:
                reason = text
                if "full" not in text:
                    self._disconnect()  # the next call begins with a new connection
            raise JournalError(f"the journal {self.path} cannot be used: {reason}") from exc
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError):
            raise  # not the file's fault
        except sqlite3.DatabaseError as exc:
            self._disconnect()
            raise JournalError(
                f"the journal {self.path} is damaged or no SQLite file, and is left as it is: "
                f"{exc}; move it away (with its -wal and -shm) to begin a new one"
            ) from exc
        except OSError as exc:
            raise JournalError(f"the journal {self.path} cannot be used: {exc}") from exc

    @contextlib.contextmanager
    def _transaction(self, connection: sqlite3.Connection) -> Generator[sqlite3.Connection]:
        with self._gate:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise

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
                with self._transaction(connection):
                    self._write(connection, self._owner, batch)
                    twins = dict(connection.execute(query("twins"), {"ids": _rows(keyed)}))
            else:
                with self._gate:
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
                "added": _rows(added),
                "keyed": _rows([(job.id, job.key) for job in added if job.key is not None]),
                "succeeded": _rows([mark for mark in last.values() if type(mark) is Success]),
                "changed": _rows([mark for mark in last.values() if type(mark) is Change]),
                "dropped": _rows(batch.dropped),
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
            ownership.ledger.end(entry.id, _text(self._sealed(entry)).encode())

    def _note_over(self, ids: list[str]) -> None:
        """Note that nothing noted of these jobs so far counts any more.

        For a job that is claimed again, or dropped, what was noted of it is over, and may
        still be found after a crash.
        """
        if self._ownership is not None:
            self._ownership.ledger.note(_encode([ids]))

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
            self._gate.is_needed = bool(others)
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
        begun = _rows(list(dead.entries.begun.items()))
        values = {
            "owner": owner,
            "begun": begun,
            "now": now,
            "limit": CRASH_LIMIT,
            "error": self._sealer.seal(_POISONOUS),
        }
        with self._transaction(connection):
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
        batch = _batch_of(noted)
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
        with self._writing() as connection, self._transaction(connection):
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
                    query("claim"), {"owner": self._owner, "ids": _rows(list(claimed))}
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
        with self._writing() as connection:
            connection.execute(query("cancel"), {"id": id, "reason": reason, "now": now})

    def retry(self, id: str) -> bool:
        """Make a failed or cancelled job a waiting one again; False if it is neither."""
        with self._writing() as connection:
            return connection.execute(query("retry"), {"id": id}).rowcount > 0

    def purge(self, status: str | None, before: float, limit: int) -> int:
        """Forget up to ``limit`` jobs that ended before that instant; count them."""
        wanted = [s.value for s in JobStatus if s.is_final and status in (None, s.value)]
        newest = first_id(min(before + 0.001, _LAST))  # ids sort by milliseconds
        gone = 0
        with self._writing() as connection:
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
            "status": status,
            "after": self._swept.get(status, ""),
            "newest": first_id(min(before + 0.001, _LAST)),
            "limit": limit,
        }
        with self._writing() as connection:
            found = connection.execute(query("old"), values).fetchall()
            doomed = [old for old, finished_at in found if finished_at <= before]
            if doomed:
                connection.execute(query("forget"), {"ids": _rows(doomed)})
                connection.execute(query("purge_twins"))
        is_more = len(found) == limit
        self._swept[status] = found[-1][0] if is_more else ""
        return is_more

    # Reading.

    @contextlib.contextmanager
    def _read(self) -> Generator[sqlite3.Connection]:
        with self._reading:
            if self._reader is None:
                with self._explained_reading():
                    self._reader = self._connect_to("rw")
                    self._reader.execute("PRAGMA query_only = 1")
            with self._explained_reading():
                yield self._reader

    @contextlib.contextmanager
    def _explained_reading(self) -> Generator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise JournalError(f"the journal {self.path} cannot be read: {exc}") from exc

    def get(self, id: str) -> JobRow | None:
        """Return a job, or None if there is none of that id."""
        with self._read() as connection:
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
        # By a connection of its own, as among millions of jobs this may take its time.
        with self._explained_reading():
            connection = self._connect_to("rw")
            with contextlib.closing(connection):
                connection.execute("PRAGMA query_only = 1")
                found = connection.execute(query(name), values).fetchall()
        return [self._row(row) for row in found]

    def holder_of(self, key: str) -> str | None:
        """Return the id of the job that has this key, or None."""
        with self._read() as connection:
            row = connection.execute(query("holder_of"), {"key": _stored(key)}).fetchone()
        return None if row is None else str(row[0])

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are of each status, in constant time."""
        with self._read() as connection:
            row = connection.execute(query("counts")).fetchone()
        return dict(zip((status.value for status in JobStatus), row, strict=True))

    def has_ready(self) -> bool:
        """Whether nobody's jobs wait that may start now."""
        return self._is_so("has_ready")

    def has_retries(self) -> bool:
        """Whether nobody's jobs wait to be tried again."""
        return self._is_so("has_retries")

    def _is_so(self, name: str) -> bool:
        with self._read() as connection:
            return bool(connection.execute(query(name)).fetchone()[0])

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
        )


def _batch_of(noted: list[bytes]) -> Batch:
    """Return what a ledger says is to be written; what is none of our entries says nothing."""
    added: dict[str, NewJob] = {}
    marks: dict[str, Mark] = {}
    for entry in noted:
        try:
            fields = msgspec.json.decode(entry, type=list[Any])
            if len(fields) == 1:
                for over in msgspec.convert(fields[0], list[str]):
                    added.pop(over, None)
                    marks.pop(over, None)
            elif len(fields) == _SIZE_OF[NewJob]:
                job = msgspec.convert(fields, NewJob)
                added[job.id] = job
            else:
                kind: type[Mark] = Success if len(fields) == _SIZE_OF[Success] else Change
                mark = msgspec.convert(fields, kind)
                marks[mark.id] = mark
        except ValueError:
            continue  # damaged
    return Batch(list(added.values()), list(marks.values()))


def _is_end(mark: Mark | None) -> bool:
    return type(mark) is Success or (type(mark) is Change and mark.finished_at is not None)


def _rows(items: Any) -> str | None:
    return _text(items) if items else None


def _text(items: Any) -> str:
    """Return JSON that SQLite reads as it is meant."""
    try:
        text = _encode(items).decode()
    except UnicodeEncodeError:  # half a surrogate pair, as file names in errors have
        text = _encode(_replace_surrogates(msgspec.to_builtins(items))).decode()
    if "\\u0000" in text:
        text = _NUL.sub(r"\1\\ufffd", text)  # for SQLite's JSON functions a string ends there
    return text


def _stored(text: str) -> str:
    """Return a text as `_text` leaves it."""
    return text.replace("\0", "\ufffd").encode("utf-8", "backslashreplace").decode()


def _replace_surrogates(items: Any) -> Any:
    if isinstance(items, str):
        return _stored(items)
    if isinstance(items, list | tuple):
        return [_replace_surrogates(item) for item in cast("list[Any]", items)]
    return items


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _as_uri(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")


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
