"""The application of the tests on every server: both apps of `asgi_bg.web`, and what they cost."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.journal import SQLiteJournal
from asgi_bg.web import Dashboard, JobStatusApp

FOLDER = Path(os.environ["ASGI_BG_SERVERS_TEST"])

runner = Runner(journal=SQLiteJournal(FOLDER / "jobs.db", busy_timeout=1.0), drain_timeout=1)


@task(name="servers.guided", timeout=120)
async def guided(name: str) -> str:
    """Report what is in the file of this name whenever that changes, until it is ``end``."""
    told = ""
    while True:
        words = read(name)
        if words == "end":
            return f"{name} has ended"
        if words != told:
            told = words
            current_job().progress(float(words), f"at {words}")
        await asyncio.sleep(0.02)


@task(name="servers.broken")
def broken(name: str) -> str:
    """Fail until the file of this name is there."""
    if not read(name):
        raise ConnectionError("the bank does not answer")
    return "paid"


def read(name: str) -> str:
    file = FOLDER / name
    return file.read_text() if file.exists() else ""


async def add(request: Request) -> JSONResponse:
    function = {"guided": guided, "broken": broken}[request.query_params["kind"]]
    return JSONResponse(add_task(function, request.query_params["name"]).id)


async def facts(request: Request) -> JSONResponse:
    """What goes on in this process beside this request."""
    mine = asyncio.current_task()
    tasks = [one for one in asyncio.all_tasks() if one is not mine]
    named = (f"{one.get_name()} {getattr(one.get_coro(), '__qualname__', '')}" for one in tasks)
    return JSONResponse(
        {
            "pid": os.getpid(),
            "threads": sorted(one.name for one in threading.enumerate()),
            "tasks": sorted(named),
        }
    )


app = Starlette(
    routes=[
        Route("/add", add, methods=["POST"]),
        Route("/facts", facts),
        Mount("/pages", Dashboard(runner)),
        Mount("/jobs", JobStatusApp(runner)),
    ],
    middleware=[Middleware(BackgroundTaskMiddleware, runner=runner)],
)
