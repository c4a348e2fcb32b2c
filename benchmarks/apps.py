"""The app under test, once for every variant.

Each server builds one variant and imports what that one needs, inside its function here:
otherwise the memory of every server would hold every package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from benchmarks.tally import Tally
from benchmarks.variants import (
    INSTALLED,
    OURS_ASYNC,
    OURS_SYNC,
    PEER_ASYNC,
    PLAIN,
    STARLETTE_ASYNC,
    STARLETTE_SYNC,
)

BODY = "Hello, world!"

served = Tally()
tasks_run = Tally()


async def async_task() -> None:
    """Do next to nothing: what is measured is the way to here."""
    tasks_run.add()


def sync_task() -> None:
    """Do next to nothing, as a plain function."""
    tasks_run.add()


async def counts(request: Request) -> Response:
    """Tell how many requests were served and how many tasks were run."""
    return JSONResponse({"served": served.total(), "tasks": tasks_run.total()})


def routes_to_ask(stored: Callable[[], int] | None = None) -> list[Route]:
    """Return the routes that tell what the server has done.

    Args:
        stored: Counts the jobs where they are kept, for those that outlive the server.
    """

    async def count_stored(request: Request) -> Response:
        return JSONResponse(stored() if stored else 0)

    return [Route("/counts", counts), Route("/stored", count_stored)]


def starlette_app(
    endpoint: Callable[[Request], Any],
    *,
    stored: Callable[[], int] | None = None,
    lifespan: Any = None,
) -> Starlette:
    """Return the app with an endpoint, and with routes to ask it what it has done."""
    return Starlette(routes=[Route("/", endpoint), *routes_to_ask(stored)], lifespan=lifespan)


async def _greet(request: Request) -> Response:
    served.add()
    return PlainTextResponse(BODY)


def plain() -> Any:
    """Return the app without anything."""
    return starlette_app(_greet)


def installed() -> Any:
    """Return the app with our middleware, which has nothing to do."""
    from asgi_bg import BackgroundTaskMiddleware

    return BackgroundTaskMiddleware(starlette_app(_greet))


def with_starlette(task: Callable[[], Any]) -> Any:
    """Return the app with one of Starlette's own background tasks a request."""

    async def greet(request: Request) -> Response:
        served.add()
        return PlainTextResponse(BODY, background=BackgroundTask(task))

    return starlette_app(greet)


def with_peer(task: Callable[[], Any]) -> Any:
    """Return the app with one task of the package asgi-background a request."""
    from asgi_background import BackgroundTaskMiddleware, BackgroundTasks

    async def greet(request: Request) -> Response:
        served.add()
        await BackgroundTasks(request.scope).add_task(task)
        return PlainTextResponse(BODY)

    return BackgroundTaskMiddleware(starlette_app(greet))


def with_ours(task: Callable[[], Any]) -> Any:
    """Return the app with one task of ours a request."""
    from asgi_bg import BackgroundTaskMiddleware, add_task

    async def greet(request: Request) -> Response:
        served.add()
        add_task(task)
        return PlainTextResponse(BODY)

    return BackgroundTaskMiddleware(starlette_app(greet))


BUILDERS: dict[str, Callable[[], Any]] = {
    PLAIN.key: plain,
    INSTALLED.key: installed,
    STARLETTE_ASYNC.key: lambda: with_starlette(async_task),
    PEER_ASYNC.key: lambda: with_peer(async_task),
    OURS_ASYNC.key: lambda: with_ours(async_task),
    STARLETTE_SYNC.key: lambda: with_starlette(sync_task),
    OURS_SYNC.key: lambda: with_ours(sync_task),
}
