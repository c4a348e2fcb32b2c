"""taskiq behind the same call: an app, and workers on any machine.

It needs a Redis, whose address REDIS_URL says, and ``pip install taskiq-redis``.
Then two commands:

    uvicorn examples.engines.taskiq_app:app
    taskiq worker examples.engines.taskiq_app:broker

And: curl http://127.0.0.1:8000/
"""

import os
from typing import Any

from taskiq.serializers import JSONSerializer
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from asgi_bg import BackgroundTaskMiddleware, add_task, current_job, task
from asgi_bg.engines.taskiq import TaskiqEngine

REDIS_URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379")

results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(
    REDIS_URL, result_ex_time=3600, serializer=JSONSerializer()
)
broker = RedisStreamBroker(REDIS_URL).with_result_backend(results)
engine = TaskiqEngine(broker)
engine.register()


@task(retries=3)
async def send_invoice(order: int) -> None:
    print(f"invoice for order {order}, job {current_job().id}", flush=True)


async def shop(scope: Any, receive: Any, send: Any) -> None:
    job = add_task(send_invoice, 7)
    await send({"type": "http.response.start", "status": 202, "headers": []})
    await send({"type": "http.response.body", "body": f"accepted, job {job.id}\n".encode()})


app = BackgroundTaskMiddleware(shop, journal="jobs.db", engine=engine)
