"""A small BlackSheep application, for its test client; and a part of `sites.blacksheep`."""

from __future__ import annotations

from typing import Any

from blacksheep import Application, Request, Response, Router, StreamedContent, WebSocket
from blacksheep.server.responses import json, not_found, text

from asgi_bg import Runner, add_task
from asgi_bg.blacksheep import BackgroundTasks, init_app, tasks_from
from tests.integrations.notes import LOG, anote, fail, note, note_visitor, visitor


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

    @app.on_start
    async def start(_: Application) -> None:
        LOG.append("startup")

    @app.on_stop
    async def stop(_: Application) -> None:
        LOG.append("shutdown")

    init_app(app, runner=runner, **options)
    child = Application(router=Router())

    @child.router.get("/inner")
    async def inner() -> Response:
        add_task(note, "mounted")
        return text("ok")

    app.mount("/sub", child)
    return app
