"""Procrastinate behind the same call: an app, and a worker on any machine.

It needs a PostgreSQL, whose address PROCRASTINATE_DSN says, and once:

    procrastinate --app=examples.engines.procrastinate_app.queue schema --apply

Then two commands:

    uvicorn examples.engines.procrastinate_app:app
    procrastinate --app=examples.engines.procrastinate_app.queue worker --concurrency 10

And: curl http://127.0.0.1:8000/
"""

import os
from typing import Any

import procrastinate

from asgi_bg import BackgroundTaskMiddleware, add_task, current_job, task
from asgi_bg.engines.procrastinate import ProcrastinateEngine

DSN = os.environ.get("PROCRASTINATE_DSN", "postgresql://postgres@127.0.0.1/postgres")

queue = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=DSN))
engine = ProcrastinateEngine(queue)
engine.register()


@task(retries=3, timeout=60)
async def send_invoice(order: int) -> str:
    print(f"invoice for order {order}, job {current_job().id}", flush=True)
    return f"invoice {order}"


async def shop(scope: Any, receive: Any, send: Any) -> None:
    job = add_task(send_invoice, 7)
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": f"accepted, job {job.id}\n".encode()})


app = BackgroundTaskMiddleware(shop, journal="jobs.db", engine=engine)
