"""A million jobs: every look is quick (W3)."""

from __future__ import annotations

import contextlib
import re
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from asgi_bg.journal import SQLiteJournal
from tests.cli.helpers import DEADLINE, Outcome, call, started
from tests.helpers import need
from tests.journal.helpers import until

need("typer")

JOBS = 1_000_000

FILL = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n + 1 < :jobs)
INSERT INTO jobs (
    id, task, call, queued_at, priority, status, attempt, started_at, finished_at, result, error
)
SELECT
    printf('%012x7%03x8%015x', at * 1000, n % 4096, n * 7919), 'shop:task' || (n % 7),
    '[[' || n || ',"user' || n || '@example.com"]]', at, 0,
    iif(n % 10 = 0, 'failed', 'succeeded'), 1, at, at + (n % 50) * 0.001,
    iif(n % 10 = 0, NULL, '1'), iif(n % 10 = 0, 'ValueError: no such user ' || n, NULL)
FROM (SELECT n, :now - (:jobs - n) * 0.05 AS at FROM numbers)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A journal of a million jobs of the last fourteen hours, removed in the end."""
    path = tmp_path_factory.mktemp("large") / "jobs.db"
    with contextlib.closing(SQLiteJournal(path)) as journal:
        journal.open()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        triggers = connection.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'jobs'"
        ).fetchall()
        connection.execute("BEGIN")
        for name, _ in triggers:
            connection.execute(f"DROP TRIGGER {name}")
        connection.execute(FILL, {"jobs": JOBS, "now": time.time()})
        connection.execute(
            "UPDATE tally SET failed = :failed, succeeded = :jobs - :failed",
            {"jobs": JOBS, "failed": JOBS // 10},
        )
        for _, sql in triggers:
            connection.execute(sql)
        connection.execute("COMMIT")
    yield str(path)
    for file in Path(path).parent.iterdir():
        file.unlink()


def timed(path: str, *args: str) -> tuple[float, Outcome]:
    begun = time.perf_counter()
    outcome = call("--journal", path, *args)
    seconds = time.perf_counter() - begun
    print(f"{' '.join(args)}: {seconds:.3f} s")
    return seconds, outcome


@pytest.mark.parametrize(
    ("args", "limit"),
    [
        (("list",), 5),
        (("list", "--status", "failed", "--limit", "500"), 5),
        (("list", "--task", "shop:task3"), 5),
        (("stats",), 5),
        (("stats", "--since", "1d"), 5),
        (("retry", "abc"), 5),
        (("list", "--text", "user999000@"), 20),
        (("list", "--text", "nobody has this"), 20),
        (("check", "--quick"), 60),
        (("check",), 60),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_looks_are_quick(large: str, args: tuple[str, ...], limit: float) -> None:
    """The limits, in seconds, leave room for a busy machine; the figures are in the output."""
    seconds, outcome = timed(large, *args)
    assert outcome.code == (1 if args[0] == "retry" else 0), outcome.out + outcome.err
    assert seconds < limit


def test_long_check_is_interrupted(large: str) -> None:
    """Ctrl-C is heard in the middle of a statement of SQLite, too."""
    with started("--journal", large, "check") as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first check is done, the second takes seconds
        checking = psutil.Process(process.pid)
        used = checking.cpu_times().user
        until(lambda: checking.cpu_times().user > used + 0.2, DEADLINE)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    print(f"interrupted after {time.monotonic() - begun:.3f} s")
    assert process.returncode == 130
    assert "sound" not in out
    assert err == ""


def test_interrupted_purge_says_how_far_it_came(large: str) -> None:
    def left() -> int:
        counts = call("--journal", large, "stats", "--since", "1s", "--json").json["counts"]
        return int(counts["succeeded"])

    with started("--journal", large, "purge", "--yes", "--older-than", "1h") as process:
        until(lambda: left() < JOBS - JOBS // 10, DEADLINE)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130
    assert out == ""
    assert re.fullmatch(r"removing: stopped after [0-9,]+ jobs\n", err)


def test_purge_removes_most_of_them(large: str) -> None:
    """To the last, though not all of them: in pieces."""
    counts = call("--journal", large, "stats", "--json").json["counts"]
    before = counts["succeeded"] + counts["failed"]
    _, outcome = timed(large, "purge", "--yes", "--older-than", "12h", "--json")
    gone = outcome.json["purged"]
    assert 0 < gone < before
    counts = timed(large, "stats", "--json")[1].json["counts"]
    assert counts["succeeded"] + counts["failed"] == before - gone
