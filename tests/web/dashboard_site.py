"""A dashboard in process, its clients, and tasks whose jobs it shows."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from contextlib import asynccontextmanager
from typing import Any

import httpx

from asgi_bg import Job, Runner, current_job, task
from asgi_bg.web import Dashboard

ROOT = "/jobs"

_runs: Counter[str] = Counter()


@task(name="dashboard.fine")
async def fine(value: Any = 1) -> Any:
    return value


@task(name="dashboard.broken")
async def broken(text: str = "no such user") -> None:
    _runs[current_job().id] += 1
    raise ValueError(text)


@task(name="dashboard.waits")
async def waits() -> None:
    current_job().progress(0.25, "a quarter")
    await asyncio.Event().wait()


async def ended(runner: Runner, function: Any, *args: Any) -> Job:
    """Add a job, and return it when it has ended."""
    job = await runner.add_task(function, *args)
    await runner.drain(10)
    return job


def runs_of(job: Job) -> int:
    """Return how often a job of `broken` has been run."""
    return _runs[job.id]


def mounted(dashboard: Dashboard) -> Any:
    """Return an app that serves the dashboard below `ROOT`, as frameworks mount it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await dashboard({**scope, "root_path": ROOT}, receive, send)

    return app


@asynccontextmanager
async def visiting(
    dashboard: Dashboard,
    *,
    client: tuple[str, int] | None = ("127.0.0.1", 50_000),
    base: str = "http://localhost",
) -> Any:
    """A client of this address, which opens the dashboard by this name."""
    transport = httpx.ASGITransport(mounted(dashboard), client=client)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url=base) as visitor:
        yield visitor


async def confirm(visitor: httpx.AsyncClient, path: str, **fields: str) -> httpx.Response:
    """Open an action's page and send its form, as a browser does."""
    page = await visitor.get(ROOT + path)
    assert page.status_code == 200, page.text
    (token,) = re.findall(r'name="token" value="([^"]*)"', page.text)
    return await visitor.post(
        ROOT + path.partition("?")[0],
        data={**fields, "token": token},
        headers={"sec-fetch-site": "same-origin"},
    )


class Stream:
    """One event stream, read message by message without a server.

    Attributes:
        messages: What the dashboard has sent.
        task: The call.
    """

    def __init__(
        self, app: Any, path: str, headers: dict[str, str] | None = None, *, root: str = ROOT
    ) -> None:
        path, _, query = path.partition("?")
        self.messages: list[Any] = []
        self.gone = asyncio.Event()
        self.scope = {
            "type": "http",
            "method": "GET",
            "scheme": "http",
            "path": ROOT + path,
            "root_path": root,
            "query_string": query.encode(),
            "headers": [
                (name.encode(), value.encode())
                for name, value in {"host": "localhost", **(headers or {})}.items()
            ],
            "client": ("127.0.0.1", 50_000),
            "server": ("127.0.0.1", 80),
        }
        self.task = asyncio.create_task(app(self.scope, self.receive, self.send))

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(message)

    @property
    def status(self) -> int | None:
        return self.messages[0]["status"] if self.messages else None

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.messages).decode()

    @property
    def events(self) -> list[tuple[str, Any]]:
        """The id and the data of each event."""
        found = re.findall(r"^id: (\w+)\ndata: (.*)\n\n", self.text, re.MULTILINE)
        return [(name, json.loads(data)) for name, data in found]

    async def leave(self) -> None:
        """Close the connection, and wait for the end of the call."""
        self.gone.set()
        await asyncio.wait_for(self.task, 10)
