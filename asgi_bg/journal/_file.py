"""The SQLite file: how it is opened, whose turn it is to write, and what can go wrong."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Generator
from pathlib import Path

from asgi_bg.exceptions import JournalError
from asgi_bg.journal._gate import Gate
from asgi_bg.journal.schema import migrate, version_of


class JournalFile:
    """The file and the connections of this process to it.

    Args:
        path: Where it is.
        durability: What `synchronous` is set to.
        busy_timeout: How long to wait where it is locked, in seconds.

    Attributes:
        connection: The one that writes, for one thread; None before `connect`, and after
            something has gone wrong with it.
        gate: Where processes wait for their turn to write.
    """

    def __init__(self, path: str, durability: str, busy_timeout: float) -> None:
        self.path = path
        self.connection: sqlite3.Connection | None = None
        self.gate = Gate(path, busy_timeout)
        self._durability = durability
        self._busy_timeout = busy_timeout
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        self._identity: tuple[int, int] | None = None

    def connect(self) -> sqlite3.Connection:
        """Open the file, or make it, and bring its schema up to date."""
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
        self.connection = connection
        self._identity = _identity_of(self.path)
        return connection

    @property
    def is_replaced(self) -> bool:
        """Whether what is at the path now is not the file that is open."""
        return self.connection is not None and _identity_of(self.path) != self._identity

    @property
    def is_there(self) -> bool:
        """Whether there is a file, which the first one to write makes."""
        return os.path.exists(self.path)

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
        # Where nobody has it open, even a connection that only reads would make SQLite's files
        # beside it, and leave them; not so with "immutable".
        has_wal = os.path.exists(f"{os.path.realpath(self.path)}-wal")
        mode = "ro" if has_wal else "ro&immutable=1"
        try:
            with contextlib.closing(self._connect_to(mode)) as connection:
                version_of(connection, self.path)
        except sqlite3.OperationalError:
            pass  # whoever opens it to write is told why
        except sqlite3.DatabaseError:
            # "Immutable" takes no lock, and so may see a file that is just being written.
            # Without a WAL, who opens it to write finds out as well and changes nothing.
            if has_wal:
                raise

    def _connect_to(self, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(
            f"file:{_as_uri(self.path)}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,
        )

    def disconnect(self) -> None:
        """Close all connections; what needs one next opens it."""
        with self._reading:
            for connection in (self.connection, self._reader):
                if connection is not None:
                    connection.close()
            self.connection = self._reader = None
        self.gate.close()

    @contextlib.contextmanager
    def explained(self) -> Generator[None]:
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
                    self.disconnect()  # the next call begins with a new connection
            raise JournalError(f"the journal {self.path} cannot be used: {reason}") from exc
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError, sqlite3.DataError):
            raise  # not the file's fault
        except sqlite3.DatabaseError as exc:
            self.disconnect()
            raise JournalError(
                f"the journal {self.path} is damaged or no SQLite file, and is left as it is: "
                f"{exc}; move it away (with its -wal and -shm) to begin a new one"
            ) from exc
        except OSError as exc:
            raise JournalError(f"the journal {self.path} cannot be used: {exc}") from exc

    @contextlib.contextmanager
    def transaction(self, connection: sqlite3.Connection) -> Generator[None]:
        """Write several statements, all of them or none, when it is this process's turn."""
        with self.gate:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                connection.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def read(self) -> Generator[sqlite3.Connection]:
        """A connection for quick questions, from any thread."""
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

    @contextlib.contextmanager
    def search(self) -> Generator[sqlite3.Connection]:
        """A connection for a question that may take its time, among millions of jobs."""
        with self._explained_reading(), contextlib.closing(self._connect_to("rw")) as connection:
            connection.execute("PRAGMA query_only = 1")
            yield connection


def _identity_of(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _as_uri(path: str) -> str:
    return path.replace("%", "%25").replace("?", "%3f").replace("#", "%23")
