"""The table of owners: who has joined, who has left, and what the dead have left behind."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time

from asgi_bg.journal._batches import write_noted
from asgi_bg.journal._file import JournalFile
from asgi_bg.journal._ownership import DeadOwner, Ownership, remove_leftovers
from asgi_bg.journal._sealing import Sealer
from asgi_bg.journal._text import rows
from asgi_bg.journal.base import Orphan
from asgi_bg.journal.queries import query

CRASH_LIMIT = 3
"""Running in so many processes that died fails a job (J5)."""

_POISONOUS = (
    f"the processes that ran it died {CRASH_LIMIT} times during it, so it is not run any more"
)


def join(file: JournalFile, connection: sqlite3.Connection) -> tuple[int, Ownership]:
    """Make this process an owner, and return its number and what makes it one."""
    with contextlib.ExitStack() as undone:
        with file.transaction(connection):
            ownership = Ownership(file.path)
            undone.callback(ownership.end)
            (owner,) = connection.execute(
                query("add_owner"), {"token": ownership.token, "pid": os.getpid()}
            ).fetchone()
            known = {token for (token,) in connection.execute(query("tokens"))}
            remove_leftovers(file.path, known)
        undone.pop_all()
        return owner, ownership


def is_known(connection: sqlite3.Connection, owner: int, token: str) -> bool:
    """Whether the owner of this number is still the one with that token."""
    values = {"owner": owner, "token": token}
    return bool(connection.execute(query("is_owner"), values).fetchone()[0])


def others(connection: sqlite3.Connection, token: str) -> list[tuple[int, str]]:
    """Return the numbers and tokens of all owners but the one with this token."""
    return connection.execute(query("other_owners"), {"token": token}).fetchall()


def leave(connection: sqlite3.Connection, owner: int) -> None:
    """Give all jobs of an owner back, and take it out of the table."""
    connection.execute(query("release_own"), {"owner": owner})
    connection.execute(query("remove_owner"), {"owner": owner})


def inherit(
    connection: sqlite3.Connection, owner: int, dead: DeadOwner, sealer: Sealer
) -> list[Orphan]:
    """Let all jobs of an owner that died wait for somebody else, and take it out of the table.

    What it noted is written first. A job that was running in too many processes that died
    is failed (J5).
    """
    begun = rows(list(dead.entries.begun.items()))
    values = {
        "owner": owner,
        "begun": begun,
        "now": time.time(),
        "limit": CRASH_LIMIT,
        "error": sealer.seal(_POISONOUS),
    }
    write_noted(connection, owner, dead.entries.marks)
    if begun is not None:
        connection.execute(query("count_crashes"), values)
    found = connection.execute(query("orphans"), values).fetchall()
    if begun is not None:
        found += connection.execute(query("poisonous"), values).fetchall()
    connection.execute(query("release_orphans"), values)
    connection.execute(query("remove_owner"), values)
    return [Orphan(job, task, bool(poisonous)) for job, task, poisonous in found]
