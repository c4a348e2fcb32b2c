"""The worker's side of the contract, of whatever engine the environment names."""

from __future__ import annotations

import os
from typing import Any

from asgi_bg.testing import contract_tasks

URL = os.environ.get("ENGINE_URL", "")
TASKS: tuple[Any, ...] = (
    contract_tasks.note,
    contract_tasks.send,
    contract_tasks.fail,
    contract_tasks.try_again,
    contract_tasks.linger,
)

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
        from examples.engines.saq_engine import SaqEngine

        saq = SaqEngine(URL)
        settings = {
            "queue": saq.queue,
            "functions": [saq.function(task.name) for task in TASKS],
            "timers": {"schedule": 1},
        }
