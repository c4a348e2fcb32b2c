"""The app that leaves one job a request to a distributed queue, once for every queue.

The address of Redis is given by `serve.py`. Each uses its own client of it, set up as its
documentation shows.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from benchmarks.apps import BODY, served, starlette_app
from benchmarks.variants import ARQ, CELERY, SAQ, TASKIQ


async def work(number: int) -> None:
    """Stand for the task, which no worker is there to run."""


def with_arq(url: str) -> Any:
    """Return the app that leaves its jobs to ARQ."""
    from arq import ArqRedis, create_pool
    from arq.connections import RedisSettings

    pool: ArqRedis

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None]:
        nonlocal pool
        pool = await create_pool(RedisSettings.from_dsn(url))
        yield
        await pool.aclose()

    async def greet(request: Request) -> Response:
        served.add()
        await pool.enqueue_job("work", 1)
        return PlainTextResponse(BODY)

    return starlette_app(greet, lifespan=lifespan, stored=held(url, "ZCARD", "arq:queue"))


def with_saq(url: str) -> Any:
    """Return the app that leaves its jobs to SAQ."""
    from saq import Queue

    queue = Queue.from_url(url)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None]:
        await queue.connect()
        yield
        await queue.disconnect()

    async def greet(request: Request) -> Response:
        served.add()
        await queue.enqueue("work", number=1)
        return PlainTextResponse(BODY)

    stored = held(url, "LLEN", "saq:default:queued")
    return starlette_app(greet, lifespan=lifespan, stored=stored)


def with_taskiq(url: str) -> Any:
    """Return the app that leaves its jobs to taskiq."""
    from taskiq_redis import ListQueueBroker

    broker = ListQueueBroker(url)
    job = broker.task(work)

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncGenerator[None]:
        await broker.startup()
        yield
        await broker.shutdown()

    async def greet(request: Request) -> Response:
        served.add()
        await job.kiq(1)
        return PlainTextResponse(BODY)

    return starlette_app(greet, lifespan=lifespan, stored=held(url, "LLEN", "taskiq"))


def with_celery(url: str) -> Any:
    """Return the app that leaves its jobs to Celery; its `delay` blocks, so in a thread."""
    from celery import Celery

    queue = Celery("benchmarks", broker=url)

    @queue.task(name="work", ignore_result=True)
    def job(number: int) -> None:
        """Stand for the task."""

    def greet(request: Request) -> Response:
        served.add()
        job.delay(1)
        return PlainTextResponse(BODY)

    return starlette_app(greet, stored=held(url, "LLEN", "celery"))


def held(url: str, command: str, key: str) -> Callable[[], int]:
    """Return a function that counts the jobs that a queue holds."""
    from redis import Redis

    redis = Redis.from_url(url)
    return lambda: int(redis.execute_command(command, key))


BUILDERS: dict[str, Callable[..., Any]] = {
    ARQ.key: with_arq,
    SAQ.key: with_saq,
    TASKIQ.key: with_taskiq,
    CELERY.key: with_celery,
}
