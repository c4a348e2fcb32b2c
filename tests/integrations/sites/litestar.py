"""With Litestar."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from litestar import Litestar, get
from litestar.background_tasks import BackgroundTask
from litestar.response import Response, Stream

from asgi_bg import add_task
from asgi_bg.litestar import BackgroundTasks, BackgroundTasksPlugin
from tests.servers.observed import Observed
from tests.servers.stage import DIRECTORY, parts_until, record
from tests.servers.tasks import durable_sync_task, durable_task


@get("/async")
async def from_async(id: str, background_tasks: BackgroundTasks) -> dict[str, str]:
    return {"job": background_tasks.add_task(durable_task, id, f"{id}.task").id}


@get("/sync", sync_to_thread=True)
def from_thread(id: str) -> dict[str, str]:
    return {"job": add_task(durable_sync_task, id, f"{id}.task").id}


@get("/own")
async def beside_own(id: str) -> Response[str]:
    add_task(durable_task, id, f"{id}.task")
    own = BackgroundTask(record, "own-task", id=id)
    return Response("ok", background=own)


@get("/parts")
async def stream(id: str) -> Stream:
    async def parts() -> AsyncGenerator[bytes, None]:
        yield b"one"
        add_task(durable_task, id, f"{id}.task")
        async for part in parts_until(f"{id}.app"):
            yield part

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
served = Observed(app)
