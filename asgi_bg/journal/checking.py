"""Whether a journal is sound: SQLite's own check of the file, and ours of what is in it.

Only reads, over a connection of its own, one statement at a time, so that the app goes on
writing meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from asgi_bg.exceptions import JournalError
from asgi_bg.journal._ownership import is_alive
from asgi_bg.journal._retention import ended_statuses, newest_id
from asgi_bg.journal._sealing import Sealer
from asgi_bg.journal.queries import query
from asgi_bg.journal.schema import MIGRATIONS, version_of

__all__ = ["LARGE_WAL", "NAMES", "Finding", "checks", "count_ended", "count_failed"]

Level: TypeAlias = Literal["fine", "note", "problem"]

EXAMPLES = 5
"""How many of the jobs that a finding is about are named."""

LARGE_WAL: Final = 256 * 1024 * 1024
"""From how many bytes on a WAL is worth a note: SQLite takes it back at 64 MiB."""

BUSY_TIMEOUT = 10.0
"""How long to wait for the file where another program locks it, in seconds."""

_LOOK_INTERVAL = 1_000_000  # SQLite's instructions between two looks whether to stop


class Finding(msgspec.Struct, frozen=True):
    """What one check has found.

    Attributes:
        name: The check, one of `NAMES`.
        level: ``"fine"``; ``"note"``, worth knowing; or ``"problem"``, to be put right.
        count: How many things it is about; of the WAL how many bytes.
        examples: The first of them: ids, pids, or SQLite's words.
    """

    name: str
    level: Level
    count: int = 0
    examples: tuple[str, ...] = ()


class _Look(msgspec.Struct, frozen=True):
    """What a check looks at."""

    connection: sqlite3.Connection
    path: str
    sealer: Sealer
    is_quick: bool


def checks(path: str, keys: Iterable[bytes] = (), *, is_quick: bool = False) -> Iterator[Finding]:
    """Check a journal, and yield what each of `NAMES` has found, in their order.

    If it is of an older version, or damaged so that it cannot be read further, the remaining
    ones are left out.

    Args:
        path: The file of a journal; nothing in it is changed.
        keys: The keys of sealed jobs.
        is_quick: Whether SQLite's check leaves out comparing indexes with tables, which is
            most of its time.

    Raises:
        JournalError: It is no journal, or of a newer version.
        sqlite3.Error: It cannot be read at all.
        KeyboardInterrupt: A statement was interrupted by Ctrl-C.
    """
    sealer = Sealer(keys)
    with _reading(path) as connection:
        look = _Look(connection, path, sealer, is_quick)
        version = version_of(connection, path)
        is_ours = version == len(MIGRATIONS)
        yield Finding("version", "fine" if is_ours else "problem", version)
        for name, check in _CHECKS.items():
            if name not in ("sqlite", "wal") and not is_ours:
                continue
            finding = _carried_out(name, check, look)
            yield finding
            if name == "sqlite" and finding.level == "problem":
                is_ours = False  # what else would be found is a consequence


def count_failed(path: str, task: str | None) -> int:
    """Return how many jobs (of a task) have failed."""
    return _count(path, "check_failed", {"task": task})


def count_ended(path: str, status: str | None, before: float) -> int:
    """Return how many jobs (that ended so) ended before that instant, in epoch seconds."""
    values: dict[str, object] = {"before": before, "newest": newest_id(before)}
    return sum(
        _count(path, "check_ended", {**values, "status": each}) for each in ended_statuses(status)
    )


def _count(path: str, name: str, values: dict[str, object]) -> int:
    with _reading(path) as connection, _interruptible():
        (number,) = connection.execute(query(name), values).fetchone()
    return int(number)


@contextlib.contextmanager
def _reading(path: str) -> Generator[sqlite3.Connection]:
    """A connection that changes nothing, whose statements Ctrl-C interrupts."""
    # Not "ro": that would leave SQLite's files beside a database that nobody has open.
    uri = f"{Path(os.path.abspath(path)).as_uri()}?mode=rw"
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)
    with contextlib.closing(connection):
        connection.execute("PRAGMA query_only = 1")
        # A signal is heard only in Python's code: here it is for a moment.
        connection.set_progress_handler(lambda: 0, _LOOK_INTERVAL)
        yield connection


@contextlib.contextmanager
def _interruptible() -> Generator[None]:
    """Make of SQLite's error the interrupt that has led to it."""
    try:
        yield
    except sqlite3.OperationalError as exc:
        if str(exc) == "interrupted":
            raise KeyboardInterrupt from None
        raise


def _carried_out(name: str, check: Callable[[_Look], Finding], look: _Look) -> Finding:
    try:
        with _interruptible():
            return check(look)
    except sqlite3.OperationalError:
        raise  # the file is locked, or gone
    except sqlite3.DatabaseError as exc:  # damaged, and found out by reading
        return Finding(name, "problem", 1, (str(exc),))


def _check_sqlite(look: _Look) -> Finding:
    pragma = "quick_check" if look.is_quick else "integrity_check"
    words = [str(row[0]) for row in look.connection.execute(f"PRAGMA {pragma}")]
    return _finding("sqlite", [] if words == ["ok"] else words)


def _check_tally(look: _Look) -> Finding:
    wrong = [
        f"{status}: {kept} are counted, {found} are there"
        for status, kept, found in look.connection.execute(query("check_tally"))
        if kept != found
    ]
    return _finding("tally", wrong)


def _check_processes(look: _Look) -> Finding:
    gone = [
        f"pid {pid}: {held}"
        for _, token, pid, held in look.connection.execute(query("owners")).fetchall()
        if not is_alive(look.path, token)
    ]
    return _finding("processes", gone)


def _check_ids(name: str) -> Callable[[_Look], Finding]:
    def check(look: _Look) -> Finding:
        return _finding(name, (row[0] for row in look.connection.execute(query(f"check_{name}"))))

    return check


def _check_sealed(look: _Look) -> Finding:
    closed: list[str] = []
    for job, *texts in look.connection.execute(query("check_sealed")):
        if look.sealer.is_active and all(_is_opened(look.sealer, text) for text in texts):
            continue
        closed.append(job)
    return _finding("sealed", closed, "problem" if look.sealer.is_active else "note")


def _is_opened(sealer: Sealer, text: str | None) -> bool:
    try:
        sealer.open(text)
    except (JournalError, UnicodeDecodeError):
        return False
    return True


def _check_wal(look: _Look) -> Finding:
    try:
        size = os.stat(f"{os.path.realpath(look.path)}-wal").st_size
    except OSError:
        size = 0
    return Finding("wal", "note" if size >= LARGE_WAL else "fine", size)


def _finding(name: str, found: Iterable[str], level: Level = "problem") -> Finding:
    """Return a finding that is fine if nothing was found."""
    count = 0
    examples: list[str] = []
    for count, each in enumerate(found, 1):
        if count <= EXAMPLES:
            examples.append(each)
    return Finding(name, level if count else "fine", count, tuple(examples))


_CHECKS: dict[str, Callable[[_Look], Finding]] = {
    "sqlite": _check_sqlite,
    "tally": _check_tally,
    "processes": _check_processes,
    "held": _check_ids("held"),
    "states": _check_ids("states"),
    "twins": _check_ids("twins"),
    "json": _check_ids("json"),
    "sealed": _check_sealed,
    "wal": _check_wal,
}

NAMES: tuple[str, ...] = ("version", *_CHECKS)
"""The checks, in their order."""
