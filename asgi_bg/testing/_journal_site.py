"""What the tests of the contract of journals stand on: the hooks, and what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from asgi_bg.journal.base import Batch, JobRow, Journal, NewJob
from asgi_bg.testing._journal_jobs import NOW
from asgi_bg.testing._journal_process import OtherProcess

try:
    import pytest
except ImportError as exc:
    raise ImportError(
        "asgi_bg.testing.journal_contract needs pytest; install it with: "
        "pip install 'asgi_bg[testing]'"
    ) from exc


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
