"""With BlackSheep; beside what all sites have, the application of its test client."""

from __future__ import annotations

from collections.abc import AsyncIterator

from blacksheep import Application, Request, Response, StreamedContent
from blacksheep.server.responses import json

from asgi_bg import add_task
from asgi_bg.blacksheep import BackgroundTasks
from tests.integrations import blacksheep_site
from tests.integrations.notes import LOG
from tests.servers.observed import Observed
from tests.servers.stage import DIRECTORY, parts_until, record
from tests.servers.tasks import durable_sync_task, durable_task

app = blacksheep_site.make_app(journal=DIRECTORY / "jobs.db")


@app.router.get("/async")
async def from_async(id: str, tasks: BackgroundTasks) -> Response:
    return json({"job": tasks.add_task(durable_task, id, f"{id}.task").id})


@app.router.get("/sync")
def from_plain(id: str) -> Response:
    return json({"job": add_task(durable_sync_task, id, f"{id}.task").id})


@app.router.get("/parts")
async def stream(request: Request) -> Response:
    (name,) = request.query["id"]

    async def parts() -> AsyncIterator[bytes]:
        yield b"one"
        add_task(durable_task, name, f"{name}.task")
        async for part in parts_until(f"{name}.app"):
            yield part

    return Response(200, content=StreamedContent(b"text/plain", parts))


@app.router.get("/words")
async def words() -> Response:
    return json(LOG)


@app.on_start
async def start(_: Application) -> None:
    record("opened")


@app.on_stop
async def stop(_: Application) -> None:
    record("closed")


served = Observed(app)
