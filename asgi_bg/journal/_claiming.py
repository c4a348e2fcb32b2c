"""Which waiting jobs somebody takes next."""

from __future__ import annotations

import sqlite3

from asgi_bg.exceptions import JournalError
from asgi_bg.journal._confidential import opened
from asgi_bg.journal._sealing import Sealer
from asgi_bg.journal.base import JobRow
from asgi_bg.journal.queries import query

PROMOTED = 1000
"""How many jobs that are due join those that wait, at a time."""

SCANNED = 10_000
"""How many waiting jobs are looked at, at a time, for some that may start."""


def pick(
    connection: sqlite3.Connection, sealer: Sealer, limit: int, now: float
) -> tuple[dict[str, JobRow], JournalError | None]:
    """Return the jobs to be taken next, by their ids.

    Returns:
        They, and the error of one that no key opens: it waits for its key, and the others
        not for that.
    """
    picked: dict[str, JobRow] = {}
    sealed: JournalError | None = None
    connection.execute(query("promote"), {"now": now, "limit": PROMOTED})
    # Those that wait for a job of another process may stand in front of the others.
    found = connection.execute(query("claimable"), {"limit": SCANNED})
    for *values, is_blocked in found:
        if len(picked) >= limit:
            break
        if not is_blocked or values[8] in picked:
            try:
                picked[values[0]] = opened(sealer, values)
            except JournalError as exc:
                sealed = exc
    found.close()
    return picked, sealed
