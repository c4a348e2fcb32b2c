"""How long jobs are kept that are over, and how they are forgotten (J9)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping

from asgi_bg._ids import first_id
from asgi_bg._job import JobStatus
from asgi_bg._options import check_seconds
from asgi_bg.journal._text import rows
from asgi_bg.journal.queries import query

RETENTION: Mapping[str, float] = {
    "succeeded": 7 * 86_400.0,
    "failed": 30 * 86_400.0,
    "cancelled": 7 * 86_400.0,
    "handed_over": 7 * 86_400.0,
}
"""How long jobs that are over are kept by default, in seconds."""

_LAST = 2.8e11  # seconds; what fits into an id


class Retention:
    """How long jobs are kept, and how far the looks at the old ones have come.

    Args:
        given: As `SQLiteJournal` takes it.

    Attributes:
        seconds: How long, for each way to be over; None for ever.

    Raises:
        TypeError, ValueError: It does not fit.
    """

    def __init__(self, given: float | Mapping[str, float | None] | None) -> None:
        self.seconds = _checked(given)
        self._swept: dict[str, str] = {}

    def ends(self, now: float) -> Iterator[tuple[str, float]]:
        """Yield ways to be over, and before when such jobs have ended that are to go."""
        for status, seconds in self.seconds.items():
            if seconds is not None:
                yield status, now - seconds

    def sweep(self, connection: sqlite3.Connection, status: str, before: float, limit: int) -> bool:
        """Forget those of the next old jobs that ended before that instant.

        Jobs may have been added long before they ended, so that the old ones are not always
        those to forget: each look goes on where the last one stopped.

        Returns:
            Whether there are more to look at.
        """
        values = {
            "status": "queued" if status == "handed_over" else status,
            "after": self._swept.get(status, ""),
            "newest": newest_id(before),
            "limit": limit,
        }
        found = connection.execute(query("old"), values).fetchall()
        doomed = [old for old, finished_at in found if finished_at <= before]
        if doomed:
            connection.execute(query("forget"), {"ids": rows(doomed)})
            connection.execute(query("purge_twins"))
        is_more = len(found) == limit
        self._swept[status] = found[-1][0] if is_more else ""
        return is_more


def purge(connection: sqlite3.Connection, status: str | None, before: float, limit: int) -> int:
    """Forget up to ``limit`` jobs that ended (so) before that instant; count them."""
    values: dict[str, object] = {"before": before, "newest": newest_id(before)}
    gone = 0
    for each in ended_statuses(status):
        values |= {"status": each, "limit": limit - gone}
        gone += connection.execute(query("purge"), values).rowcount
    if gone:
        connection.execute(query("purge_twins"))
    return gone


def ended_statuses(status: str | None) -> list[str]:
    """Return in which ways jobs may have ended that are asked for."""
    return [each.value for each in JobStatus if each.is_final and status in (None, each.value)]


def newest_id(before: float) -> str:
    """Return what no job's id is above that ended before that instant: it was added before."""
    return first_id(min(before + 0.001, _LAST))  # ids sort by milliseconds


def _checked(given: float | Mapping[str, float | None] | None) -> dict[str, float | None]:
    if given is None:
        return dict(RETENTION)
    if not isinstance(given, Mapping):
        check_seconds("retention", given)
        return dict.fromkeys(RETENTION, float(given))
    unknown = set(given) - set(RETENTION)
    if unknown:
        raise ValueError(
            f"retention is told for {', '.join(RETENTION)}, got {sorted(map(str, unknown))[0]!r}"
        )
    for status, seconds in given.items():
        if seconds is not None:
            check_seconds(f"retention of {status} jobs", seconds)
    return {**RETENTION, **given}
