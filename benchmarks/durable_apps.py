"""The app with one job a request that outlives the server, once for every way to keep it.

The path of the file is given by `serve.py`. Imports are where they are for the reason that
`apps` gives.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from benchmarks.apps import BODY, routes_to_ask, served, starlette_app, tasks_run
from benchmarks.variants import FASTAPI_JOBS, FASTAPI_PLAIN, OURS_DURABLE, TASKFLOW

JOURNAL = "BENCHMARK_JOURNAL"


async def work(number: int) -> None:
    """Do next to nothing: what is measured is the way to here."""
    tasks_run.add()


def with_journal(file: str) -> Any:
    """Return the app with one durable job of ours a request."""
    from asgi_bg import BackgroundTaskMiddleware, add_task, task

    job = task(work)

    async def greet(request: Request) -> Response:
        served.add()
        add_task(job, 1)
        return PlainTextResponse(BODY)

    stored = _rows(file, "SELECT count(*) FROM jobs WHERE status = 'succeeded'")
    return BackgroundTaskMiddleware(starlette_app(greet, stored=stored), journal=file)


def from_environ() -> Any:
    """Return the app with our journal, whose path an environment variable tells."""
    return with_journal(os.environ[JOURNAL])


def plain_fastapi() -> Any:
    """Return the app without anything, made with FastAPI."""
    app = _fastapi()

    @app.get("/")
    async def greet() -> Response:
        served.add()
        return PlainTextResponse(BODY)

    return app


def with_taskflow(file: str) -> Any:
    """Return the app with one task of fastapi-taskflow a request, to be kept in a file."""
    from fastapi import Depends
    from fastapi_taskflow import TaskAdmin, TaskManager

    manager = TaskManager(snapshot_db=file, requeue_pending=True)
    app = _fastapi(_rows(file, "SELECT count(*) FROM task_snapshots WHERE status = 'success'"))
    TaskAdmin(app, manager)
    job = manager.task(persist=True)(work)

    @app.get("/")
    async def greet(tasks: Any = Depends(manager.get_tasks)) -> Response:
        served.add()
        tasks.add_task(job, 1)
        return PlainTextResponse(BODY)

    return app


def with_fastapi_jobs(file: str) -> Any:
    """Return the app that leaves one job a request to the worker of fastapi-jobs."""
    from fastapi_jobs import Jobs, task

    jobs = Jobs(database=f"sqlite:///{file}")
    job = task(work)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None]:
        await jobs.backend.initialize()  # or there is nothing to count before the first job
        yield

    app = _fastapi(_rows(file, "SELECT count(*) FROM jobs"), lifespan)

    @app.get("/")
    async def greet() -> Response:
        served.add()
        await job.enqueue(1)
        return PlainTextResponse(BODY)

    return app


def _fastapi(stored: Callable[[], int] | None = None, lifespan: Any = None) -> Any:
    from fastapi import FastAPI

    return FastAPI(routes=list[Any](routes_to_ask(stored)), lifespan=lifespan)


def _rows(file: str, query: str) -> Callable[[], int]:
    """Return a function that counts what a file holds."""

    def count() -> int:
        with closing(sqlite3.connect(file)) as connection:
            return connection.execute(query).fetchone()[0]

    return count


BUILDERS: dict[str, Callable[..., Any]] = {
    OURS_DURABLE.key: with_journal,
    FASTAPI_PLAIN.key: plain_fastapi,
    TASKFLOW.key: with_taskflow,
    FASTAPI_JOBS.key: with_fastapi_jobs,
}
