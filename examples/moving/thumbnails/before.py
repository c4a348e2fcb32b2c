"""A project with Starlette's BackgroundTasks: uvicorn examples.moving.thumbnails.before:app."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.moving.thumbnails.common import STORE, announce, make_thumbnail


async def upload(request: Request) -> Response:
    name = request.path_params["name"]
    STORE.mkdir(exist_ok=True)
    (STORE / name).write_bytes(await request.body())
    tasks = BackgroundTasks()
    tasks.add_task(make_thumbnail, name)
    tasks.add_task(announce, name)
    return JSONResponse({"status": "stored"}, background=tasks)


async def again(request: Request) -> Response:
    name = request.path_params["name"]
    return JSONResponse({"status": "asked"}, background=BackgroundTask(make_thumbnail, name))


app = Starlette(
    routes=[
        Route("/{name}", upload, methods=["PUT"]),
        Route("/{name}/thumbnail", again, methods=["POST"]),
    ]
)
