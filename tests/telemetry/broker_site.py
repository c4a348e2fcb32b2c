"""A shop that hands its jobs over to a broker, and who works them, each in a process of its own.

All of them are traced, and tell what the SDK of their process has received.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from celery import Celery
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.engines.arq import ArqEngine
from asgi_bg.engines.base import Engine
from asgi_bg.engines.celery import CeleryEngine
from tests.telemetry.sdk import Telemetry, get_current_span

URL = os.environ.get("SITE_URL", "redis://127.0.0.1:1/0")
LINES = Path(os.environ.get("SITE_LINES", "/dev/null"))

telemetry = Telemetry()


@task(name="brokers.pay", retries=2, retry_delay=0.05)
async def pay(number: int, fails: int) -> int:
    _note(number, current_job().attempt)
    if current_job().attempt <= fails:
        raise PermissionError("the bank says no")
    return number


@task(name="brokers.paint")
def paint(number: int, fails: int) -> int:
    _note(number, current_job().attempt)
    return number


def _note(number: int, attempt: int) -> None:
    """Write down that a job runs, in which attempt, and inside of which span."""
    span = get_current_span().get_span_context()
    line = [number, attempt, os.getpid(), f"{span.span_id:016x}" if span.is_valid else None]
    with LINES.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _arq() -> Engine:
    return ArqEngine(URL, queue="brokers", consume=os.environ.get("SITE_CONSUME") == "yes")


celery = Celery("brokers", broker=URL, backend=URL, set_as_current=False)
celery.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


def _celery() -> Engine:
    made = CeleryEngine(celery)
    made.register()
    return made


MAKERS: dict[str, Callable[[], Engine]] = {"arq": _arq, "celery": _celery}

engine = MAKERS[os.environ.get("SITE_ENGINE", "arq")]()
WorkerSettings: Any = None
if isinstance(engine, ArqEngine):
    WorkerSettings = engine.worker_settings(poll_delay=0.05)

runner = Runner(engine=engine, journal=os.environ.get("SITE_JOURNAL"), on_event=telemetry.events())


async def add(request: Request) -> JSONResponse:
    """Add jobs inside of a span, and answer with that span."""
    function = {"pay": pay, "paint": paint}[request.query_params["task"]]
    count, fails = (int(request.query_params[name]) for name in ("count", "fails"))
    with telemetry.tracer.start_as_current_span("request") as span:
        for number in range(count):
            add_task(function, number, fails)
        context = span.get_span_context()
    return JSONResponse([f"{context.trace_id:032x}", f"{context.span_id:016x}"])


def _shown(span: Any) -> dict[str, Any]:
    return {
        "span": f"{span.context.span_id:016x}",
        "job": span.attributes["messaging.message.id"],
        "attempt": span.attributes["asgi_bg.attempt"],
        "status": span.attributes["asgi_bg.status"],
        "links": [
            [f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}"] for link in span.links
        ],
    }


async def told(request: Request) -> JSONResponse:
    """The spans of attempts, and the counters."""
    spans = [_shown(span) for span in telemetry.spans()]
    names = ("messaging.client.sent.messages", "messaging.client.consumed.messages")
    counted = {
        name: sum(telemetry.numbers(name).values())
        for name in (*names, "asgi_bg.jobs.handed_over", "asgi_bg.jobs.refused")
    }
    return JSONResponse({"spans": spans, "counts": counted, "pid": os.getpid()})


app = Starlette(routes=[Route("/add", add, methods=["POST"]), Route("/told", told)])
served = BackgroundTaskMiddleware(app, runner=runner)
