"""A Quart application for real servers; imported by their processes and by nobody else.

What has happened goes to the record of `tests.servers.harness.Server`; a job waits for the
file with its gate's name.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from quart import Quart, request, websocket

from asgi_bg import add_task, current_job, task
from asgi_bg.quart import BackgroundTasks, init_app

DIRECTORY = Path(os.environ["ASGI_BG_SERVER_TEST"])

app = Quart(__name__)
init_app(app, journal=DIRECTORY / "jobs.db")
tasks = BackgroundTasks()


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


@app.get("/async")
async def from_async() -> dict[str, str]:
    return {"job": tasks.add_task(work, request.args["id"]).id}


@app.get("/sync")
def from_thread() -> dict[str, str]:
    return {"job": add_task(work, request.args["id"]).id}


@app.get("/own")
async def beside_own() -> str:
    tasks.add_task(work, request.args["id"])
    app.add_background_task(record, "own-task", id=request.args["id"])
    return "ok"


@app.get("/stream")
async def stream() -> AsyncGenerator[bytes, None]:
    name = request.args["id"]

    async def parts() -> AsyncGenerator[bytes, None]:
        yield b"one"
        tasks.add_task(work, name)
        while not (DIRECTORY / f"{name}.app").exists():
            yield b"more"
            await asyncio.sleep(0.01)
        yield b"last"

    return parts()


@app.get("/slow")
async def slow() -> str:
    """Answer when the gate is open; Quart cancels this if the client leaves."""
    name = request.args["id"]
    tasks.add_task(work, name)
    record("waiting", id=name)
    while not (DIRECTORY / f"{name}.app").exists():
        await asyncio.sleep(0.01)
    return "ok"


@app.websocket("/ws")
async def chat() -> None:
    while True:
        word = await websocket.receive()
        tasks.add_task(work, str(word))
        await websocket.send(word)


@app.while_serving
async def database() -> AsyncGenerator[None, None]:
    record("opened")
    yield
    record("closed")
