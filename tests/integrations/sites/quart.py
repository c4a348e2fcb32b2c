"""With Quart."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from quart import Quart, request, websocket

from asgi_bg import add_task
from asgi_bg.quart import BackgroundTasks, init_app
from tests.servers.observed import Observed
from tests.servers.stage import DIRECTORY, parts_until, passing, record
from tests.servers.tasks import durable_sync_task, durable_task

app = Quart(__name__)
init_app(app, journal=DIRECTORY / "jobs.db")
tasks = BackgroundTasks()


@app.get("/async")
async def from_async() -> dict[str, str]:
    name = request.args["id"]
    return {"job": tasks.add_task(durable_task, name, f"{name}.task").id}


@app.get("/sync")
def from_thread() -> dict[str, str]:
    name = request.args["id"]
    return {"job": add_task(durable_sync_task, name, f"{name}.task").id}


@app.get("/own")
async def beside_own() -> str:
    name = request.args["id"]
    tasks.add_task(durable_task, name, f"{name}.task")
    app.add_background_task(record, "own-task", id=name)
    return "ok"


@app.get("/parts")
async def stream() -> AsyncGenerator[bytes, None]:
    name = request.args["id"]

    async def parts() -> AsyncGenerator[bytes, None]:
        yield b"one"
        tasks.add_task(durable_task, name, f"{name}.task")
        async for part in parts_until(f"{name}.app"):
            yield part

    return parts()


@app.get("/slow")
async def slow() -> str:
    """Answer when the gate is open; Quart cancels this if the client leaves."""
    name = request.args["id"]
    tasks.add_task(durable_task, name, f"{name}.task")
    record("waiting", id=name)
    await passing(f"{name}.app")
    return "ok"


@app.websocket("/ws")
async def chat() -> None:
    while True:
        word = str(await websocket.receive())
        tasks.add_task(durable_task, word, f"{word}.task")
        await websocket.send(word)


@app.while_serving
async def database() -> AsyncGenerator[None, None]:
    record("opened")
    yield
    record("closed")


served = Observed(app)
