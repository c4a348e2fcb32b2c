"""The same with asgi_bg, and nothing else to run: uvicorn examples.moving.newsletter.after:app."""

from __future__ import annotations

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_bg import add_task, task
from asgi_bg.starlette import init_app
from examples.moving.newsletter.common import READERS, deliver


@task(name="newsletter:send_issue", retries=4)
async def send_issue(reader: str, issue: int) -> str:
    deliver(reader, issue)
    return reader


async def publish(request: Request) -> Response:
    issue = request.path_params["issue"]
    for reader in READERS:
        add_task(send_issue.using(key=f"{issue}-{reader}"), reader, issue)
    return JSONResponse({"status": "published"})


app = Starlette(routes=[Route("/{issue:int}", publish, methods=["POST"])])
init_app(app, journal=os.environ.get("JOURNAL", "jobs.db"))
