"""The app that hands one job a request over to a distributed queue, once for every engine.

The addresses of the broker and of the journal are given by `serve.py`. Our jobs have a queue
of their own in the same broker, so that they are not counted among those of the engine's own
call. Imports are where they are for the reason that `apps` gives.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from benchmarks.apps import BODY, served, starlette_app
from benchmarks.durable_apps import work
from benchmarks.queue_apps import held
from benchmarks.variants import (
    OURS_ARQ,
    OURS_CELERY,
    OURS_PROCRASTINATE,
    OURS_TASKIQ,
    PROCRASTINATE,
)

if TYPE_CHECKING:
    from asgi_bg.engines import Engine


def arq_engine(url: str) -> Engine:
    """Return the engine that hands jobs over to ARQ."""
    from asgi_bg.engines.arq import ArqEngine

    return ArqEngine(url, queue=OURS_ARQ.key)


def taskiq_engine(url: str) -> Engine:
    """Return the engine that hands jobs over to taskiq, with the broker that it itself has."""
    from taskiq_redis import ListQueueBroker

    from asgi_bg.engines.taskiq import TaskiqEngine

    return TaskiqEngine(ListQueueBroker(url, queue_name=OURS_TASKIQ.key))


def celery_engine(url: str) -> Engine:
    """Return the engine that hands jobs over to Celery."""
    from celery import Celery

    from asgi_bg.engines.celery import CeleryEngine

    queue = Celery("benchmarks", broker=url)
    queue.conf.task_default_queue = OURS_CELERY.key
    return CeleryEngine(queue)


def procrastinate_engine(url: str) -> Engine:
    """Return the engine that hands jobs over to Procrastinate."""
    from asgi_bg.engines.procrastinate import ProcrastinateEngine

    return ProcrastinateEngine(procrastinate_app(url))


ENGINES: dict[str, Callable[[str], Engine]] = {
    OURS_ARQ.key: arq_engine,
    OURS_TASKIQ.key: taskiq_engine,
    OURS_CELERY.key: celery_engine,
    OURS_PROCRASTINATE.key: procrastinate_engine,
}
"""The engine of each of our variants, by its broker's address."""

COUNTERS: dict[str, Callable[[str], Callable[[], int]]] = {
    OURS_ARQ.key: lambda url: held(url, "ZCARD", OURS_ARQ.key),
    OURS_TASKIQ.key: lambda url: held(url, "LLEN", OURS_TASKIQ.key),
    OURS_CELERY.key: lambda url: held(url, "LLEN", OURS_CELERY.key),
    OURS_PROCRASTINATE.key: lambda url: _deferred(url, "task_name <> 'work'"),
}
"""What counts the jobs that have arrived there."""


def procrastinate_app(url: str) -> Any:
    """Return Procrastinate's app."""
    from procrastinate import App, PsycopgConnector

    return App(connector=PsycopgConnector(conninfo=url))


def with_procrastinate(url: str) -> Any:
    """Return the app that leaves its jobs to Procrastinate."""
    queue = procrastinate_app(url)

    @queue.task(name="work")
    async def job(number: int) -> None:
        """Stand for the task."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None]:
        async with queue.open_async():
            yield

    async def greet(request: Request) -> Response:
        served.add()
        await job.defer_async(number=1)
        return PlainTextResponse(BODY)

    return starlette_app(greet, lifespan=lifespan, stored=_deferred(url, "task_name = 'work'"))


def with_outbox(key: str, url: str, file: str) -> Any:
    """Return the app with one job of ours a request, which an engine gets from the journal."""
    from asgi_bg import BackgroundTaskMiddleware, add_task, task

    job = task(work)

    async def greet(request: Request) -> Response:
        served.add()
        add_task(job, 1)
        return PlainTextResponse(BODY)

    app = starlette_app(greet, stored=COUNTERS[key](url))
    return BackgroundTaskMiddleware(app, journal=file, engine=ENGINES[key](url))


def _deferred(url: str, condition: str) -> Callable[[], int]:
    """Return a function that counts the jobs that Procrastinate has."""
    from psycopg import connect, sql

    connection = connect(url, autocommit=True)
    query = sql.SQL("SELECT count(*) FROM procrastinate_jobs WHERE " + condition)  # noqa: S608

    def count() -> int:
        row = connection.execute(query).fetchone()
        return int(row[0]) if row else 0

    return count


def _builder(key: str) -> Callable[[str, str], Any]:
    return lambda url, file: with_outbox(key, url, file)


BUILDERS: dict[str, Callable[..., Any]] = {
    PROCRASTINATE.key: with_procrastinate,
    **{key: _builder(key) for key in ENGINES},
}
