"""Looks into a journal's file, and fills one with copies of a job that asgi_bg has written."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from typing import Any

from asgi_bg import Runner, task
from asgi_bg._ids import new_id
from benchmarks.durable_apps import work
from benchmarks.servers import BenchmarkError


def succeeded(file: str) -> int:
    """Return how many jobs of the file have succeeded."""
    return _count(file, "status = 'succeeded'")


def unfinished(file: str) -> int:
    """Return how many jobs of the file have neither ended nor been handed over."""
    return _count(file, "status IN ('queued', 'running') AND engine IS NULL")


def _count(file: str, condition: str) -> int:
    with closing(sqlite3.connect(file, timeout=30)) as connection:
        query = f"SELECT count(*) FROM jobs WHERE {condition}"  # noqa: S608 - both are ours
        return connection.execute(query).fetchone()[0]


def fill_waiting(file: str, rows: int) -> None:
    """Make a journal with that many jobs that wait to be run by the server of our variant."""
    _fill(file, rows, status="queued", attempt=0, started_at=None, finished_at=None)


def fill_finished(file: str, rows: int) -> None:
    """Make a journal with that many jobs that have succeeded."""
    _fill(file, rows)


def _fill(file: str, rows: int, **changes: Any) -> None:
    """Have one job run, and put that many copies of it, with changes, in its place."""
    asyncio.run(_run_one(file))
    with closing(sqlite3.connect(file)) as connection, connection:
        # What is left after a crash does not matter here.
        connection.execute("PRAGMA journal_mode = OFF")
        connection.execute("PRAGMA synchronous = OFF")
        cursor = connection.execute("SELECT * FROM jobs")
        names = [column[0] for column in cursor.description]
        (written,) = cursor.fetchall()
        one = dict(zip(names, written, strict=True)) | changes
        connection.execute("DELETE FROM jobs")
        with _bare(connection):
            # The ids sort as the jobs were added, and so does the table.
            marks = ", ".join(f":{name}" if name != "id" else "fresh_id()" for name in names)
            connection.create_function("fresh_id", 0, _fresh_id)
            del one["id"]
            connection.execute(
                "WITH RECURSIVE copies(n) AS"  # noqa: S608 - the names are the schema's
                " (SELECT 1 UNION ALL SELECT n + 1 FROM copies WHERE n < :rows)"
                f" INSERT INTO jobs ({', '.join(names)}) SELECT {marks} FROM copies",
                {**one, "rows": rows},
            )
        status = one["status"]
        connection.execute(f"UPDATE tally SET {status} = ?", (rows,))  # noqa: S608 - as above
        _check(connection, rows)


def _fresh_id() -> str:
    return new_id(time.time())


@contextmanager
def _bare(connection: sqlite3.Connection) -> Generator[None]:
    """Take indexes and triggers away, and make them anew at the end, which is much faster."""
    found = connection.execute(
        "SELECT type, name, sql FROM sqlite_schema"
        " WHERE tbl_name = 'jobs' AND type IN ('index', 'trigger') AND sql IS NOT NULL"
    ).fetchall()
    for kind, name, _ in found:
        connection.execute(f"DROP {kind} {name}")
    yield
    for *_, sql in found:
        connection.execute(sql)


def _check(connection: sqlite3.Connection, rows: int) -> None:
    counted = connection.execute("SELECT count(*) FROM jobs").fetchone()
    told = connection.execute(
        "SELECT queued + running + succeeded + failed + cancelled FROM tally"
    ).fetchone()
    if counted != (rows,) or told != (rows,):
        raise BenchmarkError(f"{rows} jobs were to be made, and there are {counted}, {told}")


async def _run_one(file: str) -> None:
    async with Runner(journal=file) as runner:
        await runner.add_task(task(work), 1)
        await runner.drain()
