"""A project with ARQ: uvicorn examples.moving.newsletter.before:app.

It needs Redis, and a worker: arq examples.moving.newsletter.before.WorkerSettings.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from arq import create_pool
from arq.connections import RedisSettings
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from examples.moving.newsletter.common import READERS, REDIS, deliver


async def send_issue(ctx: dict[str, Any], reader: str, issue: int) -> str:
    deliver(reader, issue)
    return reader


class WorkerSettings:
    """The settings of the worker."""

    functions = (send_issue,)
    redis_settings = RedisSettings.from_dsn(REDIS)


async def publish(request: Request) -> Response:
    issue = request.path_params["issue"]
    for reader in READERS:
        await request.app.state.pool.enqueue_job(
            "send_issue", reader, issue, _job_id=f"{issue}-{reader}"
        )
    return JSONResponse({"status": "published"})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncGenerator[None]:
    app.state.pool = await create_pool(WorkerSettings.redis_settings)
    yield
    await app.state.pool.aclose()


app = Starlette(routes=[Route("/{issue:int}", publish, methods=["POST"])], lifespan=lifespan)
