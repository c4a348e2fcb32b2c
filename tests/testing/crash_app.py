"""An app to be killed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from asgi_bg import BackgroundTaskMiddleware, add_task, current_job, task

LINES = Path(os.environ["LINES"])


def write(word: str) -> None:
    with LINES.open("a") as file:
        file.write(f"{word} {current_job().attempt}\n")


@task(name="site:store")
async def store(word: str) -> str:
    write(f"begin:{word}")
    current_job().progress(0.5, "half")
    write(f"end:{word}")
    return word


@task(name="site:store_in_thread")
def store_in_thread(word: str) -> str:
    write(f"begin:{word}")
    current_job().progress(0.5)
    write(f"end:{word}")
    return word


@task(name="site:wait")
async def wait() -> None:
    write("begin:wait")
    while not LINES.with_suffix(".gate").exists():
        await asyncio.sleep(0.01)


TASKS: dict[str, Any] = {
    "/store": store,
    "/thread": store_in_thread,
    "/wait": wait,
}


async def serve(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    name = scope["path"]
    args = () if name == "/wait" else (scope["query_string"].decode(),)
    job = add_task(TASKS[name], *args)
    body = f'{{"job": "{job.id}"}}'.encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def create() -> Any:
    return BackgroundTaskMiddleware(serve, journal=os.environ["JOBS"])


if "FACTORY" not in os.environ:
    app = create()
