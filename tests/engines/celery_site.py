"""The tasks, the engine and the Celery app of the tests of Celery, for every process.

Where the broker is, and what the tasks write their lines to, the environment says.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import os
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Any

from celery import Celery

from asgi_bg import BackgroundTaskMiddleware, add_task, current_job, task
from asgi_bg.engines.celery import CeleryEngine
from asgi_bg.exceptions import EngineError

LINES = Path(os.environ.get("ENGINE_LINES", "/dev/null"))


@dataclasses.dataclass
class Order:
    """A value that JSON alone does not know."""

    number: int
    at: datetime.datetime
    key: uuid.UUID


def note(*words: object) -> None:
    """Write a line down for the test to see, at once and whole."""
    with LINES.open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


@task(name="celery:double")
async def double(number: int) -> int:
    job = current_job()
    note("double", number, job.id, job.attempt)
    await asyncio.sleep(0)
    return 2 * number


@task(name="celery:plain")
def plain(order: Order, *, card: str = "") -> Order:
    note("plain", order.number, type(order.at).__name__, type(order.key).__name__)
    return dataclasses.replace(order, number=order.number + 1)


@task(name="celery:flaky", retries=2, retry_delay=0.1, redact=("secret",))
def flaky(times: int, secret: str) -> int:
    attempt = current_job().attempt
    note("flaky", attempt)
    if attempt <= times:
        raise ValueError(f"attempt {attempt}")
    return attempt


@task(name="celery:starred", redact=("cards",))
def starred(number: int, *cards: str) -> None: ...


@task(name="celery:slow", timeout=0.5)
async def slow() -> None:
    try:
        await asyncio.sleep(3600)
    finally:
        note("slow", "cleaned up")


@task(name="celery:slow-plain", timeout=0.5)
def slow_plain() -> None:
    while True:
        time.sleep(0.05)


@task(name="celery:exits", retries=1, retry_delay=0.1, retry_on=(SystemExit,))
def exits() -> None:
    note("exits", current_job().attempt)
    sys.exit(3)


@task(name="celery:held")
def held(path: str) -> str:
    """Tell how far it is, and wait until a file is there."""
    job = current_job()
    note("held", job.id, os.getpid())
    job.progress(0.25, "waiting")
    while not Path(path).exists():
        time.sleep(0.02)
    note("released", job.id)
    return "released"


@task(name="celery:parent")
async def parent(number: int) -> str:
    add_task(double, number)
    add_task(celery.tasks["theirs"], number, at=None)
    try:
        add_task(print, number)
    except Exception as exc:
        return str(exc)
    return ""


@task(name="celery:adds")
async def adds(option: str, value: Any) -> str:
    """Add a job with an option, and find that it is not followed here."""
    options: dict[str, Any] = {option: value}
    job = add_task(double.using(**options), 1)
    assert job.task_name == "celery:double"
    for asked in (job.result(1), job.info()):
        try:
            await asked
        except EngineError:
            continue
        return f"{job.id} is followed"
    return "refused"


@task(name="celery:where")
async def where() -> str:
    """Whether two jobs of one thread share an event loop, as connections need it."""
    loop = asyncio.get_running_loop()
    return f"{threading.get_ident()} {id(loop)}"


def make_celery(broker: str, backend: str | None = None, **settings: Any) -> Celery:
    """Return a Celery app with a task of its own."""
    made = Celery("site", broker=broker, backend=backend, set_as_current=False)
    made.conf.update(
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        result_extended=True,
        **settings,
    )

    @made.task(name="theirs", ignore_result=False)
    def theirs(number: int, *, at: datetime.datetime | None = None) -> Any:
        note("theirs", number, type(at).__name__)
        return [number, at]

    @made.task(name="noting", bind=True)
    def noting(self: Any, *words: Any) -> None:
        note("noting", *words, self.request.delivery_info["routing_key"])

    return made


celery = make_celery(
    os.environ.get("ENGINE_URL", "memory://"),
    os.environ.get("ENGINE_RESULTS"),
    task_default_queue=os.environ.get("ENGINE_QUEUE", "celery"),
    broker_transport_options=(
        {"visibility_timeout": 3} if "redis" in os.environ.get("ENGINE_URL", "") else {}
    ),
)
engine = CeleryEngine(celery)
if "ENGINE_URL" in os.environ:
    engine.register()


async def _shop(scope: Any, receive: Any, send: Any) -> None:
    number = int(scope["path"].strip("/") or 0)
    job = add_task(double, number)
    add_task(celery.tasks["theirs"], number, at=datetime.datetime(2030, 1, 2))
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": job.id.encode()})


app = BackgroundTaskMiddleware(
    _shop, engine=engine, journal=os.environ.get("ENGINE_JOURNAL") or None
)
