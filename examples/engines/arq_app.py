"""ARQ behind the same call: an app, and workers on any machine.

It needs a Redis, whose address REDIS_URL says.
Then two commands:

    uvicorn examples.engines.arq_app:app
    arq examples.engines.arq_app.WorkerSettings

And: curl http://127.0.0.1:8000/
"""

import os
from typing import Any

from asgi_bg import BackgroundTaskMiddleware, add_task, current_job, task
from asgi_bg.engines.arq import ArqEngine


async def count_order(ctx: dict[str, Any], order: int) -> int:
    """Count an order, as a function of ARQ's own, with its own client of Redis."""
    count: int = await ctx["redis"].incr("orders")
    print(f"order {order} is the {count}. one", flush=True)
    return count


engine = ArqEngine(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
WorkerSettings = engine.worker_settings(functions=[count_order])


@task(retries=3, timeout=60)
async def send_invoice(order: int) -> str:
    print(f"invoice for order {order}, job {current_job().id}", flush=True)
    return f"invoice {order}"


async def shop(scope: Any, receive: Any, send: Any) -> None:
    job = add_task(send_invoice, 7)
    add_task("count_order", 7)
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": f"accepted, job {job.id}\n".encode()})


app = BackgroundTaskMiddleware(shop, journal="jobs.db", engine=engine)
