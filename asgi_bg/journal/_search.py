"""Looking for jobs among millions, for no longer than somebody is willing to wait."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import msgspec

from asgi_bg._job import JobStatus
from asgi_bg.journal._text import stored
from asgi_bg.journal.queries import query

TEXT_LIMIT = 1_000
"""How many characters of a text are looked for; SQLite takes no pattern of over 50,000."""

PIECE = 5_000
"""How many jobs are looked at, at most, between two looks at the clock."""

FEW = 20_000
"""Up to how many unfinished jobs are looked through one by one, in place of all jobs."""

PRIORITIES = 100
"""How many priorities are looked at for the oldest job."""


class Wanted(msgspec.Struct, frozen=True):
    """Which jobs are looked for: those that stand so, of a task, with a text; or any."""

    status: str | None
    task: str | None
    text: str | None


def look_for(
    connection: sqlite3.Connection, wanted: Wanted, after: str | None, limit: int, seconds: float
) -> tuple[list[tuple[Any, ...]], str | None]:
    """Return the rows of jobs, the newest first, and where to go on; see `Journal.search`."""
    end = time.monotonic() + seconds
    way = query(_way_to(connection, wanted.status))
    # Most that are looked at are wanted, or few are: the pieces grow until that is known.
    size = min(PIECE, 2 * limit)
    values: dict[str, object] = {
        "status": wanted.status,
        "task": wanted.task,
        "like": None if wanted.text is None else _containing(wanted.text),
        "after": after,
    }
    found: list[tuple[Any, ...]] = []
    connection.execute("BEGIN")  # so that a piece has the same end when it is asked for again
    while True:
        missing = limit - len(found)
        values |= {"limit": missing, "piece": size}
        piece = connection.execute(query("search").format(piece=way), values).fetchall()
        found += piece
        if len(piece) == missing:
            return found, found[-1][0]
        end_of_piece = query("search_end").format(piece=way)
        last, count = connection.execute(end_of_piece, values).fetchone()
        if count < size:
            return found, None
        values["after"] = last
        size = min(PIECE, 4 * size)
        if time.monotonic() >= end:
            return found, last


def _way_to(connection: sqlite3.Connection, status: str | None) -> str:
    """Return by which query jobs that stand so are found with the fewest looks."""
    if status is None:
        return "piece_any"
    if JobStatus(status).is_final:
        return "piece_ended"
    if status == JobStatus.running:
        return "piece_held"
    queued, running, *_ = connection.execute(query("counts")).fetchone()
    _, handed_over = connection.execute(query("some"), {"limit": FEW}).fetchone()
    return "piece_unfinished" if queued + running + handed_over <= FEW else "piece_any"


def find_oldest(connection: sqlite3.Connection, owner: int | None) -> float | None:
    """Return when the oldest job of an owner, or nobody's, was added that waits for its turn."""
    oldest: float | None = None
    below = 2**63 - 1
    for _ in range(PRIORITIES):
        found = connection.execute(query("oldest"), {"owner": owner, "below": below}).fetchone()
        if found is None:
            break
        below, queued_at = found
        oldest = queued_at if oldest is None else min(oldest, queued_at)
    return oldest


def _containing(text: str) -> str:
    """Return the pattern of what has a text in it."""
    text = stored(text[:TEXT_LIMIT])
    for char in "\\%_":
        text = text.replace(char, f"\\{char}")
    return f"%{text}%"
