"""The application behind the status API's tests: its task does what a file says."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.web.status import JobStatusApp

FOLDER = Path(os.environ["ASGI_BG_STATUS_TEST"])

runner = Runner(journal=FOLDER / "jobs.db", max_jobs=2000, max_threads=4, drain_timeout=1.0)
statuses = JobStatusApp(runner)


@task(timeout=120)
def guided(name: str) -> str:
    """Report what is in the file of this name whenever that changes, until it is ``end``."""
    told = ""
    while True:
        words = read(name)
        if words == "end":
            return f"{name} has ended"
        if words == "fail":
            raise ValueError("a secret")
        if words != told:
            told = words
            current_job().progress(float(words), f"at {words}")
        if current_job().cancelled:
            return ""
        time.sleep(0.01)


def read(name: str) -> str:
    file = FOLDER / name
    return file.read_text() if file.exists() else ""


async def add(request: Request) -> JSONResponse:
    names = request.query_params["names"].split(",")
    return JSONResponse([add_task(guided, name).id for name in names])


async def facts(request: Request) -> JSONResponse:
    """What following costs: this process, its threads, and the jobs that are followed."""
    followings: dict[Any, Any] = statuses._followings
    return JSONResponse(
        {
            "pid": os.getpid(),
            "threads": threading.active_count(),
            "followers": sum(
                len(job.followers)
                for following in followings.values()
                for job in following._jobs.values()
            ),
            "is_looking": any(bool(one._looking) for one in followings.values()),
        }
    )


app = Starlette(
    routes=[
        Route("/add", add, methods=["POST"]),
        Route("/facts", facts),
        Mount("/jobs", statuses),
    ],
    middleware=[Middleware(BackgroundTaskMiddleware, runner=runner)],
)
