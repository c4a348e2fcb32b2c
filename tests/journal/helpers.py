"""What is done with journals, letting their owners die among it."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asgi_bg.journal.base import Batch, JobRow, NewJob
from asgi_bg.journal.sqlite import SQLiteJournal
from asgi_bg.testing._journal_jobs import NOW, change, new_job, success, waiting
from asgi_bg.testing._journal_process import OtherProcess

__all__ = [
    "NOW",
    "Other",
    "add",
    "change",
    "check_counts",
    "crash",
    "files_left",
    "ids_of",
    "new_job",
    "owner_files",
    "row_of",
    "success",
    "until",
    "waiting",
]


def add(journal: SQLiteJournal, *jobs: NewJob) -> list[str]:
    assert journal.commit(Batch(added=list(jobs))) == {}
    return [job.id for job in jobs]


def row_of(journal: SQLiteJournal, id: str) -> JobRow:
    row = journal.get(id)
    assert row is not None
    return row


def ids_of(rows: list[JobRow]) -> list[str]:
    return [row.id for row in rows]


def crash(journal: SQLiteJournal) -> None:
    """Let the owner die: its lock is gone, its file and its rows are as they were."""
    ownership = journal._ownership
    assert ownership is not None
    journal._ownership = None
    ownership.end(keep=True)
    journal._file.disconnect()


def check_counts(path: str | Path) -> None:
    """The running count says what counting says, and the file is sound."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        counted = dict(connection.execute("SELECT status, count(*) FROM jobs GROUP BY status"))
        columns = ("queued", "running", "succeeded", "failed", "cancelled")
        [tally] = connection.execute(f"SELECT {', '.join(columns)} FROM tally")
        assert dict(zip(columns, tally, strict=True)) == {
            status: counted.get(status, 0) for status in columns
        }
        wrong = "finished_at IS NULL <> (status IN ('queued', 'running'))"
        assert not connection.execute(f"SELECT id, status FROM jobs WHERE {wrong}").fetchall()


def until(condition: Callable[[], Any], timeout: float = 20.0) -> Any:
    """Return what a condition returns, once that is true."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not so within {timeout} seconds"
        time.sleep(0.005)
    return value


class Other(OtherProcess):
    """Another process that has a journal open, and knows what is here."""

    def __init__(self, path: str | Path) -> None:
        super().__init__(
            "import os, time\n"
            "from asgi_bg.journal.sqlite import SQLiteJournal\n"
            "from tests.journal.helpers import *\n"
            f"journal = SQLiteJournal({str(path)!r})\n"
            "journal.open()\n"
        )


def owner_files(path: str | Path) -> list[Path]:
    return sorted(Path(path).parent.glob(f"{Path(path).name}-owner-*"))


def files_left(path: str | Path) -> list[str]:
    """Return the names of all files, but for the empty one that says whose turn it is."""
    files = Path(path).parent.iterdir()
    return sorted(file.name for file in files if not file.name.endswith("-gate"))
