"""The application whose broker goes away: each request adds one job, and is told its id.

Imported by the servers' processes and by nobody else. What it is to use stands in the
environment: ``OUTAGE_ENGINE`` and ``OUTAGE_BROKER`` (where that engine's broker is),
``OUTAGE_JOURNAL`` (a path; there is no journal without one) and ``OUTAGE_TIMEOUT`` (the
engine's, in seconds).
"""

from __future__ import annotations

import os
from typing import Any

from asgi_bg import BackgroundTaskMiddleware, add_task, task
from asgi_bg.engines import Engine

BROKER = os.environ["OUTAGE_BROKER"]
TIMEOUT = float(os.environ["OUTAGE_TIMEOUT"])

engine: Engine
# Each engine in a process of its own, which loads nothing of the others.
match os.environ["OUTAGE_ENGINE"]:
    case "arq":
        from asgi_bg.engines.arq import ArqEngine

        engine = ArqEngine(BROKER, timeout=TIMEOUT)
    case "celery":
        from celery import Celery  # type: ignore[import-untyped]

        from asgi_bg.engines.celery import CeleryEngine

        engine = CeleryEngine(Celery("outage", broker=BROKER), timeout=TIMEOUT)
    case "taskiq":
        from taskiq_redis import RedisStreamBroker

        from asgi_bg.engines.taskiq import TaskiqEngine

        engine = TaskiqEngine(RedisStreamBroker(BROKER), timeout=TIMEOUT)
    case "procrastinate":
        from procrastinate import App, PsycopgConnector

        from asgi_bg.engines.procrastinate import ProcrastinateEngine

        connector = PsycopgConnector(conninfo=BROKER)
        engine = ProcrastinateEngine(App(connector=connector), timeout=TIMEOUT)
    case other:
        raise ValueError(f"OUTAGE_ENGINE must be one of the four, got {other!r}")


@task(name="outage:note")
async def note(number: int) -> None:
    """What the jobs call; no worker runs here, and they stay at the broker."""


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer ``POST /job?n=1`` with the id of a new job, and all else with nothing."""
    body = b""
    if scope["path"] == "/job":
        number = int(scope["query_string"].decode().removeprefix("n="))
        body = add_task(note, number).id.encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


app = BackgroundTaskMiddleware(
    answer, engine=engine, journal=os.environ.get("OUTAGE_JOURNAL"), drain_timeout=3.0
)
