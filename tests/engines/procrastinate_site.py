"""A Procrastinate project, as the processes of its tests import it: tasks, app, worker."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import procrastinate

from asgi_bg import BackgroundTaskMiddleware, add_task, current_job, task
from asgi_bg.engines.procrastinate import ProcrastinateEngine


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


@task(name="pro:flaky", retries=2, retry_delay=0.0)
async def flaky(times: int) -> int:
    attempt = current_job().attempt
    note("flaky", attempt)
    if attempt <= times:
        raise ValueError(f"attempt {attempt}")
    return attempt


@task(name="pro:slow", timeout=0.3)
def slow() -> None:
    note("slow")
    while not current_job().cancelled:
        time.sleep(0.01)


@task(name="pro:held")
def held(path: str) -> None:
    """Waits until a file is there."""
    note("held", current_job().id)
    while not Path(path).exists():
        time.sleep(0.02)
    note("released")


@task(name="pro:parent")
def parent(number: int) -> None:
    add_task(double, number)


app = procrastinate.App(
    connector=procrastinate.PsycopgConnector(
        conninfo=os.environ.get("ENGINE_URL", "postgresql://127.0.0.1:1/none"), min_size=1
    )
)


@app.task(name="theirs", queue="own", priority=3)
async def theirs(number: int, words: list[str]) -> None:
    """A task of Procrastinate's own."""
    note("theirs", number, *words)


engine = ProcrastinateEngine(app)
engine.register()


async def _shop(scope: Any, receive: Any, send: Any) -> None:
    number = int(scope["path"].strip("/") or 0)
    job = add_task(double, number)
    add_task(theirs, number=number, words=["a", "b"])
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": job.id.encode()})


asgi = BackgroundTaskMiddleware(
    _shop, engine=engine, journal=os.environ.get("ENGINE_JOURNAL") or None
)
