"""Celery behind the same call: an app, and workers on any machine.

It needs a broker, whose address BROKER_URL says, and a Redis for results, at RESULTS_URL; both
are the Redis of this machine unless told otherwise. A RabbitMQ is amqp://guest:guest@127.0.0.1//
Then two commands:

    uvicorn examples.engines.celery_app:app
    celery -A examples.engines.celery_app:celery worker

And: curl http://127.0.0.1:8000/
"""

import os
from typing import Any

from celery import Celery  # type: ignore[import-untyped]

from asgi_bg import BackgroundTaskMiddleware, add_task, current_job, task
from asgi_bg.engines.celery import CeleryEngine

celery: Any = Celery(
    "shop",
    broker=os.environ.get("BROKER_URL", "redis://127.0.0.1:6379/0"),
    backend=os.environ.get("RESULTS_URL", "redis://127.0.0.1:6379/1"),
)
# Redis gives a job that a dead worker had to another one after this time; longer than any takes.
celery.conf.broker_transport_options = {"visibility_timeout": 600}

engine = CeleryEngine(celery)
engine.register()


@task(retries=3, timeout=60)
def send_invoice(order: int) -> str:
    print(f"invoice for order {order}, job {current_job().id}", flush=True)
    return f"invoice {order}"


async def shop(scope: Any, receive: Any, send: Any) -> None:
    job = add_task(send_invoice, 7)
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": f"accepted, job {job.id}\n".encode()})


app = BackgroundTaskMiddleware(shop, journal="jobs.db", engine=engine)
