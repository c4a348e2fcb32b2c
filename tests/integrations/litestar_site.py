"""A Litestar application for real servers; imported by their processes and by nobody else.

What has happened goes to the record of `tests.servers.harness.Server`; a job waits for the
file with its gate's name.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar, get
from litestar.background_tasks import BackgroundTask
from litestar.response import Response, Stream

from asgi_bg import add_task, current_job, task
from asgi_bg.litestar import BackgroundTasks, BackgroundTasksPlugin

DIRECTORY = Path(os.environ["ASGI_BG_SERVER_TEST"])


def record(event: str, **fields: Any) -> None:
    line = json.dumps({"event": event, "at": time.monotonic(), **fields})
    with open(DIRECTORY / "record.jsonl", "ab", buffering=0) as file:
        file.write(line.encode() + b"\n")


@task
async def work(id: str) -> None:
    record("task-started", id=id, job=current_job().id)
    while not (DIRECTORY / f"{id}.task").exists():
        await asyncio.sleep(0.01)
    record("task-ended", id=id, job=current_job().id)


@get("/async")
async def from_async(id: str, background_tasks: BackgroundTasks) -> dict[str, str]:
    return {"job": background_tasks.add_task(work, id).id}


@get("/sync", sync_to_thread=True)
def from_thread(id: str) -> dict[str, str]:
    return {"job": add_task(work, id).id}


@get("/own")
async def beside_own(id: str) -> Response[str]:
    add_task(work, id)
    own = BackgroundTask(record, "own-task", id=id)
    return Response("ok", background=own)


@get("/stream")
async def stream(id: str) -> Stream:
    async def parts() -> AsyncGenerator[bytes, None]:
        yield b"one"
        add_task(work, id)
        while not (DIRECTORY / f"{id}.app").exists():
            yield b"more"
            await asyncio.sleep(0.01)
        yield b"last"

    return Stream(parts())


@asynccontextmanager
async def database(app: Litestar) -> AsyncGenerator[None, None]:
    record("opened")
    yield
    record("closed")


app = Litestar(
    [from_async, from_thread, beside_own, stream],
    lifespan=[database],
    plugins=[BackgroundTasksPlugin(journal=DIRECTORY / "jobs.db")],
)
