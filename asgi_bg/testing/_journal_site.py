"""What the tests of the contract of journals stand on: the hooks, and jobs to be written."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asgi_bg._ids import new_id
from asgi_bg.journal.base import Batch, Change, JobRow, Journal, NewJob, Success
from asgi_bg.testing._journal_process import OtherProcess

try:
    import pytest
except ImportError as exc:
    raise ImportError(
        "asgi_bg.testing.journal_contract needs pytest; install it with: "
        "pip install 'asgi_bg[testing]'"
    ) from exc

NOW = 1_800_000_000.0
"""The instant of the tests, in seconds since the epoch; journals are told what time it is."""


class JournalSite:
    """The hooks of `JournalContract`, and what its tests share.

    Attributes:
        place: What the fixture `place` has returned for the test.
    """

    place: Any

    # The hooks.

    @pytest.fixture(name="place")
    def make_place(self, tmp_path: Path) -> Any:
        """Return where the journals of a test are: a directory, unless this is overridden."""
        return tmp_path

    @abstractmethod
    def make_journal(self) -> Journal:
        """Return a journal that is not open yet, at ``self.place``."""

    @abstractmethod
    def make_elsewhere(self) -> str:
        """Return lines of Python that make a ``journal`` at that place in another process."""

    # What the tests stand on.

    @pytest.fixture(autouse=True)
    def _site(self, place: Any) -> Iterator[None]:
        self.place = place
        yield from self.on_site()

    def on_site(self) -> Iterator[None]:
        """Open the journal for a test, and close it after."""
        self._others: list[OtherProcess] = []
        self.journal = self.make_journal()
        self.journal.open()
        try:
            yield
        finally:
            for other in self._others:
                other.close()
            self.journal.close()

    def other(self) -> OtherProcess:
        """Return another process that has opened the journal."""
        other = OtherProcess(self.make_elsewhere())
        self._others.append(other)
        other.call("open")
        return other

    def add(self, *jobs: NewJob) -> list[str]:
        """Write jobs, and return their ids."""
        assert self.journal.commit(Batch(added=list(jobs))) == {}
        return [job.id for job in jobs]

    def mark(self, *marks: Any) -> None:
        """Write how jobs stand."""
        self.journal.commit(Batch(marks=list(marks)))

    def row(self, id: str) -> JobRow:
        """Return a job that has to be there."""
        row = self.journal.get(id)
        assert row is not None, f"job {id} is gone"
        return row

    def claim(self, limit: int = 99, now: float = NOW) -> list[str]:
        """Claim jobs, and return their ids."""
        return [row.id for row in self.journal.claim(limit, now)]


def held(at: float = 0.0, **fields: Any) -> NewJob:
    """Return a new job that its process runs, added so many seconds after `NOW`."""
    values: dict[str, Any] = {
        "task": "app:work",
        "call": "[]",
        "options": None,
        "queued_at": NOW + at,
        "run_after": None,
        "priority": 0,
        "key": None,
        "after": None,
        "is_held": True,
    }
    return NewJob(new_id(NOW + at), **(values | fields))


def waiting(at: float = 0.0, **fields: Any) -> NewJob:
    """Return a new job that waits for whoever claims it."""
    return held(at, **{"is_held": False, **fields})


def success(id: str, attempt: int = 1, result: str | None = "1") -> Success:
    """Return that a job has succeeded."""
    return Success(id, attempt, NOW, NOW, result)


def change(id: str, status: str = "queued", attempt: int = 1, **fields: Any) -> Change:
    """Return how a job stands now."""
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
    return Change(id, status, attempt, **(values | fields))
