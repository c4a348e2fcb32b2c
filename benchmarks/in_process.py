"""Measures what a request costs over the bare app, in one process and without a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import uvloop
from asgi_background import BackgroundTaskMiddleware as PeerMiddleware
from asgi_background import BackgroundTasks as PeerTasks

from asgi_bg import BackgroundTaskMiddleware, add_task
from benchmarks.tally import Tally

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]

START: Message = {"type": "http.response.start", "status": 200, "headers": []}
BODY: Message = {"type": "http.response.body", "body": b"Hello, world!"}

tasks_run = Tally()


@dataclass(frozen=True, slots=True)
class Case:
    """One app to call.

    Attributes:
        label: Its name for readers.
        app: The app.
        runs_task: Whether every request runs one task.
    """

    label: str
    app: App
    runs_task: bool


async def async_task() -> None:
    """Do next to nothing."""
    tasks_run.add()


def sync_task() -> None:
    """Do next to nothing, as a plain function."""
    tasks_run.add()


async def bare(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, as the smallest ASGI app does."""
    if scope["type"] == "http":
        await send(START)
        await send(BODY)


async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
    """Call the bare app with a `send` that does nothing but to send."""

    async def passing(message: Message) -> None:
        await send(message)

    await bare(scope, receive, passing)


async def adding_async(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, with an async task of ours."""
    if scope["type"] == "http":
        add_task(async_task)
        await send(START)
        await send(BODY)


async def adding_sync(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, with a plain function as a task of ours."""
    if scope["type"] == "http":
        add_task(sync_task)
        await send(START)
        await send(BODY)


async def adding_with_peer(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, with an async task of asgi-background."""
    if scope["type"] == "http":
        await PeerTasks(scope).add_task(async_task)
        await send(START)
        await send(BODY)


def _cases() -> list[Case]:
    return [
        Case("bare app", bare, runs_task=False),
        Case("a wrapped `send`, for scale", wrapped, runs_task=False),
        Case("asgi_bg, no task", BackgroundTaskMiddleware(bare), runs_task=False),
        Case("asgi_bg, one async task", BackgroundTaskMiddleware(adding_async), runs_task=True),
        Case("asgi_bg, one sync task", BackgroundTaskMiddleware(adding_sync), runs_task=True),
        Case("asgi-background, one async task", PeerMiddleware(adding_with_peer), runs_task=True),
    ]


def measure(rounds: int, requests: int) -> dict[str, float]:
    """Return the microseconds that a request costs over the bare app, best of the rounds.

    The rounds of all apps take turns. The time of an app with tasks ends when all tasks
    have been run. After each request the event loop makes one turn, as on a server.
    """
    return uvloop.run(_measure(rounds, requests))


async def _measure(rounds: int, requests: int) -> dict[str, float]:
    best: dict[str, float] = {}
    async with AsyncExitStack() as stack:
        cases = _cases()
        for case in cases:
            if isinstance(case.app, (BackgroundTaskMiddleware, PeerMiddleware)):
                await stack.enter_async_context(lifespan(case.app))
        for _ in range(rounds):
            for case in cases:
                seconds = await _time(case, requests)
                best[case.label] = min(best.get(case.label, seconds), seconds)
    bare_seconds = best.pop("bare app")
    return {label: (seconds - bare_seconds) / requests * 1e6 for label, seconds in best.items()}


async def _time(case: Case, requests: int) -> float:
    app = case.app
    before = tasks_run.total()
    wanted = requests if case.runs_task else 0
    start = time.perf_counter()
    for _ in range(requests):
        await app({"type": "http", "path": "/", "headers": []}, no_body, ignore)
        await asyncio.sleep(0)
    while tasks_run.total() - before < wanted:  # noqa: ASYNC110 - an event would cost a task
        await asyncio.sleep(0)
    return time.perf_counter() - start


async def no_body() -> Message:
    """Give an empty request, as a server's `receive`."""
    return {"type": "http.request", "body": b"", "more_body": False}


async def ignore(message: Message) -> None:
    """Take a message as a server that has nothing else to do."""


@asynccontextmanager
async def lifespan(app: App) -> AsyncGenerator[None]:
    """Start an app up, and shut it down, as a server does."""
    asked: asyncio.Queue[Message] = asyncio.Queue()
    told: asyncio.Queue[Message] = asyncio.Queue()

    async def serve() -> None:
        await app({"type": "lifespan"}, asked.get, told.put)

    async def pass_through(stage: str) -> None:
        await asked.put({"type": f"lifespan.{stage}"})
        message = await told.get()
        if message["type"] != f"lifespan.{stage}.complete":
            raise RuntimeError(f"{stage} failed: {message}")

    serving = asyncio.create_task(serve())
    await pass_through("startup")
    yield
    await pass_through("shutdown")
    await serving
