"""A Procrastinate project, as the processes of its tests import it: tasks, app, worker.

What is to be served stands in the environment. What happens is written to a file, one line each.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import procrastinate

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.engines.procrastinate import ProcrastinateEngine

URL = os.environ.get("ENGINE_URL", "postgresql://127.0.0.1:1/none")


@dataclass
class Order:
    """A value that JSON alone does not know."""

    number: int
    at: datetime
    key: UUID


def note(*words: object) -> None:
    """Write a line down for the test to see, at once and whole."""
    with Path(os.environ["ENGINE_LINES"]).open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


@task(name="pro:double")
async def double(number: int) -> int:
    job = current_job()
    note("double", number, job.id, job.attempt)
    return 2 * number


@task(name="pro:in-thread", queue="threads")
def in_thread(order: Order) -> Order:
    note("in-thread", order.number, type(order.at).__name__, type(order.key).__name__)
    return order


@task(name="pro:echo")
async def echo(text: str) -> str:
    return text


@task(name="pro:flaky", retries=2, retry_delay=0.0)
async def flaky(times: int) -> int:
    attempt = current_job().attempt
    note("flaky", attempt)
    if attempt <= times:
        raise ValueError(f"attempt {attempt}: \0 \udcff")
    return attempt


@task(name="pro:slow", timeout=0.3)
def slow() -> None:
    note("slow")
    while not current_job().cancelled:
        time.sleep(0.01)


@task(name="pro:held")
def held(path: str) -> None:
    """Waits in a thread until a file is there."""
    note("held", current_job().id, current_job().attempt)
    while not Path(path).exists():
        time.sleep(0.02)
    note("released")


@task(name="pro:waiting", retries=1, retry_delay=0.0)
async def waiting(path: str) -> str:
    """Waits on the loop until a file is there, and fails the first time."""
    note("waiting", current_job().id, current_job().attempt)
    while not Path(path).exists():
        await asyncio.sleep(0.02)
    if current_job().attempt == 1:
        raise ValueError("the first time")
    return "done"


@task(name="pro:deadly")
async def deadly() -> None:
    """Takes its worker along."""
    note("deadly", current_job().attempt)
    os._exit(7)


@task(name="pro:one-at-a-time", concurrency=1)
async def one_at_a_time(number: int) -> None:
    note("begin", number)
    await asyncio.sleep(0.1)
    note("end", number)


@task(name="pro:parent")
def parent(number: int) -> None:
    add_task(double, number)


app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL, min_size=1))


@app.task(name="theirs", queue="own", priority=3)
async def theirs(number: int, words: list[str]) -> None:
    """A task of Procrastinate's own."""
    note("theirs", number, *words)


engine = ProcrastinateEngine(app, consume=os.environ.get("ENGINE_CONSUME") == "yes")
engine.register()  # before some of the tasks are declared


@task(name="pro:declared-later")
async def declared_later() -> None:
    note("declared-later")


async def _shop(scope: Any, receive: Any, send: Any) -> None:
    number = int(scope["path"].strip("/") or 0)
    job = add_task(double, number)
    add_task(theirs, number=number, words=["a", "b"])
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": job.id.encode()})


asgi = BackgroundTaskMiddleware(
    _shop,
    runner=Runner(
        engine=engine, journal=os.environ.get("ENGINE_JOURNAL") or None, drain_timeout=5.0
    ),
)
