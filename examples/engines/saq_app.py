"""An engine of one's own, for SAQ: an app, and a worker on any machine.

It needs a Redis, whose address REDIS_URL says, and two commands:

    uvicorn examples.engines.saq_app:app
    saq examples.engines.saq_app.settings

And: curl http://127.0.0.1:8000/
"""

import os
from typing import Any

from asgi_bg import BackgroundTaskMiddleware, add_task, current_job, task
from examples.engines.saq_engine import SaqEngine, WorkerQueue

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")


@task(retries=3)
async def send_invoice(order: int) -> None:
    print(f"invoice for order {order}, job {current_job().id}", flush=True)


engine = SaqEngine(REDIS_URL)
settings = {
    "queue": WorkerQueue.from_url(REDIS_URL),
    "functions": [(send_invoice.name, engine.run)],
    "timers": {"sweep": 30},  # so often it is looked for jobs whose worker has died
}


async def shop(scope: Any, receive: Any, send: Any) -> None:
    job = add_task(send_invoice, 7)
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": f"accepted, job {job.id}\n".encode()})


app = BackgroundTaskMiddleware(shop, journal="jobs.db", engine=engine)
