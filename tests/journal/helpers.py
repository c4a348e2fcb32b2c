"""Making jobs, and letting their owners die."""

from __future__ import annotations

import ast
import contextlib
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from asgi_bg._ids import new_id
from asgi_bg.journal.base import Batch, Change, JobRow, NewJob, Success
from asgi_bg.journal.sqlite import SQLiteJournal

NOW = 1_800_000_000.0


def new_job(
    at: float = NOW,
    *,
    call: str = "[]",
    task: str = "app:work",
    run_after: float | None = None,
    priority: int = 0,
    key: str | None = None,
    after: str | None = None,
    is_held: bool = True,
) -> NewJob:
    return NewJob(new_id(at), task, call, None, at, run_after, priority, key, after, is_held)


def waiting(at: float = NOW, **fields: Any) -> NewJob:
    """Return a job that nobody holds."""
    return new_job(at, is_held=False, **fields)


def success(id: str, attempt: int = 1, *, at: float = NOW, result: str | None = "1") -> Success:
    return Success(id, attempt, at, at, result)


def change(id: str, status: str = "queued", attempt: int = 1, **fields: Any) -> Change:
    values: dict[str, Any] = {
        "interrupted": 0,
        "run_after": None,
        "started_at": None,
        "finished_at": NOW if status in ("succeeded", "failed", "cancelled") else None,
        "progress": None,
        "message": "",
        "result": None,
        "error": None,
        "traceback": None,
        "logs": None,
        "is_held": status == "running",
    }
    return Change(id, status, attempt, **{**values, **fields})


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


class Other:
    """Another process that has a journal open, and does what it is told."""

    def __init__(self, path: str | Path, code: str = "") -> None:
        script = (
            "import sys, os, time\n"
            "from asgi_bg.journal.base import *\n"
            "from asgi_bg.journal.sqlite import SQLiteJournal\n"
            "from tests.journal.helpers import *\n"
            "journal = SQLiteJournal(sys.argv[1])\n"
            "journal.open()\n"
            "for line in iter(sys.stdin.readline, ''):\n"
            "    print(repr(eval(line)), flush=True)\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code + script, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def tell(self, expression: str) -> Any:
        """Return what it says to an expression of its ``journal``, if that is a literal."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()
        return ast.literal_eval(self.process.stdout.readline())

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def owner_files(path: str | Path) -> list[Path]:
    return sorted(Path(path).parent.glob(f"{Path(path).name}-owner-*"))


def files_left(path: str | Path) -> list[str]:
    """Return the names of all files, but for the empty one that says whose turn it is."""
    files = Path(path).parent.iterdir()
    return sorted(file.name for file in files if not file.name.endswith("-gate"))
