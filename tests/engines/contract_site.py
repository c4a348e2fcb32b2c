"""The worker's side of the contract, of whatever engine the environment names."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from asgi_bg import current_job, task
from asgi_bg.testing import contract_tasks

URL = os.environ.get("ENGINE_URL", "")
TASKS: tuple[Any, ...] = (
    contract_tasks.note,
    contract_tasks.send,
    contract_tasks.fail,
    contract_tasks.try_again,
    contract_tasks.linger,
)


@task(name="contract_site:hold")
async def hold(path: str) -> None:
    """Write down that it has begun, and go on until there is a file next to that."""
    job = current_job()
    with Path(path).open("a") as file:
        file.write(f"{job.id} {job.attempt} hold\n")
    while not Path(f"{path}.gate").exists():
        await asyncio.sleep(0.02)


match os.environ.get("ENGINE_KIND"):
    case "arq":
        from asgi_bg.engines.arq import ArqEngine

        WorkerSettings = ArqEngine(URL).worker_settings(poll_delay=0.05)
    case "celery":
        from celery import Celery

        from asgi_bg.engines.celery import CeleryEngine

        celery = Celery(broker=URL, backend=os.environ["ENGINE_RESULTS"])
        CeleryEngine(celery).register()
    case "taskiq":
        from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

        from asgi_bg.engines.taskiq import TaskiqEngine

        broker = RedisStreamBroker(URL).with_result_backend(RedisAsyncResultBackend(URL))
        TaskiqEngine(broker).register()
    case "procrastinate":
        import procrastinate

        from asgi_bg.engines.procrastinate import ProcrastinateEngine

        app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=URL))
        ProcrastinateEngine(app).register()
    case "saq":
        from examples.engines.saq_engine import SaqEngine, WorkerQueue

        engine = SaqEngine(URL, lease=1)
        settings = {
            "queue": WorkerQueue.from_url(URL),
            "functions": [(task.name, engine.run) for task in (*TASKS, hold)],
            "timers": {"schedule": 1, "sweep": 1},
        }
