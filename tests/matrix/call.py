"""What a request of the matrix asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any, TypedDict
from urllib.parse import parse_qs

from tests.servers.stage import CHUNK, DIRECTORY, passing, record
from tests.servers.tasks import TASKS


class Options(TypedDict):
    """What every application gives its runner."""

    journal: str


OPTIONS: Options = {"journal": str(DIRECTORY / "jobs.db")}


class Call:
    """One request as its client wants it to go.

    Attributes:
        id: Names the request in the record, and its gates: ``ID.app`` and ``ID.task``.
    """

    def __init__(self, query_string: str | bytes) -> None:
        text = query_string if isinstance(query_string, str) else query_string.decode()
        query = parse_qs(text)
        self.id = query.get("id", ["-"])[0]
        self._tasks = query.get("task", [])
        self._is_holding = "hold" in query

    def add_with(self, add_task: Callable[..., Any]) -> None:
        """Add what the client wants of `TASKS`."""
        gate = f"{self.id}.task" if self._is_holding else ""
        for name in self._tasks:
            add_task(TASKS[name], self.id, gate)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give a chunk, wait for the gate, and give three more."""
        try:
            yield CHUNK
            record("app-waiting", id=self.id)
            await passing(f"{self.id}.app")
            for _ in range(3):
                record("chunk", id=self.id)
                yield CHUNK
        finally:
            record("app-left", id=self.id)
