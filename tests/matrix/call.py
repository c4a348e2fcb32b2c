"""What a request of the matrix asks for, and the tasks it may add."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypedDict
from urllib.parse import parse_qs

from asgi_bg import current_job, task
from tests.servers.stage import CHUNK, DIRECTORY, pass_in_thread, passing, record


class Options(TypedDict):
    """What every application gives its runner."""

    journal: str


OPTIONS: Options = {"journal": str(DIRECTORY / "jobs.db")}


async def async_task(id: str, gate: str) -> None:
    record("task-started", id=id)
    try:
        await passing(gate)
    except asyncio.CancelledError:
        record("task-cancelled", id=id)
        raise
    record("task-ended", id=id)


def sync_task(id: str, gate: str) -> None:
    record("task-started", id=id)
    pass_in_thread(gate)
    record("task-ended", id=id)


async def failing_task(id: str, gate: str) -> None:
    await async_task(id, gate)
    raise RuntimeError(f"{id} fails on purpose")


@task(name="matrix.durable")
async def durable_task(id: str, gate: str) -> None:
    record("job", id=id, job=current_job().id)
    await async_task(id, gate)


TASKS: dict[str, Callable[..., Any]] = {
    "async": async_task,
    "sync": sync_task,
    "fail": failing_task,
    "durable": durable_task,
}


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
        """Add the tasks that the client wants."""
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


class Observed:
    """Wraps an application, and records what the server tells it of its lifespan."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def observed_receive() -> Any:
            message = await receive()
            record("server-says", type=message["type"])
            return message

        is_lifespan = scope["type"] == "lifespan"
        await self.app(scope, observed_receive if is_lifespan else receive, send)
