"""A shop that hands its jobs over to a broker, and who works them, each in a process of its own.

All of them are traced, and tell what the SDK of their process has received.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import procrastinate
from celery import Celery
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from taskiq_redis import RedisStreamBroker

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.engines.arq import ArqEngine
from asgi_bg.engines.base import Engine
from asgi_bg.engines.celery import CeleryEngine
from asgi_bg.engines.procrastinate import ProcrastinateEngine
from asgi_bg.engines.taskiq import TaskiqEngine
from asgi_bg.events import EventHandler, JobEvent
from tests.telemetry.sdk import Telemetry, get_current_span

URL = os.environ.get("SITE_URL", "redis://127.0.0.1:1/0")
POSTGRES = os.environ.get("SITE_POSTGRES", "postgresql://127.0.0.1:1/none")
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


@task(name="brokers.order")
def order(number: int, fails: int) -> None:
    """Adds another job, where it runs."""
    _note(number, current_job().attempt)
    add_task(paint, number, fails)


def _note(number: int, attempt: int) -> None:
    """Write down that a job runs, in which attempt, and inside of which span."""
    span = get_current_span().get_span_context()
    line = [number, attempt, os.getpid(), f"{span.span_id:016x}" if span.is_valid else None]
    with LINES.open("a") as file:
        file.write(json.dumps(line) + "\n")


def _told() -> dict[str, Any]:
    """What the SDK of this process has received: the spans of attempts, and the numbers."""
    spans = [_shown(span) for span in telemetry.spans()]
    names = ("messaging.client.sent.messages", "messaging.client.consumed.messages")
    counted = {
        name: sum(telemetry.numbers(name).values())
        for name in (*names, "asgi_bg.jobs.handed_over", "asgi_bg.jobs.refused")
    }
    measured = {
        name: sum(telemetry.numbers(name).values())
        for name in ("asgi_bg.queue.wait", "messaging.process.duration")
    }
    return {"spans": spans, "counts": counted, "measured": measured, "pid": os.getpid()}


def _shown(span: Any) -> dict[str, Any]:
    return {
        "trace": f"{span.context.trace_id:032x}",
        "span": f"{span.context.span_id:016x}",
        "task": span.attributes["messaging.destination.name"],
        "job": span.attributes["messaging.message.id"],
        "attempt": span.attributes["asgi_bg.attempt"],
        "status": span.attributes["asgi_bg.status"],
        "links": [
            [f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}"] for link in span.links
        ],
    }


def broken(event: JobEvent) -> None:
    """A subscriber that fails."""
    raise RuntimeError(f"{event.name} is not heard")


exporting = threading.Lock()


def export(event: JobEvent) -> None:
    """Write what was received so far into a file of this process."""
    path = Path(os.environ["SITE_TOLD"]) / f"{os.getpid()}.json"
    with exporting:  # events come from several threads
        path.with_suffix(".new").write_text(json.dumps(_told()))
        path.with_suffix(".new").rename(path)


watching: list[EventHandler] = []
if "SITE_TOLD" in os.environ:
    watching = [broken, telemetry.events(measured=None), export]


def _arq() -> Engine:
    return ArqEngine(URL, queue="brokers", consume=os.environ.get("SITE_CONSUME") == "yes")


celery = Celery("brokers", broker=URL, backend=URL, set_as_current=False)
celery.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)


def _celery() -> Engine:
    made = CeleryEngine(celery)
    made.register(on_event=watching)
    return made


broker = RedisStreamBroker(URL, queue_name="brokers.taskiq", xread_block=200)


def _taskiq() -> Engine:
    made = TaskiqEngine(broker)
    made.register(on_event=watching)
    return made


queue = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=POSTGRES))


def _procrastinate() -> Engine:
    made = ProcrastinateEngine(queue)
    made.register(on_event=watching)
    return made


MAKERS: dict[str, Callable[[], Engine]] = {
    "arq": _arq,
    "celery": _celery,
    "taskiq": _taskiq,
    "procrastinate": _procrastinate,
}

engine = MAKERS[os.environ.get("SITE_ENGINE", "arq")]()
WorkerSettings: Any = None
if isinstance(engine, ArqEngine):
    WorkerSettings = engine.worker_settings(poll_delay=0.05, on_event=watching)

runner = Runner(engine=engine, journal=os.environ.get("SITE_JOURNAL"), on_event=telemetry.events())


async def add(request: Request) -> JSONResponse:
    """Add jobs inside of a span, and answer with that span."""
    function = {"pay": pay, "paint": paint, "order": order}[request.query_params["task"]]
    count, fails = (int(request.query_params[name]) for name in ("count", "fails"))
    with telemetry.tracer.start_as_current_span("request") as span:
        for number in range(count):
            add_task(function, number, fails)
        context = span.get_span_context()
    return JSONResponse([f"{context.trace_id:032x}", f"{context.span_id:016x}"])


async def told(request: Request) -> JSONResponse:
    """The spans of attempts, and the counters."""
    return JSONResponse(_told())


app = Starlette(routes=[Route("/add", add, methods=["POST"]), Route("/told", told)])
served = BackgroundTaskMiddleware(app, runner=runner)
