"""Telemetry: what happens to jobs, as spans, metrics and log records.

    pip install 'asgi_bg[opentelemetry,prometheus]' opentelemetry-sdk uvicorn
    uvicorn telemetry:app           # here, or from above: uvicorn examples.telemetry:app

    curl -X POST localhost:8000/orders/7
    curl localhost:8000/metrics

Spans are printed here; a collector is a `SpanExporter` away. The first attempt to ship an order
fails, so there are two spans of it, each of which links to the one of the request. The log is
JSON, one object a line, and what is logged inside a task says which job it was.
"""

import json
import logging
import sys
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from prometheus_client import generate_latest

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, current_job, task
from asgi_bg.logs import JobFilter
from asgi_bg.opentelemetry import OpenTelemetryEvents
from asgi_bg.prometheus import PrometheusEvents


class JSONFormatter(logging.Formatter):
    """Makes a line of JSON of a record that `JobFilter` has seen."""

    def format(self, record: logging.LogRecord) -> str:
        told = {"level": record.levelname, "logger": record.name, "message": record.getMessage()}
        job = {name: getattr(record, name) for name in ("job_id", "task", "attempt")}
        return json.dumps({**told, **job})


handler = logging.StreamHandler(sys.stderr)
handler.addFilter(JobFilter())
handler.setFormatter(JSONFormatter())
logging.basicConfig(handlers=[handler], level=logging.INFO)
log = logging.getLogger("shop")

provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter()))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("shop")

spans = OpenTelemetryEvents(metrics=False)
metrics = PrometheusEvents()
runner = Runner(on_event=(spans, metrics))
metrics.observe(runner, 1.0)


@task(retries=1, retry_delay=0.1)
async def ship(order: str) -> None:
    with tracer.start_as_current_span("print label"):
        if current_job().attempt == 1:
            raise ConnectionError("the printer is warming up")
        log.info("order %s is on its way", order)


async def shop(scope: Any, receive: Any, send: Any) -> None:
    status, body = 404, b""
    if scope["path"] == "/metrics":
        status, body = 200, generate_latest()
    elif scope["path"].startswith("/orders/"):
        # An instrumentation of your framework makes this span by itself.
        with tracer.start_as_current_span("POST /orders/{order}"):
            job = add_task(ship, scope["path"].rpartition("/")[2])
        status, body = 202, f"{job.id}\n".encode()
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


app = BackgroundTaskMiddleware(shop, runner=runner)
