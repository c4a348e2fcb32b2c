"""Many jobs in a journal at once, as if they had been run over some time."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

# Ids are as the package makes them: milliseconds, version 7, and digits that are a number here.
MULTIPLY = """
WITH RECURSIVE
n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :rows),
drawn(i, at, lot) AS (SELECT i, :start + i * :step, abs(random() % 1000) / 1000.0 FROM n)
INSERT INTO jobs (id, task, call, options, queued_at, priority, status, attempt, started_at,
                  finished_at, message, result, error, traceback)
SELECT printf('%012x7%03x8%015x', at * 1000, i % 4096, i),
       job.task || CASE WHEN i % 40 < :tasks THEN '.' || (i % 40) ELSE '' END,
       job.call, job.options, at, job.priority, job.status, 1,
       at + 0.01 + lot * lot * 0.2,
       at + 0.02 + lot * lot * 0.2 + 0.03 / (1.01 - lot),
       '', job.result, job.error, job.traceback
FROM drawn JOIN jobs AS job ON job.id = CASE WHEN i % :every = 0 THEN :bad ELSE :good END
"""


def multiply(
    path: Path, rows: int, span: float, good: str, bad: str, *, tasks: int = 20, every: int = 10
) -> None:
    """Add so many jobs, evenly over the last ``span`` seconds.

    Most are like the job ``good``, and one of ``every`` like the job ``bad``; of 40 following
    ones ``tasks`` are of tasks with names of their own.
    """
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        connection.execute("BEGIN")
        values = {"rows": rows, "start": time.time() - span, "step": span * 0.999 / rows}
        more = {"good": good, "bad": bad, "tasks": tasks, "every": every}
        connection.execute(MULTIPLY, {**values, **more})
        connection.execute("COMMIT")
