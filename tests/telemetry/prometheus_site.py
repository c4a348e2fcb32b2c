"""An application with Prometheus metrics; ``SITE_JOURNAL`` says where its journal is, if any.

Imported by servers' processes only.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from asgi_bg import BackgroundTaskMiddleware, Runner, add_task, task
from asgi_bg.prometheus import PrometheusEvents


@task(retries=1, retry_delay=0)
async def works(seconds: float = 0.0) -> None:
    pass


@task(retries=1, retry_delay=0)
def fails(seconds: float = 0.0) -> None:
    raise ValueError("of no use")


@task
def waits(seconds: float = 0.0) -> None:
    time.sleep(seconds)


TASKS = {"works": works, "fails": fails, "waits": waits}

is_multiprocess = "PROMETHEUS_MULTIPROC_DIR" in os.environ
registry = CollectorRegistry()
events = PrometheusEvents(registry=registry)
runner = Runner(on_event=events, journal=os.environ.get("SITE_JOURNAL"), max_jobs=2, ordered=False)
events.observe(runner, 0.1)


def metrics() -> bytes:
    if not is_multiprocess:
        return generate_latest(registry)
    of_all = CollectorRegistry()
    multiprocess.MultiProcessCollector(of_all)
    return generate_latest(of_all)


async def site(scope: Any, receive: Any, send: Any) -> None:
    body = b""
    if scope["path"] == "/metrics":
        body = metrics()
    else:
        query = parse_qs(scope["query_string"].decode())
        for _ in range(int(query.get("count", ["1"])[0])):
            add_task(TASKS[scope["path"][1:]], float(query.get("seconds", ["0"])[0]))
        body = json.dumps(os.getpid()).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


app = BackgroundTaskMiddleware(site, runner=runner)
