"""The same with asgi_bg: uvicorn examples.moving.thumbnails.after:app."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_bg import task
from asgi_bg.starlette import BackgroundTask, BackgroundTasks, init_app
from examples.moving.thumbnails import common
from examples.moving.thumbnails.common import STORE, announce

# Declared: it is kept in the journal, and two run at once.
make_thumbnail = task(name="thumbnails:make", concurrency=2)(common.make_thumbnail)


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
init_app(app, journal=os.environ.get("JOURNAL", "jobs.db"))
