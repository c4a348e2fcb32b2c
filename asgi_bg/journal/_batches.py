"""Batches, and how one statement writes all that is in one."""

from __future__ import annotations

import contextlib
import sqlite3

from asgi_bg.journal._entries import batch_of
from asgi_bg.journal._text import rows
from asgi_bg.journal.base import Batch, Change, Handover, Mark, Success
from asgi_bg.journal.queries import query

_COMMIT = query("commit")


def write(connection: sqlite3.Connection, owner: int, batch: Batch) -> None:
    """Write a batch of an owner's."""
    last: dict[str, Mark] = {}
    for mark in batch.marks:
        if not _is_end(last.get(mark.id)):
            last[mark.id] = mark
    added = batch.added
    if batch.dropped:
        dropped = set(batch.dropped)
        added = [job for job in added if job.id not in dropped]
    connection.execute(
        _COMMIT,
        {
            "owner": owner,
            "added": rows(added),
            "keyed": rows([(job.id, job.key) for job in added if job.key is not None]),
            "succeeded": rows([mark for mark in last.values() if type(mark) is Success]),
            "changed": rows([mark for mark in last.values() if type(mark) is Change]),
            "handed": rows([mark for mark in last.values() if type(mark) is Handover]),
            "dropped": rows(batch.dropped),
        },
    )


def write_noted(connection: sqlite3.Connection, owner: int, noted: list[bytes]) -> None:
    """Write what a process has noted and not committed."""
    batch = batch_of(noted)
    try:
        write(connection, owner, batch)
    except sqlite3.IntegrityError:
        # Something in it is damaged, and nothing else shall suffer from it.
        for job in batch.added:
            with contextlib.suppress(sqlite3.IntegrityError):
                write(connection, owner, Batch(added=[job]))
        for mark in batch.marks:
            with contextlib.suppress(sqlite3.IntegrityError):
                write(connection, owner, Batch(marks=[mark]))


def _is_end(mark: Mark | None) -> bool:
    if isinstance(mark, Change):
        return mark.finished_at is not None
    return mark is not None
