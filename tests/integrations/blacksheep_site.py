"""A small BlackSheep application, served by real servers and by BlackSheep's test client."""

from __future__ import annotations

import asyncio
import os
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from blacksheep import Application, Content, Request, Response, Router, StreamedContent, WebSocket
from blacksheep.server.responses import json, not_found, text

from asgi_bg import Runner, add_task, task
from asgi_bg.blacksheep import BackgroundTasks, init_app, tasks_from
from asgi_bg.exceptions import JobNotFound

DIRECTORY = os.environ.get("ASGI_BG_SERVER_TEST")

LOG: list[str] = []
visitor: ContextVar[str] = ContextVar("visitor", default="nobody")


def note(word: str) -> None:
    LOG.append(word)


def note_visitor() -> None:
    LOG.append(f"visitor {visitor.get()}")


async def anote(word: str) -> None:
    await asyncio.sleep(0)
    LOG.append(word)


def fail() -> None:
    raise ValueError("task")


@task(name="blacksheep wait")
def wait(word: str) -> str:
    """Note the begin and the end of a job in a file, and wait for another in between."""
    folder = Path(DIRECTORY or "")
    with open(folder / "words", "a") as file:
        file.write(f"{word} begun\n")
    while not (folder / f"{word}.gate").exists():
        time.sleep(0.02)
    with open(folder / "words", "a") as file:
        file.write(f"{word}\n")
    return word


def make_app(runner: Runner | None = None, **options: Any) -> Application:
    router = Router()
    app = Application(router=router)

    @router.post("/items")
    async def items(request: Request, tasks: BackgroundTasks) -> Response:
        visitor.set("ada")
        job = tasks.add_task(anote, "item")
        assert tasks_from(request) is tasks
        add_task(fail)
        add_task(note_visitor)
        return json({"job": job.id})

    @router.get("/items")
    def nothing() -> Response:
        add_task(note, "before an error")
        return not_found()

    @router.get("/crash")
    async def crash() -> Response:
        add_task(note, "before a crash")
        raise RuntimeError("handler")

    @router.get("/stream")
    async def stream() -> Response:
        async def parts() -> Any:
            yield b"one"
            add_task(note, "while streaming")
            yield b"two"

        return Response(200, content=StreamedContent(b"text/plain", parts))

    @router.ws("/ws")
    async def websocket(websocket: WebSocket) -> None:
        await websocket.accept()
        tasks_from(websocket).add_task(note, await websocket.receive_text())
        await websocket.close()

    @router.get("/durable/{word}")
    async def durable(word: str) -> Response:
        return json({"job": add_task(wait, word).id})

    @router.get("/jobs/{id}")
    async def job(id: str) -> Response:
        try:
            return json({"status": (await made.info(id)).status})
        except JobNotFound:
            return Response(404, content=Content(b"text/plain", b"no such job"))

    @router.get("/log")
    async def log() -> Response:
        return json(LOG)

    @app.on_start
    async def start(_: Application) -> None:
        LOG.append("startup")

    @app.on_stop
    async def stop(_: Application) -> None:
        LOG.append("shutdown")

    made = init_app(app, runner=runner, **options)
    child = Application(router=Router())

    @child.router.get("/inner")
    async def inner() -> Response:
        add_task(note, "mounted")
        return text("ok")

    app.mount("/sub", child)
    return app


app = make_app(Runner(journal=Path(DIRECTORY, "journal.sqlite3") if DIRECTORY else None))
