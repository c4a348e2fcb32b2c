"""What is asked of a journal, by connections that only read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgi_bg._ids import first_id
from asgi_bg._job import JobStatus
from asgi_bg.journal._confidential import opened, shown
from asgi_bg.journal._file import JournalFile
from asgi_bg.journal._ownership import is_alive
from asgi_bg.journal._sealing import Sealer
from asgi_bg.journal._search import Wanted, find_oldest, look_for
from asgi_bg.journal._text import rows, stored
from asgi_bg.journal.base import JobRow, Owner, Sample, Standing
from asgi_bg.journal.queries import query


class Reader:
    """Answers as the methods of `Journal` that have the same names, from any thread.

    Args:
        file: The journal's file.
        sealer: What opens its sealed jobs.
    """

    def __init__(self, file: JournalFile, sealer: Sealer) -> None:
        self._file = file
        self._sealer = sealer

    # Quick questions.

    def get(self, id: str) -> JobRow | None:
        """Return a job, or None if there is none of that id."""
        with self._file.read() as connection:
            values = connection.execute(query("get"), {"id": id}).fetchone()
        return None if values is None else opened(self._sealer, values)

    def holder_of(self, key: str) -> str | None:
        """Return the id of the job that has this key, or None."""
        with self._file.read() as connection:
            row = connection.execute(query("holder_of"), {"key": stored(key)}).fetchone()
        return None if row is None else str(row[0])

    def counts(self) -> dict[str, int]:
        """Return how many jobs there are of each status, in constant time."""
        with self._file.read() as connection:
            return _by_status(connection.execute(query("counts")).fetchone())

    def has_ready(self) -> bool:
        """Whether nobody's jobs wait that may start now."""
        return self._is_so("has_ready")

    def has_retries(self) -> bool:
        """Whether nobody's jobs wait to be tried again."""
        return self._is_so("has_retries")

    def _is_so(self, name: str) -> bool:
        with self._file.read() as connection:
            return bool(connection.execute(query(name)).fetchone()[0])

    # Those that may take their time, and find nothing where there is no file yet.

    def find(
        self, status: str | None, task: str | None, after: str | None, limit: int
    ) -> list[JobRow]:
        """Return jobs, the newest first."""
        name = "find_any"
        if status is not None:
            name = "find_ended" if JobStatus(status).is_final else "find_unfinished"
        return self._some(name, {"status": status, "task": task, "after": after, "limit": limit})

    def get_many(self, ids: Sequence[str]) -> list[JobRow]:
        """Return those jobs that there are, in any order."""
        return self._some("get_many", {"ids": rows(list(ids))})

    def _some(self, name: str, values: dict[str, Any]) -> list[JobRow]:
        if not self._file.is_there:
            return []
        with self._file.search() as connection:
            found = connection.execute(query(name), values).fetchall()
        return [shown(self._sealer, row) for row in found]

    def search(
        self, wanted: Wanted, after: str | None, limit: int, seconds: float
    ) -> tuple[list[JobRow], str | None]:
        """Return jobs, the newest first, and where to go on."""
        if not self._file.is_there:
            return [], None
        with self._file.search() as connection:
            found, going_on = look_for(connection, wanted, after, limit, seconds)
        return [shown(self._sealer, row) for row in found], going_on

    def sample(self, stretches: Sequence[tuple[float, float]], limit: int) -> list[list[Sample]]:
        """Return the oldest jobs of each stretch of time."""
        sql = query("sample")
        found: list[list[Sample]] = []
        if not self._file.is_there:
            return [[] for _ in stretches]
        with self._file.search() as connection:
            for since, until in stretches:
                values = {"first": first_id(since), "last": first_id(until), "limit": limit}
                found.append([Sample(*row) for row in connection.execute(sql, values).fetchall()])
        return found

    def standing(self, limit: int, own: str | None) -> Standing:
        """Return how all jobs stand, to the owner with this token."""
        if not self._file.is_there:
            return Standing({status.value: 0 for status in JobStatus}, 0, 0, None, [])
        with self._file.search() as connection:
            connection.execute("BEGIN")  # so that all of it is of one moment
            counts = connection.execute(query("counts")).fetchone()
            retrying, handed_over = connection.execute(query("some"), {"limit": limit}).fetchone()
            owners = connection.execute(query("owners")).fetchall()
            oldest = find_oldest(connection, None)
            oldest_of = {owner: find_oldest(connection, owner) for owner, *_ in owners}
        return Standing(
            _by_status(counts),
            retrying,
            handed_over,
            oldest,
            [
                Owner(pid, is_alive(self._file.path, token), held, oldest_of[owner], token == own)
                for owner, token, pid, held in owners
            ],
        )


def _by_status(counts: Sequence[int]) -> dict[str, int]:
    return dict(zip((status.value for status in JobStatus), counts, strict=True))
